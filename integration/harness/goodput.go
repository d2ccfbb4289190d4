package harness

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"
)

// Goodput measures with iperf3 how much one host can send to another. The client is
// in From and sends to the server in To. If the other fields are zero, it sends TCP
// for three seconds.
type Goodput struct {
	From, To Netns
	Address  netip.Addr // To's
	Port     uint16     // one of the harness's choice if 0
	Reverse  bool       // To sends, From receives
	UDP      bool
	Offer    uint64        // bits a second that a UDP sender offers; 0: all it can
	Seconds  int           // duration
	Omit     int           // seconds that do not count, before the duration
	Streams  int           // parallel streams
	Interval time.Duration // of Flow.Intervals; 1s if 0
}

// Flow is what Goodput has measured.
type Flow struct {
	// BitsPerSecond is what the receiver got, payload only.
	BitsPerSecond float64
	// Sent is the same at the sender.
	Sent float64
	// Retransmits counts TCP segments; LostPercent is UDP's loss.
	Retransmits int
	LostPercent float64
	// Intervals are the client's bits a second, for each interval: what it got
	// with Reverse, otherwise what it sent.
	Intervals []float64
}

// WireBitsPerSecond is the rate of a TCP flow with the headers, as a limit on
// Ethernet frames of 1514 bytes counts them.
func (f Flow) WireBitsPerSecond() float64 { return f.BitsPerSecond * 1514 / 1448 }

func (f Flow) String() string {
	return fmt.Sprintf("%.3f Mbit/s received, %.3f sent, %d retransmits, %.2f %% lost",
		f.BitsPerSecond/1e6, f.Sent/1e6, f.Retransmits, f.LostPercent)
}

// Load is a Goodput that is being measured.
type Load struct {
	g              Goodput
	server, client *Process
}

// ports gives different ports to measurements that run at the same time.
var ports atomic.Uint32

// Measure runs the measurement to its end.
func (g Goodput) Measure() Flow {
	g.From.tb.Helper()
	return g.Start().Wait()
}

// Start starts the measurement. The caller can measure something else under its load.
func (g Goodput) Start() *Load {
	g.From.tb.Helper()
	if g.Port == 0 {
		g.Port = uint16(20000 + ports.Add(1)%10000)
	}
	port := strconv.Itoa(int(g.Port))
	interval := "1"
	if g.Interval > 0 {
		interval = strconv.FormatFloat(g.Interval.Seconds(), 'f', -1, 64)
	}
	l := &Load{g: g}
	// --forceflush: its first line comes when it listens, not when it ends.
	l.server = g.To.Spawn("iperf3", "--server", "--one-off", "--port", port, "--interval", interval, "--forceflush")
	l.server.AwaitLine("Server listening")
	args := []string{
		"--client", g.Address.String(), "--port", port, "--json", "--interval", interval,
		"--connect-timeout", "5000", "--time", strconv.Itoa(cmp.Or(g.Seconds, 3)), "--parallel", strconv.Itoa(cmp.Or(g.Streams, 1)),
	}
	if g.Omit > 0 {
		args = append(args, "--omit", strconv.Itoa(g.Omit))
	}
	if g.Reverse {
		args = append(args, "--reverse")
	}
	if g.UDP {
		// Packets that fit an Ethernet frame of IPv6 as well.
		args = append(args, "--udp", "--length", "1400", "--bitrate", strconv.FormatUint(g.Offer, 10))
	}
	l.client = g.From.Spawn("iperf3", args...)
	return l
}

// Wait waits for the measurement's end.
func (l *Load) Wait() Flow {
	l.client.tb.Helper()
	r := l.client.Wait()
	l.server.Kill()
	f, err := readFlow([]byte(r.Stdout), l.g.UDP)
	if err != nil {
		l.client.tb.Fatalf("measure goodput: %v: %s", err, r)
	}
	return f
}

// UnshapedRate measures the rate between two containers of a network without limits.
// Tests compare limited containers with it.
func (e *Engine) UnshapedRate(networkName string) Flow {
	e.tb.Helper()
	id := ports.Add(1)
	from := e.Run(fmt.Sprintf("unshaped-from-%d", id), On(networkName))
	to := e.Run(fmt.Sprintf("unshaped-to-%d", id), On(networkName))
	defer from.Remove()
	defer to.Remove()
	return Goodput{From: from.Inside(), To: to.Inside(), Address: to.IP(networkName)}.Measure()
}

// report is what is used of iperf3's JSON.
type report struct {
	Error     string
	Intervals []struct{ Sum sum }
	End       struct {
		Sum     sum
		SumSent sum `json:"sum_sent"`
		SumRecv sum `json:"sum_received"`
	}
}

type sum struct {
	BitsPerSecond float64 `json:"bits_per_second"`
	Retransmits   int
	LostPercent   float64 `json:"lost_percent"`
	Omitted       bool
}

func readFlow(raw []byte, udp bool) (Flow, error) {
	var r report
	if err := json.Unmarshal(raw, &r); err != nil {
		return Flow{}, fmt.Errorf("decode iperf3's report: %w", err)
	}
	if r.Error != "" {
		return Flow{}, fmt.Errorf("iperf3 says: %s", r.Error)
	}
	f := Flow{
		BitsPerSecond: r.End.SumRecv.BitsPerSecond,
		Sent:          r.End.SumSent.BitsPerSecond,
		Retransmits:   r.End.SumSent.Retransmits,
	}
	if udp {
		f.LostPercent = r.End.Sum.LostPercent
	}
	for _, i := range r.Intervals {
		if !i.Sum.Omitted {
			f.Intervals = append(f.Intervals, i.Sum.BitsPerSecond)
		}
	}
	return f, nil
}
