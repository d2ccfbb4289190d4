package integration

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"netguard/agent/control"
	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// smallPackets gives how many frames of 64 bytes (the sum at the end included) a
// second get from one container to another, past the bridge, when they are sent as
// fast as the machine can.
func smallPackets(b *testing.B, from, to *actor) float64 {
	b.Helper()
	frame := attack.Ether(to.MAC, from.MAC, attack.EtherIPv4, udp4(from, to, strings.Repeat("x", 18)))
	arrived := func() (n uint64) {
		err := to.Inside().Do(func() error {
			link, err := netlink.LinkByIndex(to.iface)
			if err == nil {
				n = link.Attrs().Statistics.RxPackets
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	before, begin := arrived(), time.Now()
	if _, err := from.port.Blast(frame, time.Second); err != nil {
		b.Fatal(err)
	}
	return float64(arrived()-before) / time.Since(begin).Seconds()
}

// alternating measures with plain Docker and with netguard, in turns.
func alternating(b *testing.B, a *Agent, measure func() []float64) (plain, guarded []float64) {
	b.Helper()
	var all [2][][]float64
	for range 5 {
		all[0] = append(all[0], measure())
		a.Start()
		a.AwaitStatus("all are admitted", func(s control.Status) bool { return s.InSync && AllAdmitted(s) })
		all[1] = append(all[1], measure())
		if r := a.CLI("cleanup"); !r.OK() {
			b.Fatalf("clean up: %s", r)
		}
		a.Process().Wait()
	}
	return medians(all[0]), medians(all[1])
}

// medians are those of each column.
func medians(rows [][]float64) []float64 {
	out := make([]float64, len(rows[0]))
	for i := range out {
		var column []float64
		for _, r := range rows {
			column = append(column, r[i])
		}
		slices.Sort(column)
		out[i] = column[len(column)/2]
	}
	return out
}

// BenchmarkGuard compares netguard with plain Docker, side by side, on bridges
// that have 2 ports and, all together, 200.
func BenchmarkGuard(b *testing.B) {
	e := Start(b)
	a := e.NewAgent()
	e.Network("net", Subnet("198.18.60.0/24"))
	from, to := enter(b, e.Run("from", On("net")), "net"), enter(b, e.Run("to", On("net")), "net")
	// Nobody reads, so that the receiver costs nothing; the packet socket must
	// not hear.
	listen(b, to)
	to.port.Close()
	w := way{from: from.Container, to: to.Container, address: to.IPv4}
	throughput := func() []float64 {
		_, tcp := w.flow("tcp", 2*time.Second)
		return []float64{tcp, smallPackets(b, from, to)}
	}
	for _, ports := range []int{2, 200} {
		if ports > 2 {
			crowd(e, ports-2)
		}
		row(b, fmt.Sprintf("%d_ports", ports), func() map[string]float64 {
			plain, guarded := alternating(b, a, throughput)
			return map[string]float64{"tcp-Gbit/s": guarded[0] / 1e9, "tcp/plain": guarded[0] / plain[0],
				"udp64-kpps": guarded[1] / 1e3, "udp64/plain": guarded[1] / plain[1]}
		})
	}
}

// crowd makes ports: containers that are each on many networks.
func crowd(e *Engine, ports int) {
	const networks = 20
	for i := range networks {
		e.Network(fmt.Sprintf("crowd%d", i), Subnet(fmt.Sprintf("198.18.%d.0/24", 100+i)))
	}
	for c := 0; ports > 0; c++ {
		options := []ContainerOption{}
		for i := range min(networks, ports) {
			options = append(options, On(fmt.Sprintf("crowd%d", i)))
		}
		ports -= len(options)
		e.Run(fmt.Sprintf("crowd%d", c), options...)
	}
}

// BenchmarkFlood is what a flood of frames from forged MACs leaves to others: how
// much TCP a victim gets, against what it gets in peace, without netguard and
// with it. The machine's CPUs are the attacker's as well.
func BenchmarkFlood(b *testing.B) {
	e := Start(b)
	a := e.NewAgent()
	n := e.Network("net", Subnet("198.18.61.0/24"))
	attacker, peer, victim := e.Run("attacker", On("net")), e.Run("peer", On("net")), e.Run("victim", On("net"))
	w := way{from: peer, to: victim, address: victim.IP("net")}
	frame := attack.Ether(attack.Broadcast, attack.Nobody, attack.EtherARP,
		attack.ARP(attack.Request, attack.Nobody, attacker.IP("net"), attack.MAC{}, victim.IP("net")))
	row(b, "tcp", func() map[string]float64 {
		plain, guarded := alternating(b, a, func() []float64 {
			_, peace := w.flow("tcp", 2*time.Second)
			flood := attacker.Inside().SpawnProbe("frame", "flood", attacker.Interface("net"), hex.EncodeToString(frame), "3s")
			_, war := w.flow("tcp", 2*time.Second)
			var sent struct{ Sent float64 }
			if err := flood.Wait().Into(&sent); err != nil {
				b.Fatal(err)
			}
			e.Output("ip", "link", "set", n.Bridge, "type", "bridge", "fdb_flush")
			return []float64{war / peace, sent.Sent / 3}
		})
		return map[string]float64{"kept-without": plain[0], "kept-with": guarded[0], "dropped-kpps": guarded[1] / 1e3, "sent-without-kpps": plain[1] / 1e3}
	})
}

// BenchmarkStatusInFlood is how long `netguard status -o json` takes, as a command,
// while forged addresses arrive.
func BenchmarkStatusInFlood(b *testing.B) {
	e := Start(b)
	a := e.Agent()
	e.Network("net", Subnet("198.18.62.0/24"))
	attacker, victim := e.Run("attacker", On("net")), e.Run("victim", On("net"))
	a.AwaitStatus("both are admitted", AllAdmitted)
	frame := attack.Ether(attack.Broadcast, attack.Nobody, attack.EtherARP,
		attack.ARP(attack.Request, attack.Nobody, attacker.IP("net"), attack.MAC{}, victim.IP("net")))
	row(b, "status", func() map[string]float64 {
		flood := attacker.Inside().SpawnProbe("frame", "flood", attacker.Interface("net"), hex.EncodeToString(frame), "1m")
		defer flood.Stop()
		var took []float64
		for range 100 {
			begin := time.Now()
			a.Status()
			took = append(took, time.Since(begin).Seconds()*1000)
		}
		slices.Sort(took)
		return map[string]float64{"p50-ms": took[50], "p99-ms": took[99]}
	})
}
