package integration

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	. "netguard/integration/harness"
)

// load is what policies say while something is measured.
type load struct {
	name  string
	files map[string]string
}

// loads are n policies about both ends of what is measured, of which the last one
// is the one that allows it: every rule is gone through.
func loads() []load {
	all := []load{{"0_policies", nil}}
	const last = "{name: zz-in, select: {container: db}, ingress: [{from: [{container: web}]}]}\n---\n" +
		"{name: zz-out, select: {container: web}, egress: [{to: [{entity: any}, {container: db}]}]}\n"
	for _, n := range []int{10, 100, 1000} {
		files := map[string]string{"zz.yaml": last}
		var text strings.Builder
		for i := range n - 2 {
			who, side, peers := "db", "ingress", "from"
			if i%2 == 1 {
				who, side, peers = "web", "egress", "to"
			}
			fmt.Fprintf(&text, "{name: p%04d, select: {container: %s}, %s: [{%s: [{cidr: 10.%d.%d.0/24}], ports: [tcp/%d, udp/%d]}]}\n---\n",
				i, who, side, peers, i/250, i%250, 1+i, 1+i)
			if i%400 == 399 || i == n-3 {
				files[fmt.Sprintf("p%04d.yaml", i)] = strings.TrimSuffix(text.String(), "---\n")
				text.Reset()
			}
		}
		all = append(all, load{fmt.Sprintf("%d_policies", n), files})
	}
	var many strings.Builder
	for i := range 10 {
		var items []string
		for j := range 100 {
			items = append(items, fmt.Sprintf("{cidr: 10.%d.%d.0/24}", i, j))
		}
		fmt.Fprintf(&many, "{name: m%d, select: {container: db}, ingress: [{from: [%s]}]}\n---\n", i, strings.Join(items, ", "))
	}
	return append(all, load{"1000_members", map[string]string{"many.yaml": strings.TrimSuffix(many.String(), "---\n"), "zz.yaml": last}})
}

// duo is a client and whom it talks to, on a host of their own.
type duo struct {
	web, db *guest
	outside *spot
}

func newDuo(b *testing.B) (*duo, *Engine) {
	e := Start(b, WithOutside())
	e.Network("net", Subnet("198.18.70.0/24"))
	d := &duo{web: welcome(b, e, "web", "net", nil), db: welcome(b, e, "db", "net", []string{"tcp/80"}), outside: &spot{"outside", e.Outside.Netns}}
	openDoors(b, d.outside, []string{"tcp/80"}, OutsideIPv4)
	return d, e
}

// ends are whom the client talks to.
func (d *duo) ends() map[string]end {
	return map[string]end{"same_bridge": {d.web.at, d.db.at, d.db.addrs[0]}, "routed": {d.web.at, d.outside, OutsideIPv4}}
}

type end struct {
	from, to *spot
	address  netip.Addr
}

func (e end) bits(*testing.B) float64 {
	return Goodput{From: e.from.Netns, To: e.to.Netns, Address: e.address, Seconds: 1}.Measure().BitsPerSecond
}

// packets are small ones, 64 bytes of UDP, those that arrive in a second: of a flow
// that was answered once, or of one that never is, of which every packet is a
// new connection to the kernel.
func (e end) packets(b *testing.B, answered bool) float64 {
	var receiver *net.UDPConn
	err := e.to.Do(func() (err error) {
		receiver, err = net.ListenUDP("udp4", &net.UDPAddr{IP: e.address.AsSlice()})
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	var arrived atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for buf := make([]byte, 64); ; {
			_, from, err := receiver.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if arrived.Add(1) == 1 && answered {
				_, _ = receiver.WriteToUDPAddrPort(buf, from) // if it is lost the sender fails
			}
		}
	}()
	var sent time.Duration
	err = e.from.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		to := receiver.LocalAddr().(*net.UDPAddr).AddrPort()
		if err := unix.Connect(fd, sockaddr(to)); err != nil {
			return err
		}
		packet := make([]byte, 64)
		if answered {
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 3}); err != nil {
				return err
			}
			if _, err := unix.Write(fd, packet); err != nil {
				return err
			}
			if _, err := unix.Read(fd, packet); err != nil {
				return fmt.Errorf("await answer: %w", err)
			}
		}
		begin := time.Now()
		for n := 0; ; n++ {
			_, _ = unix.Write(fd, packet) // what is lost does not arrive
			if n%64 == 0 && time.Since(begin) > time.Second {
				sent = time.Since(begin)
				return nil
			}
		}
	})
	_ = receiver.Close()
	<-done
	if err != nil {
		b.Fatal(err)
	}
	return float64(arrived.Load()) / sent.Seconds()
}

// connections are opened one after the other, for a second: how many, and the 99th
// percentile of the time that one takes, in microseconds.
func (e end) connections(b *testing.B) (perSecond, p99 float64) {
	var took []float64
	begin := time.Now()
	err := e.from.Do(func() error {
		for time.Since(begin) < time.Second {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			at := time.Now()
			err = unix.Connect(fd, sockaddr(netip.AddrPortFrom(e.address, 80)))
			took = append(took, float64(time.Since(at).Nanoseconds())/1000)
			// A reset, so that no port is kept waiting.
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			_ = unix.Close(fd)
			if err != nil {
				return fmt.Errorf("connect: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	perSecond = float64(len(took)) / time.Since(begin).Seconds()
	slices.Sort(took)
	return perSecond, took[len(took)*99/100]
}

// BenchmarkPolicies is what policies cost, as ratios to a dockerd without netguard
// beside it: the medians of turns that are taken one after the other.
func BenchmarkPolicies(b *testing.B) {
	const turns = 5
	plain, _ := newDuo(b)
	guarded, e := newDuo(b)
	book := newRulebook(e, e.Agent())
	book.awaitAdmitted(b, 2)
	median := func(all []float64) float64 { slices.Sort(all); return all[len(all)/2] }
	for _, l := range loads() {
		began := time.Now()
		book.enact(b, l.files)
		b.Logf("%s are in force after %v", l.name, time.Since(began))
		for _, way := range []string{"same_bridge", "routed"} {
			without, with := plain.ends()[way], guarded.ends()[way]
			row(b, l.name+"/"+way, func() map[string]float64 {
				ratios := map[string][]float64{}
				add := func(unit string, without, with float64) { ratios[unit] = append(ratios[unit], with/without) }
				for range turns {
					add("throughput", without.bits(b), with.bits(b))
					add("packets", without.packets(b, true), with.packets(b, true))
					add("packets-unanswered", without.packets(b, false), with.packets(b, false))
					n, p := without.connections(b)
					m, q := with.connections(b)
					add("connections", n, m)
					add("connect-p99", p, q)
				}
				out := map[string]float64{}
				for unit, all := range ratios {
					out[unit+"/without"] = median(all)
				}
				return out
			})
		}
	}
}
