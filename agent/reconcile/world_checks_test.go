package reconcile

import (
	"maps"
	"slices"
	"strings"
	"time"

	"netguard/agent/desired"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
	"netguard/shaper"
)

// wanted is the state that the agent's inputs lead to, worked out for the first time.
func (w *world) wanted() *desired.State {
	b := desired.NewBuilder()
	b.Leaf, b.Route = shaper.Hashed, w.links.RouteTo
	b.Earlier = func() (guard.Earlier, error) { // no bridge is left alone for a port that came later
		taken := map[int]bool{}
		for _, index := range w.links.view.Bridges {
			taken[index] = true
		}
		return guard.Earlier{Bridges: taken}, nil
	}
	seen := w.observer.Current()
	seen.Links = w.links.view
	seen.Joined = endpoint.Join(endpoint.Observation{View: seen.View, Ports: seen.Links.Ports, Fresh: seen.Fresh, Sandboxes: seen.Sandboxes, Now: w.now}, endpoint.NewBindings())
	s, err := b.Look(desired.Inputs{Seen: seen, Config: w.cfg, Catalog: w.catalog, Now: w.now})
	if err == nil {
		err = b.Decide(s)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// limited says what limits a port lacks.
func (w *world) limited(e *desired.Endpoint) []shaper.Step {
	all, err := w.tc.Read([]int{w.veths[e.Port.Index]})
	if err != nil {
		w.t.Fatal(err)
	}
	return shaper.Diff(all[w.veths[e.Port.Index]].Endpoint, e.Wish)
}

// ruled says what packets of an endpoint meet that is not what policies come to.
func (w *world) ruled(e *desired.Endpoint, r *desired.Ruling) string {
	met, all := w.rules.InForce()
	switch {
	case !all:
		return "rules or members are missing"
	case met.Rules.Generation != r.Rules.Generation:
		return "other rules are in force"
	case !w.handedOver(e, r):
		return "its bridge hands nothing over"
	}
	for _, a := range e.Own() {
		if !slices.Contains(met.Containers, a) || !slices.Contains(met.Homes, iptables.Home{Addr: a, Bridge: e.Network.Bridge}) {
			return "rules do not know its address"
		}
	}
	return ""
}

// watch fails the test where the agent lets a port send for the first time whose limits or
// rules are not in the kernel, that is nobody's, or whose address has connections of another.
func (w *world) watch(at string) {
	w.t.Helper()
	w.damage = w.damage && !(at == "turn" && w.intact())
	if s := w.loop.State(); s != nil && s.changes == w.loop.shaping.changes {
		faults, unread := w.loop.shaping.faults(s.Want.Endpoints)
		if !maps.Equal(s.Faults, faults) || !maps.Equal(s.Unread, unread) {
			w.t.Errorf("%s: published limits are old: %v, %v; want %v, %v", at, s.Faults, s.Unread, faults, unread)
		}
	}
	if w.blind { // nobody knows whose they are
		w.known, w.blind = append(w.known, w.rules.Connections()...), w.loop.handover.blind()
	}
	var want *desired.State
	for _, p := range w.links.view.Ports {
		before := w.sends[p.Index]
		w.sends[p.Index] = w.guard.Sends(p.Index)
		if before || !w.sends[p.Index] || w.was[p.Index] {
			continue
		}
		if want == nil {
			want = w.wanted()
		}
		i := slices.IndexFunc(want.Endpoints, func(e *desired.Endpoint) bool { return e.Port != nil && e.Port.Index == p.Index })
		if i < 0 && slices.Contains(w.cfg.Exclude, strings.TrimPrefix(p.MasterName, "br-")) {
			continue
		}
		if i < 0 && w.docker.named[p.Seen] {
			continue // Docker does not list it for now, and its port is there
		}
		if i < 0 {
			w.t.Errorf("%s: port %s sends, and is nobody's", at, p.Name)
			continue
		}
		e := want.Endpoints[i]
		if e.Unmanaged != "" {
			continue
		}
		w.was[p.Index] = true
		if steps := w.limited(e); len(steps) > 0 && !w.hurt[p.Index] {
			w.t.Errorf("%s: %s sends, and its limits lack %v", at, e.Container.Name, steps)
		}
		if why := w.ruled(e, want.Ruling); why != "" && !w.damage {
			w.t.Errorf("%s: %s sends, and %s", at, e.Container.Name, why)
		}
		for _, f := range w.rules.Connections() {
			if slices.Contains(e.Own(), f.Src.Addr()) && int64(f.Src.Port()) != e.Container.Created && !slices.Contains(w.known, f) {
				w.t.Errorf("%s %v: %s sends, and has the connection %v of another", at, w.now.Sub(time.Unix(1e9, 0)), e.Container.Name, f)
			}
		}
		if len(e.Wrong) > 0 {
			w.t.Errorf("%s: %s sends, and %s", at, e.Container.Name, e.Wrong)
		}
	}
}

// intact tells whether what somebody else changed is put back.
func (w *world) intact() bool {
	want := w.wanted()
	for _, e := range want.Endpoints {
		if e.Unmanaged != "" {
			continue
		}
		if !w.handedOver(e, want.Ruling) {
			return false
		}
		if e.Port != nil && w.hurt[e.Port.Index] && len(w.limited(e)) == 0 {
			delete(w.hurt, e.Port.Index)
		}
	}
	_, all := w.rules.InForce()
	return all
}

// handedOver tells whether an endpoint's frames within its bridge meet the rules, if they
// shall.
func (w *world) handedOver(e *desired.Endpoint, r *desired.Ruling) bool {
	return !r.Within(e.Key) || w.rules.HandsOver(e.Network.Bridge)
}

// damaged notes what somebody else did: it is not the agent that let anybody send.
func (w *world) damaged() {
	for _, p := range w.links.view.Ports {
		w.sends[p.Index] = w.guard.Sends(p.Index)
	}
	for _, e := range w.wanted().Endpoints {
		if e.Port != nil && e.Unmanaged == "" && len(w.limited(e)) > 0 {
			w.hurt[e.Port.Index] = true
		}
	}
	w.woken, w.damage = true, true
}

// settle ends all that goes wrong, and lets time pass for all to be repaired.
func (w *world) settle(long time.Duration) {
	w.t.Helper()
	w.fails, w.docker.slow, w.docker.fails, w.docker.hides = nil, 0, nil, ""
	for _, c := range w.containers {
		c.State = "running"
	}
	w.ask()
	w.run(long)
}

// check fails the test unless the kernel holds what is wanted of each container.
func (w *world) check() {
	w.t.Helper()
	want := w.wanted()
	if len(want.Endpoints) != len(w.containers) {
		w.t.Errorf("%d endpoints of %d containers", len(want.Endpoints), len(w.containers))
	}
	leads := 0
	for _, e := range want.Endpoints {
		if e.Unmanaged != "" {
			if e.Port != nil && !w.guard.Sends(e.Port.Index) {
				w.t.Errorf("%s is not managed and does not send", e.Container.Name)
			}
			continue
		}
		if e.Port == nil {
			w.t.Errorf("%s has no port", e.Container.Name)
			continue
		}
		if sends := w.guard.Sends(e.Port.Index); sends != (len(e.Wrong) == 0) {
			w.t.Errorf("%s sends: %t, and is wrong: %q", e.Container.Name, sends, e.Wrong)
		}
		if steps := w.limited(e); len(steps) > 0 {
			w.t.Errorf("the limits of %s lack %v", e.Container.Name, steps)
		}
		if why := w.ruled(e, want.Ruling); why != "" {
			w.t.Errorf("%s: %s", e.Container.Name, why)
		}
		if e.Wish.Egress != nil {
			leads++
		}
	}
	if n := w.tc.IFBs(); n != leads {
		w.t.Errorf("%d IFBs, want %d", n, leads)
	}
	if w.rules.Left() {
		w.t.Error("rules are left over")
	}
	// Twice is once.
	if n := w.written(func() { w.links.hint, w.notices.rules, w.woken = link.Hint{Full: true}, true, true; w.run(time.Minute) }); n > 0 {
		w.t.Errorf("%d writes though nothing happened", n)
	}
	// And an agent that knows nothing of how it came to that would not change it.
	if n := w.written(func() { w.start(); w.run(time.Minute) }); n > 0 {
		w.t.Errorf("%d writes by another agent", n)
	}
}

// written counts the writes to all planes.
func (w *world) written(does func()) int {
	before := w.guard.Writes + w.tc.Writes + w.writes
	does()
	return w.guard.Writes + w.tc.Writes + w.writes - before
}
