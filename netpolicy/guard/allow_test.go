package guard

import (
	"net/netip"
	"strings"
	"testing"
)

func TestAllow(t *testing.T) {
	h := newHost(t, 3)
	a, v, c := h.boxes[0], h.boxes[1], h.boxes[2]
	vip := netip.MustParseAddr("172.30.0.100")
	routed := netip.MustParseAddr("10.9.8.7")
	routed6 := netip.MustParseAddr("fd00:99::7")
	nested := MAC{2, 0, 0, 0, 0, 0x77}
	allow, err := ParseAllow("172.30.0.100, 10.9.0.0/16, 172.30.0.0/24, 10.9.8.0/24, fd00:99::/64, ::/0, " + nested.String())
	if err != nil {
		t.Fatal(err)
	}
	frames := map[string][]byte{
		"ARP_for_a_VIP":              ether(broadcast, a.mac, 0x806, arpPacket(1, a.mac, vip, MAC{}, vip)),
		"IPv4_from_a_VIP":            ether(v.mac, a.mac, 0x800, ip4(vip, v.ip4, 17, udpPacket(1, 2))),
		"IPv4_from_a_prefix":         ether(v.mac, a.mac, 0x800, ip4(routed, v.ip4, 17, udpPacket(1, 2))),
		"ARP_for_a_prefix":           ether(v.mac, a.mac, 0x806, arpPacket(2, a.mac, routed, v.mac, v.ip4)),
		"IPv6_from_a_prefix":         ether(v.mac, a.mac, 0x86dd, ip6(routed6, v.ip6, 17, udpPacket(1, 2))),
		"advertisement_in_a_prefix":  nd(a, v, icmp6Packet(136, routed6.AsSlice(), ndOptionOf(2, a.mac))),
		"advertisement_without_MAC":  nd(a, v, icmp6Packet(136, routed6.AsSlice())),
		"detection_in_a_prefix":      ether(group6(solicited(routed6)), a.mac, 0x86dd, ip6(none6, solicited(routed6), 58, icmp6Packet(135, routed6.AsSlice()))),
		"frame_from_a_nested_MAC":    ether(v.mac, nested, 0x800, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2))),
		"error_about_a_VIP":          errorTo4(v, a, quote(3, flow4(v.ip4, vip))),
		"error_about_a_prefix":       errorTo4(v, a, quote(11, flow4(v.ip4, routed))),
		"error_about_an_IPv6_prefix": errorTo6(v, a, 58, quote(3, flow6(v.ip6, routed6))),
		"error_from_a_prefix":        ether(v.mac, a.mac, 0x800, ip4(routed, v.ip4, 1, quote(3, flow4(v.ip4, routed)))),
		"ARP_from_a_nested_MAC":      ether(v.mac, nested, 0x806, arpPacket(2, nested, vip, v.mac, v.ip4)),
	}
	d := h.driver()
	w := h.wish()
	h.apply(d, w)
	for name, f := range frames {
		h.run(t, "is_refused_by_default/"+name, func(t *testing.T) {
			if deliver(t, a, v, f) {
				t.Error("it arrived")
			}
		})
	}
	w.edit(0).Allow = allow
	h.apply(d, w)
	refused := violations(t, d, a)
	for name, f := range frames {
		h.run(t, "passes_when_allowed/"+name, func(t *testing.T) {
			if !deliver(t, a, v, f) {
				t.Error("it was dropped")
			}
		})
	}
	if got := violations(t, d, a); got != refused {
		t.Errorf("counted %+v, want %+v", got, refused)
	}
	for name, f := range map[string][]byte{
		"another_containers_address":      ether(v.mac, a.mac, 0x800, ip4(c.ip4, v.ip4, 17, udpPacket(1, 2))),
		"the_gateways_address":            ether(broadcast, a.mac, 0x806, arpPacket(1, a.mac, gateway4, MAC{}, gateway4)),
		"another_containers_IPv6_address": ether(v.mac, a.mac, 0x86dd, ip6(c.ip6, v.ip6, 17, udpPacket(1, 2))),
		"anothers_link_local_address":     nd(a, v, icmp6Packet(136, c.mac.LinkLocal().AsSlice())),
		"the_bridges_link_local_address":  nd(a, v, icmp6Packet(136, h.mac.LinkLocal().AsSlice())),
		"error_about_another_container":   errorTo4(v, a, quote(3, flow4(v.ip4, c.ip4))),
		"error_about_the_gateway":         errorTo4(v, a, quote(3, flow4(v.ip4, gateway4))),
		"error_of_IPv6_about_another":     errorTo6(v, a, 58, quote(2, flow6(v.ip6, c.ip6))),
		"detection_of_anothers_address":   ether(group6(solicited(c.ip6)), a.mac, 0x86dd, ip6(none6, solicited(c.ip6), 58, icmp6Packet(135, c.ip6.AsSlice()))),
	} {
		h.run(t, "never_gives_it/"+name, func(t *testing.T) {
			if deliver(t, a, v, f) {
				t.Error("a prefix took what is another's")
			}
		})
	}
	if !deliver(t, v, a, ether(nested, v.mac, 0x800, ip4(v.ip4, a.ip4, 17, udpPacket(1, 2)))) {
		t.Error("nothing reaches the nested MAC")
	}
	w.edit(0).Allow = Allow{}
	h.apply(d, w)
	for name, f := range frames {
		h.run(t, "is_refused_again/"+name, func(t *testing.T) {
			if deliver(t, a, v, f) {
				t.Error("it arrived")
			}
		})
	}
	if out := output(t, "bridge", "fdb", "show", "br", bridgeName); strings.Contains(out, nested.String()) {
		t.Errorf("the nested MAC is still in the FDB:\n%s", out)
	}
}
