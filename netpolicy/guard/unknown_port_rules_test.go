package guard

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// between is what two containers of a network say to each other.
func between(a, v *box) map[string][]byte {
	datagram := udpPacket(1, 2)
	return map[string][]byte{
		"IPv4":                        ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 17, datagram)),
		"IPv4_to_all":                 ether(broadcast, a.mac, 0x800, ip4(a.ip4, netip.MustParseAddr("255.255.255.255"), 17, datagram)),
		"IPv4_with_a_forged_source":   ether(v.mac, nobody, 0x800, ip4(netip.MustParseAddr("192.0.2.1"), v.ip4, 17, datagram)),
		"ARP_request":                 ether(broadcast, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, v.ip4)),
		"ARP_reply":                   ether(v.mac, a.mac, 0x806, arpPacket(2, a.mac, a.ip4, v.mac, v.ip4)),
		"ARP_for_it_from_elsewhere":   ether(broadcast, nobody, 0x806, arpPacket(1, nobody, netip.MustParseAddr("192.0.2.1"), MAC{}, v.ip4)),
		"IPv6":                        ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 17, datagram)),
		"IPv6_to_all":                 ether(group6(allNodes), a.mac, 0x86dd, ip6(a.ip6, allNodes, 17, datagram)),
		"IPv6_from_its_MAC's_address": ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), v.mac.LinkLocal(), 17, datagram)),
		"IPv4_in_a_VLAN_tag":          ether(v.mac, nobody, 0x8100, []byte{0, 0, 8, 0}, ip4(a.ip4, v.ip4, 17, datagram)),
		"something_of_its_own":        ether(v.mac, a.mac, 0x88b5, make([]byte, 46)),
	}
}

// arrived sends a frame to a container and says whether it came. Nothing follows it:
// the sender is one of whom nothing may arrive. All that happens to a frame has
// happened when the sending is done: the test is on one CPU.
func arrivedAt(v *box, from *box, frame []byte) bool {
	frame, mark := marked(frame)
	drain(v)
	from.send(frame)
	for f := receive(v.socket); f != nil; f = receive(v.socket) {
		if bytes.Contains(f, mark) {
			return true
		}
	}
	return false
}

// TestUnknownPorts is about ports that came while nobody looked.
func TestUnknownPorts(t *testing.T) {
	h := newHost(t, 1)
	d := h.driver()
	w := h.wish()
	w.Bridges = []Bridge{{Index: h.bridge, Name: bridgeName,
		Subnets: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24"), netip.MustParsePrefix("fd00:30::/64")}}}
	one, two := h.addBox(bridgeName, "one", 51), h.addBox(bridgeName, "two", 52)
	// A bridge of somebody else's, in the same range: nothing but what the wish
	// says tells it from Docker's.
	h.addBridge("br-other", MAC{2, 0, 0, 0, 0, 9})
	three, four := h.addBox("br-other", "three", 53), h.addBox("br-other", "four", 54)
	// And one in another range, as others' are.
	h.addBridge("br-else", MAC{2, 0, 0, 0, 0, 10})
	five, six := h.addBox("br-else", "five", 55), h.addBox("br-else", "six", 56)
	for i, b := range []*box{five, six} {
		b.mac, b.ip4, b.ip6 = MAC{2, 0, 0, 0, 1, byte(i)}, netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}),
			netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x77, 15: byte(i + 1)})
	}

	each := func(name string, a, v *box, want bool) {
		for what, frame := range between(a, v) {
			h.run(t, name+"/"+what, func(t *testing.T) {
				if got := arrivedAt(v, a, frame); got != want {
					t.Errorf("it arrived: %v", got)
				}
			})
		}
	}
	hears := func(frame []byte) bool {
		t.Helper()
		mark := fmt.Appendf(nil, "<frame %d>", number.Add(1))
		s := packetSocket(t, bridgeName, unix.ETH_P_ALL)
		defer drain(&box{socket: s})
		one.send(append(slices.Clip(frame), mark...))
		for f := receive(s); f != nil; f = receive(s) {
			if bytes.Contains(f, mark) {
				return true
			}
		}
		return false
	}
	toHost := map[string][]byte{
		"IPv4":            ether(h.mac, one.mac, 0x800, ip4(one.ip4, gateway4, 17, udpPacket(1, 2))),
		"IPv4_in_a_group": ether(broadcast, one.mac, 0x800, ip4(one.ip4, gateway4, 17, udpPacket(1, 2))),
		"ARP":             ether(broadcast, one.mac, 0x806, arpPacket(1, one.mac, one.ip4, MAC{}, gateway4)),
		"IPv6":            ether(h.mac, one.mac, 0x86dd, ip6(one.ip6, gateway6, 17, udpPacket(1, 2))),
	}
	fromHost := map[string][]byte{
		"to_it":  ether(one.mac, h.mac, 0x800, ip4(gateway4, one.ip4, 17, udpPacket(1, 2))),
		"to_all": ether(broadcast, h.mac, 0x806, arpPacket(1, h.mac, gateway4, MAC{}, one.ip4)),
	}
	host := func(name string, want bool) {
		for what, frame := range toHost {
			h.run(t, name+"/to_the_host/"+what, func(t *testing.T) {
				if got := hears(frame); got != want {
					t.Errorf("it arrived: %v", got)
				}
			})
		}
		for what, frame := range fromHost {
			h.run(t, name+"/from_the_host/"+what, func(t *testing.T) {
				host := &box{host: h, socket: packetSocket(t, bridgeName, 0)}
				if got := arrivedAt(one, host, frame); got != want {
					t.Errorf("it arrived: %v", got)
				}
			})
		}
	}

	open := w
	open.Open = true
	h.apply(d, open)
	each("open", one, two, true)
	host("open", true)
	monitor := w
	monitor.Mode = Monitor
	h.apply(d, monitor)
	each("monitor", one, two, true)
	host("monitor", true)
	h.apply(d, w)
	each("closed", one, two, false)
	host("closed", false)
	each("a_bridge_elsewhere_is_never_touched", five, six, true)

	w.Others = []int{three.port, four.port}
	h.apply(d, w)
	each("others_are_left_alone_in_the_same_range_too", three, four, true)
	each("still_closed", one, two, false)

	h.run(t, "admitted_they_talk", func(t *testing.T) {
		w.Ports = h.wish().Ports[:3]
		h.apply(d, w)
		if !deliver(t, one, two, between(one, two)["IPv4"]) {
			t.Error("it did not arrive")
		}
	})
	h.run(t, "clean-up_leaves_nothing", func(t *testing.T) {
		h.check(d.Cleanup())
		if left := output(t, "nft", "list", "ruleset"); strings.Contains(left, TableName) {
			t.Error(left)
		}
	})
}

