package guard

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestQuarantine is about ports that are not admitted, and those nobody named.
func TestQuarantine(t *testing.T) {
	h := newHost(t, 3)
	a, v, c := h.boxes[0], h.boxes[1], h.boxes[2]
	d := h.driver()
	w := h.wish()
	to := func(from, to *box) []byte {
		return ether(to.mac, from.mac, 0x800, ip4(from.ip4, to.ip4, 17, udpPacket(1, 2)))
	}
	toAll := func(from *box) []byte {
		return ether(broadcast, from.mac, 0x806, arpPacket(1, from.mac, from.ip4, MAC{}, from.ip4))
	}
	// reached sends frames from b to x and to all, without a sentinel: it may
	// not get through either. Those to c follow, and c is admitted.
	reached := func(t *testing.T, b, x *box) bool {
		t.Helper()
		drain(x)
		mark := "<to " + x.name + ">"
		b.send(append(to(b, x), mark...))
		b.send(append(toAll(b), mark...))
		b.send(append(ether(group6(allNodes), b.mac, 0x86dd, ip6(b.ip6, allNodes, 17, udpPacket(1, 2))), mark...))
		c.send(toAll(c))
		for f := receive(x.socket); f != nil; f = receive(x.socket) {
			if strings.Contains(string(f), mark) {
				return true
			}
		}
		return false
	}
	h.run(t, "an_admitted_port_reaches_and_is_reached", func(t *testing.T) {
		h.apply(d, w)
		if !reached(t, a, v) || !reached(t, v, a) {
			t.Fatal("it does not: the rest proves nothing")
		}
	})
	h.run(t, "one_that_is_not_admitted_neither_sends_nor_receives", func(t *testing.T) {
		w.edit(0).Admitted = false
		r := h.apply(d, w)
		if got := r.Ports[a.port].State; got != Quarantined {
			t.Fatalf("it is %s", got)
		}
		before := violations(t, d, a)
		if reached(t, a, v) {
			t.Error("it sent")
		}
		after := violations(t, d, a)
		if before.Quarantine += 3; after != before {
			t.Errorf("counted %+v, want %+v", after, before)
		}
		if reached(t, v, a) {
			t.Error("it received from a container")
		}
		// From the host: what was known of it is gone.
		drain(a)
		run(t, "ip", "neigh", "replace", a.ip4.String(), "lladdr", a.mac.String(), "dev", bridgeName, "nud", "reachable")
		hostSocket := packetSocket(t, bridgeName, 0)
		for _, f := range [][]byte{
			ether(a.mac, h.mac, 0x800, ip4(gateway4, a.ip4, 17, udpPacket(1, 2))),
			ether(broadcast, h.mac, 0x806, arpPacket(1, h.mac, gateway4, MAC{}, a.ip4)),
		} {
			write(t, hostSocket, f)
		}
		if f := receive(a.socket); f != nil {
			t.Errorf("it received from the host: %x", f)
		}
	})
	h.run(t, "the_bridge_port_alone_keeps_it", func(t *testing.T) {
		run(t, "nft", "delete", "table", "bridge", "netguard")
		if reached(t, a, v) || reached(t, v, a) {
			t.Error("without the filter it is not quarantined")
		}
	})
	h.run(t, "the_filter_alone_keeps_it_from_sending", func(t *testing.T) {
		h.apply(d, w)
		run(t, "bridge", "link", "set", "dev", a.name, "locked", "off", "learning", "on", "flood", "on")
		if reached(t, a, v) {
			t.Error("without the bridge port's settings it sent")
		}
	})
	h.run(t, "admitted_again_it_is_as_before", func(t *testing.T) {
		w.edit(0).Admitted = true
		h.apply(d, w)
		if !reached(t, a, v) || !reached(t, v, a) {
			t.Error("it is still quarantined")
		}
	})

	s := h.addBox(bridgeName, "stranger", 50)
	strangers := func() uint64 {
		n, err := d.filter.counter(UnknownPortChain)
		h.check(err)
		return n
	}
	h.run(t, "a_port_that_the_wish_does_not_name_reaches_nobody", func(t *testing.T) {
		h.apply(d, w)
		before := strangers()
		if reached(t, s, v) {
			t.Error("it sent to a known port")
		}
		if reached(t, v, s) {
			t.Error("a known port sent to it")
		}
		// 3 from it, to each of three ports but for one that went to one;
		// and what the others flooded to it.
		if after := strangers(); after < before+6 {
			t.Errorf("%d frames were counted", after-before)
		}
		s.inside(func() {
			if err := pingOnce(gateway4); err == nil {
				t.Error("it reached the host")
			}
		})
	})
	h.run(t, "but_when_admission_is_open", func(t *testing.T) {
		w.Open = true
		h.apply(d, w)
		if !reached(t, s, v) || !reached(t, v, s) {
			t.Error("it was refused")
		}
		s.inside(func() {
			if err := ping(gateway4, 8); err != nil {
				t.Error(err)
			}
		})
		w.Open = false
		h.apply(d, w)
	})
	h.run(t, "in_monitor_mode_it_passes_and_is_counted", func(t *testing.T) {
		watch := w
		watch.Mode = Monitor
		h.apply(d, watch)
		counts := func() (uint64, Violations) {
			r, err := d.Read(Everything)
			h.check(err)
			n, err := d.filter.counter(watchChain)
			h.check(err)
			return n, r.Violations[s.port]
		}
		all, _ := counts()
		if !reached(t, s, v) || !reached(t, v, s) {
			t.Error("it was refused")
		}
		if now, _ := counts(); now < all+6 {
			t.Errorf("%d frames were counted", now-all)
		}
		// The agent knows of the port, and has not admitted it.
		watch.Ports = append(slices.Clone(w.Ports), &Port{Index: s.port, Name: s.name, Bridge: h.bridge, Guarded: true})
		h.apply(d, watch)
		all, before := counts()
		if !reached(t, s, v) || !reached(t, v, s) {
			t.Error("it was refused when it is known")
		}
		now, after := counts()
		// What it sends counts once, where it comes in.
		if after.Quarantine < before.Quarantine+3 || after.Withheld < before.Withheld+3 || now > all+after.Withheld-before.Withheld {
			t.Errorf("counted %+v and before %+v; %d strangers and before %d", after, before, now, all)
		}
		h.apply(d, w)
	})
	h.run(t, "and_when_it_is_trusted_without_being_guarded", func(t *testing.T) {
		before := output(t, "bridge", "-d", "link", "show", "dev", s.name)
		w.Ports = append(w.Ports, &Port{Index: s.port, Name: s.name, Bridge: h.bridge})
		r := h.apply(d, w)
		if r.Ports[s.port].State != Trusted {
			t.Errorf("it is %s", r.Ports[s.port].State)
		}
		if !reached(t, s, v) || !reached(t, v, s) {
			t.Error("it was refused")
		}
		if !deliver(t, s, v, ether(v.mac, nobody, 0x88cc, make([]byte, 46))) {
			t.Error("it was guarded")
		}
		if after := output(t, "bridge", "-d", "link", "show", "dev", s.name); after != before {
			t.Errorf("it was changed: %s%s", before, after)
		}
		s.inside(func() {
			if err := ping(gateway4, 8); err != nil {
				t.Error(err)
			}
		})
	})
}

// drain takes what arrived at a container so far.
func drain(b *box) {
	for receive(b.socket) != nil {
	}
}

// pingOnce gives up soon: it is for what must fail.
func pingOnce(to netip.Addr) error { return pingFor(to, 8, 300*time.Millisecond) }
