package guard

import "testing"

// TestCountsStay changes settings, and starts anew.
func TestCountsStay(t *testing.T) {
	h := newHost(t, 2)
	a, v := h.boxes[0], h.boxes[1]
	w := h.wish()
	d := h.driver()
	h.apply(d, w)
	for range 3 {
		deliver(t, a, v, ether(v.mac, nobody, 0x800, ip4(a.ip4, v.ip4, udp, udpPacket(1, 2))))
	}
	for chain, least := range map[string]uint64{"refuse": 3, "of nobody": 0} {
		if n, err := d.filter.counter(chain); err != nil || n < least || least == 0 && n > 0 {
			t.Errorf("chain %s counted %d (%v), of %d frames", chain, n, err, least)
		}
	}
	for name, change := range map[string]func(*Wish){
		"storm": func(w *Wish) { w.Storm.Rate = 7 }, "admission": func(w *Wish) { w.Open = true },
		"mode": func(w *Wish) { w.Mode = Monitor },
	} {
		h.run(t, name, func(t *testing.T) {
			changed := w
			change(&changed)
			h.apply(d, changed)
			h.apply(d, w)
			d.Close()
			d = h.driver()
			h.apply(d, w)
			r, err := d.Read(Everything)
			h.check(err)
			if got := r.Violations[a.port].MAC; got != 3 {
				t.Errorf("%d violations are remembered of 3", got)
			}
		})
	}
	h.run(t, "a_new_limit_of_storms_binds_at_once", func(t *testing.T) {
		announce := func() {
			for range 50 {
				a.send(ether(broadcast, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, a.ip4)))
			}
		}
		announce()
		h.apply(d, w)
		if n := h.violations(d, a).Storm; n != 0 {
			t.Errorf("%d frames were too many", n)
		}
		w.Storm = Storm{Rate: 1, Burst: 2}
		h.apply(d, w)
		announce()
		h.await("most of 50 frames are too many", func() bool { return h.violations(d, a).Storm > 30 })
	})
}

func (h *host) violations(d *Driver, b *box) Violations {
	h.t.Helper()
	all, err := d.Violations()
	h.check(err)
	return all[b.port]
}
