package guard

import (
	"encoding/binary"
	"testing"

	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestLearned is about ports that nobody has seen yet: they learn, and would fill the
// host's memory with MACs.
func TestLearned(t *testing.T) {
	h := newHost(t, 2)
	a, c := h.boxes[0], h.boxes[1]
	stranger := h.addBox(bridgeName, "stranger", 9)
	other := h.addBridge("br-other", MAC{2, 0x42, 0, 0, 0, 2})
	wish := func() Wish {
		w := h.wish()
		w.Ports = w.Ports[:2]
		w.Bridges = []Bridge{{Index: h.bridge, Name: bridgeName}}
		return w
	}
	const flood = maxMACs + 2000
	next := uint32(0)
	learned := func(t *testing.T) (n int) {
		t.Helper()
		frame := ether(nobody, MAC{}, 0x88b5, make([]byte, 46))
		for range flood {
			next++
			copy(frame[6:], binary.BigEndian.AppendUint32([]byte{2, 7}, next))
			stranger.send(frame)
		}
		// A frame that is answered comes behind all these.
		if !deliver(t, a, c, ether(c.mac, a.mac, 0x800, ip4(a.ip4, c.ip4, 17, udpPacket(1, 2)))) {
			t.Error("a neighbour is not reached")
		}
		all, err := vish.NeighListExecute(vish.Ndmsg{Family: unix.AF_BRIDGE, Index: 0})
		h.check(err)
		for _, e := range all {
			if e.LinkIndex == stranger.port && e.State&vish.NUD_PERMANENT == 0 {
				n++
			}
		}
		return n
	}
	limits := func() map[int]uint32 {
		r, err := openRtnl()
		h.check(err)
		defer r.close()
		all, err := r.learned()
		h.check(err)
		return all
	}
	if _, able := limits()[h.bridge]; !able {
		t.Skip("the kernel limits no bridge (Linux 6.8)")
	}
	if n := learned(t); n < flood {
		t.Fatalf("the attack fails by itself: %d of %d", n, flood)
	}
	run(t, "bridge", "link", "set", "dev", stranger.name, "learning", "on")
	run(t, "ip", "link", "set", bridgeName, "type", "bridge", "fdb_flush")
	d := h.driver()
	h.apply(d, wish())
	h.run(t, "a_bridge_learns_so_many", func(t *testing.T) {
		if n := learned(t); n > maxMACs {
			t.Errorf("%d were learned", n)
		}
		if n := limits()[other]; n != 0 {
			t.Errorf("another bridge was limited to %d", n)
		}
	})
	h.run(t, "what_somebody_lifts_comes_back", func(t *testing.T) {
		h.check(d.links.learn(h.bridge, 0))
		h.apply(d, wish())
		if n := limits()[h.bridge]; n != maxMACs {
			t.Errorf("the limit is %d", n)
		}
	})
	h.run(t, "what_somebody_chose_stays", func(t *testing.T) {
		h.check(d.links.learn(h.bridge, 77))
		h.apply(d, wish())
		if n := limits()[h.bridge]; n != 77 {
			t.Errorf("the limit is %d", n)
		}
		h.check(d.links.learn(h.bridge, 0))
	})
	h.run(t, "monitor_mode_limits_nothing", func(t *testing.T) {
		h.apply(d, wish())
		w := wish()
		w.Mode = Monitor
		h.apply(d, w)
		if n := limits()[h.bridge]; n != 0 {
			t.Errorf("the limit is %d", n)
		}
	})
	h.run(t, "a_clean_up_takes_it_away", func(t *testing.T) {
		h.apply(d, wish())
		h.check(h.driver().Cleanup())
		if n := limits()[h.bridge]; n != 0 {
			t.Errorf("the limit is %d", n)
		}
	})
}
