package reconcile

import (
	"context"
	"net/netip"
	"time"

	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/agent/observe"
	"netguard/netpolicy/iptables"
	"netguard/netpolicy/iptables/iptablestest"
	"netguard/shaper"
	"netguard/shaper/tc"
)

// fakeLinks is what the kernel tells of links.
type fakeLinks struct {
	view link.View
	hint link.Hint
	seen uint64
}

func (f *fakeLinks) Take() (link.Hint, link.View) {
	h := f.hint
	f.hint = link.Hint{}
	return h, f.view
}

func (f *fakeLinks) RouteTo(netip.Addr) (link.Route, error) { return link.Route{}, nil }

func (f *fakeLinks) Addresses() (map[netip.Addr]bool, error) {
	return map[netip.Addr]bool{netip.MustParseAddr("192.0.2.1"): true}, nil
}

func (f *fakeLinks) Resolve(index int) (link.Port, error) {
	for _, p := range f.view.Ports {
		if p.Index == index {
			return *p, nil
		}
	}
	return link.Port{}, link.ErrNotFound
}

// fakeDocker is an engine that may be slow, fail or lie.
type fakeDocker struct {
	snapshot observe.Snapshot
	due      time.Time // of the next answer; zero for none
	slow     time.Duration
	fails    error
	hides    string          // a container that it does not list
	named    map[uint64]bool // the ports whose containers it listed, by link.Port.Seen
	// contests are the containers whose namespaces are asked for; lacks has it list again.
	contests map[string]bool
	lacks    bool
}

func (f *fakeDocker) Current() observe.Snapshot { return f.snapshot }

func (f *fakeDocker) Contested(all []*endpoint.Endpoint) {
	f.contests = map[string]bool{}
	for _, e := range all {
		if e.Contested {
			f.contests[e.Key.Container] = true
		}
	}
}

func (f *fakeDocker) Lacking(since time.Time) { f.lacks = !since.IsZero() }

type fakeNotices struct {
	rules, guard bool
	by           []string
}

func (f *fakeNotices) Rules() (bool, []string) {
	changed, by := f.rules, f.by
	f.rules, f.by = false, nil
	return changed, by
}

func (f *fakeNotices) Guard() bool {
	changed := f.guard
	f.guard = false
	return changed
}

type noAlerts struct{}

func (noAlerts) Next() time.Time        { return time.Time{} }
func (noAlerts) Look(time.Time, *State) {}

// limits numbers the veths of the limits' kernel as all others do. An IFB has a number that
// no veth has.
type limits struct{ w *world }

const ifbs = 1 << 20

func (l limits) Apply(veth int, name string, steps []shaper.Step) error {
	return l.w.tc.Apply(l.w.veths[veth], name, steps)
}

func (l limits) Read(veths []int) (map[int]tc.Port, error) {
	out := map[int]tc.Port{}
	for _, veth := range veths {
		if err := l.w.failing("limits read", veth); err != nil {
			return nil, err
		}
		all, err := l.w.tc.Read([]int{l.w.veths[veth]})
		if err != nil {
			return nil, err
		}
		p := all[l.w.veths[veth]]
		if p.IFBIndex != 0 {
			p.IFBIndex += ifbs
		}
		out[veth] = p
	}
	return out, nil
}

func (l limits) Drop(veths []int) error {
	var own []int
	for _, veth := range veths {
		own = append(own, l.w.veths[veth])
	}
	return l.w.tc.Drop(own)
}

func (l limits) Sweep(keep func(int) bool) (int, error) {
	byOwn := map[int]int{}
	for veth, own := range l.w.veths {
		byOwn[own] = veth
	}
	return l.w.tc.Sweep(func(own int) bool { return keep(byOwn[own]) })
}

// looked is the plane of rules. What it says of them the agent knows from then on.
type looked struct {
	*iptablestest.Driver
	w *world
}

func (l looked) Verify(ctx context.Context) (iptables.Drift, error) {
	drift, err := l.Driver.Verify(ctx)
	l.w.damage = l.w.damage && (err != nil || len(drift.Changes) == 0)
	return drift, err
}
