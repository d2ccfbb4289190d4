package guard

import (
	"net/netip"
	"strings"
	"testing"
)

// The engine does not say which gateway a network has that was made without
// naming one. The bridge has it all the same.
func TestGatewayThatNobodyNames(t *testing.T) {
	h := newHost(t, 2)
	a, v := h.boxes[0], h.boxes[1]
	second := netip.MustParseAddr("172.30.0.254")
	wish := func(allow ...string) Wish {
		w := h.wish()
		for i := range w.Ports {
			w.edit(i).Gateways = nil
		}
		for _, p := range allow {
			w.edit(0).Allow.Prefixes = append(w.Ports[0].Allow.Prefixes, netip.MustParsePrefix(p))
		}
		return w
	}
	garp := func(about netip.Addr) []byte {
		return ether(broadcast, a.mac, 0x806, arpPacket(2, a.mac, about, broadcast, about))
	}
	na := nd(a, v, icmp6Packet(136, gateway6.AsSlice(), ndOptionOf(2, a.mac)))
	d := h.driver()

	h.run(t, "no_label_takes_its_address", func(t *testing.T) {
		r := h.apply(d, wish("172.30.0.1/32", "fd00:30::1/128"))
		if faults := strings.Join(r.Ports[a.port].Faults, "\n"); !strings.Contains(faults, "172.30.0.1 is the address of the bridge") ||
			!strings.Contains(faults, "fd00:30::1 is the address of the bridge") {
			t.Errorf("faults %q", faults)
		}
		if deliver(t, a, v, garp(gateway4)) || deliver(t, a, v, na) {
			t.Error("the gateway's address was taken over")
		}
	})
	h.run(t, "no_prefix_of_a_label_includes_it", func(t *testing.T) {
		h.apply(d, wish("172.30.0.0/24", "fd00:30::/64"))
		if !deliver(t, a, v, garp(netip.MustParseAddr("172.30.0.77"))) {
			t.Error("the prefix is not allowed")
		}
		if deliver(t, a, v, garp(gateway4)) || deliver(t, a, v, na) {
			t.Error("the gateway's address was taken over")
		}
	})
	h.run(t, "an_address_that_the_bridge_gets_later_counts_from_the_next_look", func(t *testing.T) {
		run(t, "ip", "addr", "add", prefixed(second), "dev", bridgeName)
		h.apply(d, wish("172.30.0.0/24"))
		if deliver(t, a, v, garp(second)) {
			t.Error("the bridge's second address was taken over")
		}
	})
	h.run(t, "also_where_a_reader_saw_the_bridge_first", func(t *testing.T) {
		third := netip.MustParseAddr("172.30.0.253")
		w, look := wish("172.30.0.0/24"), Look{Links: map[int]struct{}{h.bridge: {}}}
		h.apply(d, w)
		run(t, "ip", "addr", "add", prefixed(third), "dev", bridgeName)
		_, err := d.Read(look)
		h.check(err)
		_, err = d.Apply(w, look)
		h.check(err)
		if deliver(t, a, v, garp(third)) {
			t.Error("the bridge's third address was taken over")
		}
	})
}
