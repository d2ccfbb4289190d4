package integration

import (
	"bufio"
	"encoding/json"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	. "netguard/integration/harness"
)

// way is one direction between a container with a limit and one without.
type way struct {
	name     string
	from, to *Container
	address  netip.Addr // of to
}

// ways are both directions of c, for IPv4, and for IPv6 where there is any.
func ways(c, peer *Container, network string) []way {
	all := []way{
		{"ingress", peer, c, c.IP(network)},
		{"egress", c, peer, peer.IP(network)},
	}
	if c.Inspect().NetworkSettings.Networks[network].GlobalIPv6Address != "" {
		all = append(all,
			way{"ingress IPv6", peer, c, c.IP6(network)},
			way{"egress IPv6", c, peer, peer.IP6(network)})
	}
	return all
}

var nextPort atomic.Uint32

// at gives a port of the receiver that no other measurement uses.
func (w way) at() string {
	return netip.AddrPortFrom(w.address, uint16(5000+nextPort.Add(1)%15000)).String()
}

// overhead is what a limit counts for each byte that an application receives:
// whole frames of 1514 bytes with TCP (1448 bytes of it, 1428 with IPv6), and of
// 1400 bytes of UDP and its headers.
func (w way) overhead(protocol string) float64 {
	ip := 20.0
	if w.address.Is6() {
		ip = 40
	}
	if protocol == "udp" {
		return (1400 + 14 + ip + 8) / 1400
	}
	return 1514 / (1514 - 14 - ip - 32)
}

// stream is traffic that is sent flat out and counted where it arrives.
type stream struct {
	w           way
	protocol    string
	sink, blast *Process
	// offered is what was sent, in bits a second on the wire, once it stopped.
	offered float64
}

// stream starts sending, and returns when the first interval has arrived.
func (w way) stream(protocol string) *stream {
	at := w.at()
	s := &stream{w: w, protocol: protocol, sink: w.listen(protocol, at)}
	s.blast = w.from.Inside().SpawnProbe("blast", protocol, at, "10m")
	s.sink.AwaitLine("at_ms")
	return s
}

// listen counts what arrives at an address of the receiver.
func (w way) listen(protocol, at string) *Process {
	sink := w.to.Inside().SpawnProbe("sink", protocol, at, "50ms")
	sink.AwaitLine("sinking")
	return sink
}

// interval is what arrived until a time since the first arrival.
type interval struct {
	AtMS  float64 `json:"at_ms"`
	Bytes float64 `json:"bytes"`
	GapMS float64 `json:"gap_ms"` // the longest time without an arrival
	Total bool    `json:"total"`
}

// stop ends the stream and returns what arrived, in bytes on the wire.
func (s *stream) stop() []interval {
	var sent struct{ Bytes, Seconds float64 }
	if json.Unmarshal([]byte(s.blast.Stop().Stdout), &sent) == nil && sent.Seconds > 0 {
		s.offered = sent.Bytes * s.w.overhead(s.protocol) * 8 / sent.Seconds
	}
	return arrived(s.sink, s.w.overhead(s.protocol))
}

func arrived(sink *Process, overhead float64) []interval {
	var out []interval
	lines := bufio.NewScanner(strings.NewReader(sink.Stop().Stdout))
	for lines.Scan() {
		var i interval
		if json.Unmarshal(lines.Bytes(), &i) == nil && i.AtMS > 0 && !i.Total {
			i.Bytes *= overhead
			out = append(out, i)
		}
	}
	return out
}

// flow runs a stream for a while, and gives the rates at which it was sent and
// received, in bits a second on the wire.
func (w way) flow(protocol string, d time.Duration) (offered, received float64) {
	s := w.stream(protocol)
	time.Sleep(d) // what is measured is how much passes in a time
	received = rate(s.stop())
	return s.offered, received
}

// rate is in bits a second, without what arrived in the first half second: the
// burst, and TCP's slow start.
func rate(is []interval) float64 {
	var from, to, bytes float64
	for _, i := range is {
		if i.AtMS < 500 {
			from = i.AtMS
			continue
		}
		bytes, to = bytes+i.Bytes, i.AtMS
	}
	return bytes * 8 / (to - from) * 1000
}

// warmUp is how long TCP takes to find the rate, and to mend what it lost on the
// way there.
const warmUp = time.Second

// longestGap is in milliseconds, after the warm-up.
func longestGap(is []interval) float64 {
	gap := 0.0
	for _, i := range is {
		if i.AtMS > warmUp.Seconds()*1000 {
			gap = max(gap, i.GapMS)
		}
	}
	return gap
}

// excess is the most by which the bytes that had arrived at any time were above
// rate x time.
func excess(is []interval, bps float64) float64 {
	most, bytes := 0.0, 0.0
	for _, i := range is {
		bytes += i.Bytes
		most = max(most, bytes-bps/8*i.AtMS/1000)
	}
	return most
}

// loaded measures round trips while a TCP flow fills the way.
func (w way) loaded(count int) Times {
	at := w.at()
	echo := w.to.Inside().Serve("udp", at)
	defer echo.Kill()
	s := w.stream("tcp")
	defer s.stop()
	return w.from.Inside().RoundTrips(at, count, 10*time.Millisecond)
}
