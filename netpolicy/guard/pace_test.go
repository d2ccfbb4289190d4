package guard

import (
	"bytes"
	"testing"
)

// TestPace floods a neighbour with frames that are as they should be. What arrives is
// what honest programs need, the rest is counted, and nobody else loses anything.
func TestPace(t *testing.T) {
	h := newHost(t, 3)
	a, v, c := h.boxes[0], h.boxes[1], h.boxes[2]
	d := h.driver()
	w := h.wish()
	w.Storm = Storm{} // groups and broadcast are limited nevertheless
	h.apply(d, w)
	for _, flood := range []struct {
		name  string
		frame func(from, to *box) []byte
		kind  func(*Violations) *uint64
		pace  Storm
		toAll bool // a frame to a neighbour does not count for others
	}{
		{"ARP_requests", func(a, v *box) []byte {
			return ether(v.mac, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, v.ip4))
		}, ofARP, perNeighbour, false},
		{"neighbour_solicitations", func(a, v *box) []byte { return nd(a, v, icmp6Packet(135, v.ip6.AsSlice(), ndOptionOf(1, a.mac))) }, ofND, perNeighbour, false},
		{"IGMP_reports", func(a, v *box) []byte { return igmpTo(igmpv3, a, report4(9)) }, ofIP, perReports, true},
		{"multicast_reports", func(a, v *box) []byte {
			return ether(group6(mldv2), a.mac, 0x86dd, ip6(a.mac.LinkLocal(), mldv2, 0, routerAlert(58), report6(9)))
		}, ofND, perReports, true},
		{"multicast_reports_from_no_address", func(a, v *box) []byte {
			return ether(group6(mldv2), a.mac, 0x86dd, ip6(none6, mldv2, 0, routerAlert(58), report6(9)))
		}, ofND, perReports, true},
		{"DHCP_clients", func(a, v *box) []byte { return discover(a, 100) }, ofDHCP, perClient, true},
	} {
		h.run(t, flood.name, func(t *testing.T) {
			// What one flood has used up is not there for the next one.
			run(t, "nft", "flush", "set", "bridge", TableName, setAsks)
			run(t, "nft", "flush", "set", "bridge", TableName, setReports)
			frames := int(flood.pace.Burst) + 1000
			before := violations(t, d, a)
			frame := flood.frame(a, v)
			for receive(v.socket) != nil {
			}
			arrived := 0
			for range frames {
				a.send(frame)
				for f := receive(v.socket); f != nil; f = receive(v.socket) {
					if bytes.Equal(f, frame) {
						arrived++
					}
				}
			}
			if !deliver(t, a, v, ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2)))) {
				t.Error("other frames of the container do not arrive")
			}
			after := violations(t, d, a)
			refused := *flood.kind(&after) - *flood.kind(&before)
			// The kernel of the container may send a report or two of its own.
			sum := arrived + int(refused)
			if arrived < int(flood.pace.Burst)-3 || arrived > int(flood.pace.Burst)+900 || sum < frames || sum > frames+3 {
				t.Errorf("of %d frames %d arrived and %d were counted; the burst is %d", frames, arrived, refused, flood.pace.Burst)
			}
			if !flood.toAll && !deliver(t, a, c, flood.frame(a, c)) {
				t.Error("a frame to another neighbour does not arrive")
			}
			if !deliver(t, c, v, flood.frame(c, v)) {
				t.Error("a frame of another container does not arrive")
			}
		})
	}
	h.run(t, "answers_that_others_ask_for_are_no_violation", func(t *testing.T) {
		answers := map[string][]byte{"ARP": ether(v.mac, a.mac, 0x806, arpPacket(2, a.mac, a.ip4, v.mac, v.ip4)),
			"ND": nd(a, v, icmp6Packet(136, a.ip6.AsSlice(), ndOptionOf(2, a.mac)))}
		for name, frame := range answers {
			run(t, "nft", "flush", "set", "bridge", TableName, setAnswers)
			before := violations(t, d, a)
			arrived, frames := 0, 3000
			for range frames {
				a.send(frame)
				for f := receive(v.socket); f != nil; f = receive(v.socket) {
					if bytes.Equal(f, frame) {
						arrived++
					}
				}
			}
			if arrived < int(perNeighbour.Burst)-3 || arrived > int(perNeighbour.Burst)+1500 {
				t.Errorf("%s: of %d answers %d arrived", name, frames, arrived)
			}
			if !deliver(t, a, v, ether(v.mac, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, v.ip4))) {
				t.Errorf("%s: after that it cannot ask", name)
			}
			if got := violations(t, d, a); got != before {
				t.Errorf("%s: counted %+v, before %+v", name, got, before)
			}
		}
	})
	h.run(t, "forged_answers_are_counted_all", func(t *testing.T) {
		before := violations(t, d, a)
		for range 3000 {
			a.send(ether(v.mac, a.mac, 0x806, arpPacket(2, a.mac, c.ip4, v.mac, v.ip4)))
		}
		if got := violations(t, d, a).ARP - before.ARP; got != 3000 {
			t.Errorf("of 3000 forged answers %d were counted", got)
		}
	})
	h.run(t, "to_MACs_of_nobody_there_is_a_limit_to_all", func(t *testing.T) {
		frames := 20 * int(perNeighbour.Burst)
		before := violations(t, d, a)
		for i := range frames {
			a.send(ether(MAC{2, 0xf0, 0, 0, byte(i >> 8), byte(i)}, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, v.ip4)))
		}
		if got := violations(t, d, a).ARP - before.ARP; got < uint64(frames)/4 {
			t.Errorf("of %d frames to as many MACs %d were refused", frames, got)
		}
	})
}
