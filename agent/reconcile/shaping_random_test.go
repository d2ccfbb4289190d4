package reconcile

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"netguard/agent/link"
	"netguard/shaper"
)

// TestShapingAnyWay: whatever happens, and in whatever order, the kernel is as desired
// when it is over, and then nothing is written any more.
func TestShapingAnyWay(t *testing.T) {
	rates := []shaper.Rate{0, 1, 20, 1000}
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 5))
		h := newShop(t)
		any := func() shaper.Rate { return rates[r.IntN(len(rates))] }
		for range 60 {
			i := 0
			if len(h.ports) > 0 {
				i = r.IntN(len(h.ports))
			}
			switch what := r.IntN(10); {
			case what < 3 || len(h.ports) == 0:
				h.come(any(), any())
			case what == 3:
				h.leave(i)
			case what == 4: // other labels or another configuration
				h.endpoints = slices.Clone(h.endpoints)
				h.endpoints[i] = h.wish(h.ports[i], any(), any())
			case what == 5:
				h.k.SetRoot(h.ports[i].Index, "", 0)
				h.tell(h.ports[i].Index)
			case what == 6:
				have, _ := h.k.Read([]int{h.ports[i].Index})
				if ifb := have[h.ports[i].Index].IFBIndex; ifb != 0 {
					h.k.Remove(ifb)
					h.tell(ifb, h.ports[i].Index)
				}
			case what == 7:
				n := r.IntN(20)
				h.k.Fail = func(int, shaper.Step) error {
					if n--; n < 0 {
						return errors.New("injected")
					}
					return nil
				}
			case what == 8:
				h.start()
				h.s.apply(h.endpoints, h.ports, h.seen)
			default:
				h.s.hear(link.Hint{Full: true})
			}
			h.wait(time.Duration(r.IntN(400)) * time.Millisecond)
		}
		h.k.Fail = nil
		h.wait(2 * maxFailing)
		h.check()
		w := h.k.Writes
		h.s.hear(link.Hint{Full: true})
		h.wait(time.Minute)
		if h.k.Writes != w {
			t.Errorf("%d steps when nothing happened", h.k.Writes-w)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
