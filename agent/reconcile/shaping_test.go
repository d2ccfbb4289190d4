package reconcile

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"netguard/agent/desired"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/shaper"
	"netguard/shaper/tc/tctest"
)

// shop is a host in virtual time whose kernel is not there.
type shop struct {
	t         *testing.T
	k         *tctest.Kernel
	s         *shaping
	now       time.Time
	endpoints []*desired.Endpoint
	ports     []*link.Port
	seen      uint64
}

func newShop(t *testing.T) *shop {
	h := &shop{t: t, k: tctest.New(), now: time.Unix(1e9, 0)}
	h.start()
	return h
}

// start starts the agent anew: what it knew is lost.
func (h *shop) start() {
	h.s = newShaping(slog.New(slog.DiscardHandler), h.k, h.k.Gone, func() time.Time { return h.now })
}

// come adds a container with limits of some mbit, and gives its veth.
func (h *shop) come(ingress, egress shaper.Rate) int {
	h.seen++
	p := &link.Port{Index: h.k.Add("veth"), Name: "veth", Seen: h.seen, MTU: 1500}
	h.ports = append(h.ports, p)
	h.endpoints = append(h.endpoints, h.wish(p, ingress, egress))
	return p.Index
}

func (h *shop) wish(p *link.Port, ingress, egress shaper.Rate) *desired.Endpoint {
	d := &desired.Endpoint{Endpoint: endpoint.Endpoint{Key: endpoint.Key{Container: "web", Network: "n"}, Port: p}}
	for dir, rate := range [2]shaper.Rate{shaper.Ingress: ingress, shaper.Egress: egress} {
		if rate == 0 {
			continue
		}
		lim := shaper.Limit{Rate: rate * shaper.Mbit}
		tree, err := shaper.Build(lim, shaper.Direction(dir), 1500, shaper.Hashed)
		if err != nil {
			h.t.Fatal(err)
		}
		d.Limits.Limit[dir] = lim
		if shaper.Direction(dir) == shaper.Ingress {
			d.Wish.Ingress = &tree
		} else {
			d.Wish.Egress = &tree
		}
	}
	return d
}

// leave removes the i-th container.
func (h *shop) leave(i int) {
	h.tell(h.ports[i].Index)
	h.k.Remove(h.ports[i].Index)
	h.ports, h.endpoints = slices.Delete(slices.Clone(h.ports), i, i+1), slices.Delete(slices.Clone(h.endpoints), i, i+1)
}

func (h *shop) tell(links ...int) {
	hint := link.Hint{Links: map[int]struct{}{}}
	for _, l := range links {
		hint.Links[l] = struct{}{}
	}
	h.s.hear(hint)
}

func (h *shop) pass() { h.s.apply(h.endpoints, h.ports, 0) }

// wait lets time pass, with a pass whenever there is something to do.
func (h *shop) wait(d time.Duration) {
	for end := h.now.Add(d); ; {
		h.pass()
		next := h.s.next()
		if next.Before(h.now) {
			next = h.now.Add(time.Millisecond)
		}
		if next.After(end) {
			h.now = end
			return
		}
		h.now = next
	}
}

// check fails the test unless the kernel holds what is desired, and nothing else.
func (h *shop) check() {
	h.t.Helper()
	led := 0
	for _, d := range h.endpoints {
		have, err := h.k.Read([]int{d.Port.Index})
		if err != nil {
			h.t.Fatal(err)
		}
		p := have[d.Port.Index]
		if steps := shaper.Diff(p.Endpoint, d.Wish); len(steps) > 0 {
			h.t.Errorf("port %d: left to do: %v", d.Port.Index, steps)
		}
		if !h.s.inForce(d) {
			h.t.Errorf("port %d is not in force: %v", d.Port.Index, h.s.fault(d.Port.Seen))
		}
		if d.Wish.Egress != nil {
			led++
		}
	}
	if n := h.k.IFBs(); n != led {
		h.t.Errorf("there are %d IFBs, want %d", n, led)
	}
}

