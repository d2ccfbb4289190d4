package reconcile

import (
	"log/slog"
	"testing"
	"time"

	"netguard/agent/link"
	"netguard/netpolicy/guard"
)

// TestDueIsBounded: what the kernel reports while nothing looks takes no more and more memory.
func TestDueIsBounded(t *testing.T) {
	one := func(i int) link.Hint {
		return link.Hint{Links: map[int]struct{}{i: {}}, MACs: map[link.MAC]struct{}{{byte(i >> 16), byte(i >> 8), byte(i)}: {}},
			Neighbours: map[link.Neighbour]struct{}{{Link: i}: {}}}
	}
	t.Run("of_the_guard", func(t *testing.T) {
		g := newGuarding(slog.New(slog.DiscardHandler), nil, guard.Enforce, time.Now)
		noted := func() int { return len(g.look.Links) + len(g.look.MACs) + len(g.look.Neighbours) }
		for i := range 1000 {
			g.hear(one(i))
		}
		if g.look.Full || noted() != 3000 {
			t.Errorf("after 1000 reports all is to be looked at: %v; noted: %d", g.look.Full, noted())
		}
		g.look.Unheard = true
		for i := range 2 * maxDue {
			g.hear(one(i))
		}
		if !g.look.Full || !g.look.Unheard || noted() > 0 {
			t.Errorf("after too many, %d are noted; all is to be looked at: %v, unheard: %v", noted(), g.look.Full, g.look.Unheard)
		}
	})
	t.Run("of_limits_before_docker_answers", func(t *testing.T) {
		h := newShop(t)
		for i := range 2 * maxDue {
			h.s.hear(one(i))
		}
		if len(h.s.due) > maxDue {
			t.Errorf("%d links are noted", len(h.s.due))
		}
	})
	t.Run("of_limits", func(t *testing.T) {
		h := newShop(t)
		veth := h.come(20, 10)
		h.wait(time.Second)
		h.k.SetRoot(veth, "", 0)
		h.tell(veth)
		for i := range 2 * maxDue {
			h.tell(1000 + i)
		}
		if len(h.s.due) > maxDue {
			t.Errorf("%d links are noted", len(h.s.due))
		}
		h.wait(time.Second)
		if h.check(); h.s.all || len(h.s.due) > 0 {
			t.Errorf("due are still all: %v, and %d links", h.s.all, len(h.s.due))
		}
	})
}