// TestPlanUnknownPorts tells by bridges and ports of others what is in the sets.
func TestPlanUnknownPorts(t *testing.T) {
	prefix := netip.MustParsePrefix
	w := Wish{Others: []int{7}, Bridges: []Bridge{{Index: 1, Name: "br-a", Subnets: []netip.Prefix{prefix("10.1.0.0/16"), prefix("fd00::/64")}},
		{Index: 2, Name: "br-b", Subnets: []netip.Prefix{prefix("10.1.2.0/24"), prefix("0.0.0.0/0"), {}}}}}
	show := func(f Features) map[string][]string {
		out := map[string][]string{}
		p := newPlan(w, f, map[int]MAC{1: {2, 0, 0, 0, 0, 1}, 2: {2, 0, 0, 0, 0, 2}})
		for _, s := range managedSets(f) {
			out[s.name] = []string{}
			for e := range p.sets[s.name] {
				out[s.name] = append(out[s.name], fmt.Sprintf("%x-%x", e.key, e.end))
			}
			slices.Sort(out[s.name])
		}
		return out
	}
	macs := []string{"020000000001-", "020000000002-"}
	subnets4 := []string{"080000000a010000-080000000a01ffff", "080600000a010000-080600000a01ffff"}
	subnets6 := []string{"86dd0000fd000000000000000000000000000000-86dd0000fd00000000000000ffffffffffffffff"}
	for name, c := range map[string]struct {
		features Features
		want     map[string][]string
	}{
		"by_addresses": {Features{Prefixes: true}, map[string][]string{setBridges: macs,
			setUnknown: {}, setOthers: {fmt.Sprintf("%x-", portKey(7))},
			setSubnets4: subnets4, setSubnets6: subnets6}},
		"by_name": {Features{Prefixes: true, BridgeNames: true}, map[string][]string{setBridges: macs,
			setNames:    {"62722d61000000000000000000000000-", "62722d62000000000000000000000000-"},
			setSubnets4: subnets4, setSubnets6: subnets6}},
		"by_MAC_alone": {Features{}, map[string][]string{setBridges: macs}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, show(c.features)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			l, err := newLayout(Options{}, c.features)
			if err != nil {
				t.Fatal(err)
			}
			by := map[bool]bool{}
			for _, r := range l.rules {
				by[r.chain == "which-bridge"] = true
			}
			if by[true] != (name == "by_addresses") {
				t.Errorf("rules about addresses: %v", by[true])
			}
		})
	}
}
