package integration

import (
	"fmt"
	"testing"
	"time"

	. "netguard/integration/harness"
)

// These print ratios and times that were measured side by side in one run; on a
// machine that is busy only the ratios mean something.

// row reports one measured number and nothing else.
func row(b *testing.B, name string, measure func() map[string]float64) {
	b.Run(name, func(b *testing.B) {
		for b.Loop() {
			for unit, value := range measure() {
				b.ReportMetric(value, unit)
			}
		}
		b.ReportMetric(0, "ns/op")
	})
}

// BenchmarkBandwidth is achieved against configured, as the limit counts bytes.
func BenchmarkBandwidth(b *testing.B) {
	e := Start(b)
	a := e.Agent()
	e.Network("net", Subnet("198.18.1.0/24"), Subnet("fd00:1::/64"))
	peer := e.Run("peer", On("net"))
	b.Run("unshaped", func(b *testing.B) {
		for b.Loop() {
			b.ReportMetric(e.UnshapedRate("net").WireBitsPerSecond()/1e9, "Gbit/s")
		}
		b.ReportMetric(0, "ns/op")
	})
	for _, mbit := range []uint64{1, 10, 100, 1000, 5000} {
		bps := mbit * 1e6
		label := fmt.Sprintf("%dmbit", mbit)
		c := e.Run("c"+label, On("net"), Label(ingressRate, label), Label(egressRate, label))
		a.AwaitStatus("it is limited", limited(c, "net", bps, bps))
		for _, w := range ways(c, peer, "net") {
			for _, protocol := range []string{"tcp", "udp"} {
				long := 4 * time.Second
				if mbit == 1 {
					long = 12 * time.Second
				}
				row(b, fmt.Sprintf("%s/%s/%s", label, w.name, protocol), func() map[string]float64 {
					offered, received := w.flow(protocol, long)
					return map[string]float64{"achieved/configured": received / float64(bps), "offered/configured": offered / float64(bps)}
				})
			}
		}
		c.Remove()
	}
}

// BenchmarkLatency is the round trip of a small packet through a saturated
// limit: netguard's, and two that others build, on the way to the container.
func BenchmarkLatency(b *testing.B) {
	e := Start(b)
	a := e.Agent()
	e.Network("net")
	peer := e.Run("peer", On("net"))
	for _, mbit := range []uint64{1, 10, 100, 1000} {
		label := fmt.Sprintf("%dmbit", mbit)
		report := func(name string, w way) {
			row(b, label+"/"+name+"/"+w.name, func() map[string]float64 {
				got := w.loaded(400)
				return map[string]float64{"p50-ms": got.P50, "p99-ms": got.P99, "lost": float64(got.Sent - got.Received)}
			})
		}
		c := e.Run("c"+label, On("net"), Label(ingressRate, label), Label(egressRate, label))
		a.AwaitStatus("it is limited", limited(c, "net", mbit*1e6, mbit*1e6))
		for _, w := range ways(c, peer, "net") {
			report("netguard", w)
		}
		c.Remove()
		for name, command := range map[string]string{
			"htb+default": "tc qdisc add dev %[1]s root handle 1: htb default 1 && tc class add dev %[1]s parent 1: classid 1:1 htb rate %[2]s",
			"docker-tc":   "tc qdisc add dev %[1]s root tbf rate %[2]s burst 5kb latency 50ms",
		} {
			c := e.Run("other"+label, On("net"))
			s := a.AwaitStatus("it is there", limited(c, "net", 0, 0))
			ep, _ := Endpoint(s, c, "net")
			e.Output("sh", "-c", fmt.Sprintf(command, ep.Veth, label))
			report(name, ways(c, peer, "net")[0])
			c.Remove()
		}
	}
}

// BenchmarkFirstPacket is what a container gets through that sends flat out from
// its first instruction, above rate x time, against what its limit allows.
func BenchmarkFirstPacket(b *testing.B) {
	e := Start(b)
	e.Agent()
	e.Network("net")
	peer := e.Run("peer", On("net"))
	for _, protocol := range []string{"tcp", "udp"} {
		row(b, protocol, func() map[string]float64 {
			w := way{to: peer, address: peer.IP("net")}
			at := w.at()
			sink := w.listen(protocol, at)
			c := e.Run("hasty-"+protocol, On("net"), Label(egressRate, "10mbit"), Doing("blast", protocol, at, "2s"))
			defer c.Remove()
			c.Wait()
			return map[string]float64{"excess-bytes": excess(arrived(sink, w.overhead(protocol)), 10e6)}
		})
	}
}