func TestShaping(t *testing.T) {
	const soon = 200 * time.Millisecond
	t.Run("what_nobody_wants_any_more_when_all_is_looked_at_anew_goes", func(t *testing.T) {
		h := newShop(t)
		h.come(5, 5)
		h.wait(time.Second)
		h.check()
		h.s.anew()
		h.endpoints = nil // its port is still there
		h.wait(time.Second)
		h.check()
		if have, err := h.k.Read([]int{h.ports[0].Index}); err != nil || len(shaper.Diff(have[h.ports[0].Index].Endpoint, shaper.Wish{})) > 0 {
			t.Errorf("its limits stay (%v)", err)
		}
	})
	t.Run("a_newcomer_costs_the_same_beside_any_number", func(t *testing.T) {
		cost := map[int][2]int{}
		for _, n := range []int{10, 1000} {
			h := newShop(t)
			for range n {
				h.come(20, 10)
			}
			h.wait(soon)
			h.come(20, 10)
			r, w := h.k.Reads, h.k.Writes
			h.wait(soon)
			cost[n] = [2]int{h.k.Reads - r, h.k.Writes - w}
			h.check()
		}
		if cost[10] != cost[1000] || cost[10][0] != 1 {
			t.Errorf("ports read and steps: %v", cost)
		}
	})
	t.Run("a_restart_reads_each_port_once_and_writes_nothing", func(t *testing.T) {
		h := newShop(t)
		for range 300 {
			h.come(20, 10)
		}
		h.wait(soon)
		r, w := h.k.Reads, h.k.Writes
		h.start()
		h.s.apply(h.endpoints, h.ports, h.seen) // all ports are older than the agent
		h.s.apply(h.endpoints, h.ports, h.seen)
		if h.k.Reads-r != 300 || h.k.Writes != w {
			t.Errorf("%d ports read and %d steps", h.k.Reads-r, h.k.Writes-w)
		}
		h.check()
	})
	t.Run("in_peace_a_few_ports_are_read_on_any_host", func(t *testing.T) {
		h := newShop(t)
		for range 1000 {
			h.come(20, 10)
		}
		h.wait(soon)
		r, w := h.k.Reads, h.k.Writes
		h.wait(100 * time.Second)
		if n := h.k.Reads - r; n > 11*roundPorts || n < 9*roundPorts || h.k.Writes != w {
			t.Errorf("%d ports read and %d steps in 100 s", n, h.k.Writes-w)
		}
	})
	t.Run("what_the_kernel_tells_of_is_repaired_at_once", func(t *testing.T) {
		h := newShop(t)
		veth := h.come(20, 10)
		h.wait(soon)
		for name, damage := range map[string]func(p int){
			"root":    func(int) { h.k.SetRoot(veth, "", 0); h.tell(veth) },
			"ingress": func(int) { h.k.SetIngress(veth, false); h.tell(veth) },
			"IFB":     func(ifb int) { h.k.Remove(ifb); h.tell(ifb) },
			"IFB's":   func(ifb int) { h.k.SetRoot(ifb, "", 0); h.tell(ifb) },
		} {
			have, _ := h.k.Read([]int{veth})
			damage(have[veth].IFBIndex)
			h.wait(soon)
			if h.check(); t.Failed() {
				t.Fatal(name)
			}
			h.wait(10 * time.Second) // otherwise it is a contention
		}
	})
	t.Run("what_it_does_not_tell_of_is_found_in_a_round", func(t *testing.T) {
		h := newShop(t)
		for range 100 {
			h.come(20, 10)
		}
		h.wait(soon)
		h.k.SetRoot(h.ports[77].Index, "", 0)
		h.wait((100/roundPorts + 2) * roundEvery)
		h.check()
	})
	t.Run("somebody_else's_qdisc_is_reported_and_left_alone", func(t *testing.T) {
		h := newShop(t)
		veth := h.come(20, 0)
		h.k.SetRoot(veth, "tbf", 7)
		h.wait(soon)
		if err := h.s.fault(h.seen); !errors.As(err, new(ConflictError)) {
			t.Errorf("fault is %v", err)
		}
		h.k.SetRoot(veth, "", 0)
		h.tell(veth)
		h.wait(soon)
		h.check()
	})
	t.Run("who_undoes_it_while_it_is_put_back_is_a_fight_as_well", func(t *testing.T) {
		h := newShop(t)
		veth := h.come(20, 10)
		h.wait(soon)
		h.k.SetRoot(veth, "", 0)
		h.tell(veth)
		h.k.Fail = func(veth int, s shaper.Step) error {
			if s.Op == shaper.AddClass {
				h.k.SetRoot(veth, "", 0)
			}
			return nil
		}
		h.wait(5 * time.Second)
		if len(h.s.contests()) != 1 || h.s.inForce(h.endpoints[0]) {
			t.Errorf("%d fights, its fault is %v", len(h.s.contests()), h.s.fault(h.seen))
		}
		h.k.Fail = nil
		h.wait(4 * maxRest)
		h.check()
		if len(h.s.contests()) > 0 {
			t.Error("the contention is not over")
		}
	})
	for name, end := range map[string]func(*shop){
		"goes":                  func(h *shop) { h.endpoints = []*desired.Endpoint{h.wish(h.ports[0], 20, 0)} },
		"goes_with_the_opt_out": func(h *shop) { h.endpoints = nil },
		"goes_with_the_bridge":  func(h *shop) { h.endpoints, h.ports = nil, nil }, // the veth is there, but is no port any more
	} {
		t.Run("a_limit_beside_a_foreign_filter_"+name, func(t *testing.T) {
			h := newShop(t)
			veth := h.come(20, 10)
			h.wait(soon)
			if err := h.k.AddFilter(veth); err != nil {
				t.Fatal(err)
			}
			h.tell(veth)
			h.wait(soon)
			h.check() // netguard's filter comes first
			h.endpoints = []*desired.Endpoint{h.wish(h.ports[0], 20, 30)}
			h.wait(soon)
			h.check()
			h.k.Fail = func(_ int, s shaper.Step) error {
				if s.Op == shaper.DeleteRedirect {
					return errors.New("injected")
				}
				return nil
			}
			end(h)
			for range 3 {
				h.wait(time.Second)
				if h.s.hear(link.Hint{Full: true}); h.k.Loses(veth) || h.k.IFBs() != 1 {
					t.Fatal("the IFB is deleted, and something leads to it")
				}
			}
			h.k.Fail = nil
			h.wait(2 * maxFailing)
			h.check()
			have, err := h.k.Read([]int{veth})
			if p := have[veth]; err != nil || h.k.Loses(veth) || p.Ours || !p.Stranger || !p.IngressQdisc {
				t.Errorf("left: netguard's filter: %t; the foreign one: %t; its qdisc: %t (%v)", p.Ours, p.Stranger, p.IngressQdisc, err)
			}
		})
	}
	t.Run("an_IFB_that_cannot_be_deleted_is_tried_again", func(t *testing.T) {
		h := newShop(t)
		h.come(20, 10)
		h.wait(time.Second)
		h.k.Keeps = errors.New("injected")
		h.leave(0)
		h.wait(time.Second)
		h.come(20, 10) // and holds up nobody
		h.wait(10 * time.Second)
		if !h.s.inForce(h.endpoints[0]) || h.k.IFBs() != 2 {
			t.Errorf("in force: %t; %d IFBs", h.s.inForce(h.endpoints[0]), h.k.IFBs())
		}
		h.k.Keeps = nil
		h.wait(maxFailing)
		h.check()
	})
	t.Run("a_failure_touches_no_other_port", func(t *testing.T) {
		h := newShop(t)
		bad, good := h.come(20, 10), h.come(20, 10)
		h.k.Fail = func(veth int, s shaper.Step) error {
			if veth == bad && s.Op == shaper.AddRedirect {
				return errors.New("injected")
			}
			return nil
		}
		h.wait(10 * time.Second)
		if h.s.fault(1) == nil || h.s.fault(2) != nil || h.s.inForce(h.endpoints[0]) || !h.s.inForce(h.endpoints[1]) {
			t.Errorf("faults: of the bad one (%d) %v, of the good one (%d) %v", bad, h.s.fault(1), good, h.s.fault(2))
		}
		h.k.Fail = nil
		h.wait(maxFailing)
		h.check()
	})
}
