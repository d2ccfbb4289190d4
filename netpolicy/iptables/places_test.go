package iptables

import (
	"net/netip"
	"testing"

	"netguard/netpolicy"
)

// TestPlaces: what is a container's on its bridge alone is nobody's elsewhere, and the
// kernel's sets say so.
func TestPlaces(t *testing.T) {
	forLabs(t, "away_addresses_count_on_their_bridge", func(t *testing.T, l *lab) {
		for _, name := range []string{"all", "br0", "br1"} {
			sysctl(t, "net/ipv4/conf/"+name+"/rp_filter", "0")
		}
		away := addr("192.0.2.9")
		container := func(name, bridge string, n *node, away ...netip.Prefix) *netpolicy.Endpoint {
			return &netpolicy.Endpoint{Workload: netpolicy.Workload{ID: "id-" + name, Name: name}, Network: bridge, Bridge: bridge, Managed: true, Addrs: n.addrs[:], Away: away}
		}
		loaded := netpolicy.Load([]netpolicy.Source{{Name: "a.yaml", Data: []byte("{name: a, select: {container: a}, egress: [{to: [{container: b}], ports: [udp/81]}]}")}})
		if faults := loaded.Faults(); len(faults) > 0 {
			t.Fatal(faults)
		}
		wish := func(away ...netip.Prefix) Wish {
			all := []*netpolicy.Endpoint{container("a", "br0", l.a, away...), container("b", "br0", l.b), container("c", "br1", l.c)}
			w := Wish{Rules: netpolicy.Compile(netpolicy.World{Endpoints: all, Policies: loaded.Policies(), Places: true}), Homes: labHomes, Away: away}
			for _, e := range all {
				w.Containers = append(w.Containers, e.Addrs...)
			}
			for _, p := range away {
				w.Containers = append(w.Containers, p.Addr())
			}
			return w
		}
		d := open(t)
		apply(t, d, wish())
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		forged := udpPacket(away, l.b.addrs[0], 80)
		passes(t, l.a, l.b, "ip4:udp", forged)
		for _, p := range []netip.Prefix{netip.PrefixFrom(away, 32), netip.MustParsePrefix("192.0.2.0/24")} {
			w := wish(p)
			if p.Bits() < 32 {
				w.Containers = append(w.Containers, away) // to be counted
			}
			if r := apply(t, d, w); r.Forks != 0 || r.Rules {
				t.Errorf("report = %+v", r)
			}
			inSync(t, d)
			if r := apply(t, open(t), w); r.Changed() {
				t.Errorf("another one did %+v", r)
			}
			if found, err := d.Glance(); err != nil || found {
				t.Errorf("at a glance %v, %v", found, err)
			}
			refused(t, d, l.a, l.b, "ip4:udp", away, forged)
			passes(t, l.a, l.b, "ip4:udp", udpPacket(away, l.b.addrs[0], 81))
			passes(t, l.c, l.b, "ip4:udp", forged) // from another bridge it is anybody's
			refused(t, d, l.a, l.b, "ip4:udp", l.a.addrs[0], udpPacket(l.a.addrs[0], l.b.addrs[0], 80))
		}
	})
}
