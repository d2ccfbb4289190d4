// Package reconcile brings the kernel to the wanted state, and keeps it there.
//
// One goroutine, the Loop, writes to the kernel. It reaches each part of the kernel through a
// plane. Package desired works out what is wanted. Each plane gets all of it, and writes what
// differs. If the wanted state did not change, a turn of the loop only checks what is due. A
// report of the kernel makes a check due soon. What the kernel does not report is checked at
// intervals (agent/pace). One function, Loop.reconcile, has the order of all writing.
package reconcile

import (
	"context"
	"maps"
	"slices"
	"time"

	"netguard/agent/desired"
	"netguard/agent/link"
	"netguard/agent/observe"
	"netguard/agent/pace"
	"netguard/internal/changed"
)

// pass works out the wanted state, and brings the kernel to it. If the wanted state is the same
// as at the last pass, it only checks what is due, unless anew is set.
func (l *Loop) pass(ctx context.Context, in desired.Inputs, anew bool) {
	want, err := l.builder.Look(in)
	if err != nil {
		l.log.Error("it cannot be told which bridges an earlier agent guarded; taking all", "error", err)
	}
	if last := l.state.Load(); last != nil && !anew && err == nil && !l.handover.blind() {
		if again := l.builder.Again(last.Want, want); again != nil {
			s := *last
			s.Want = again
			l.state.Store(&s)
			l.again = recheck(again)
			l.keep(ctx)
			return
		}
	}
	s := &State{Want: want}
	if in.Seen.Complete {
		l.reconcile(ctx, s)
	} else { // nobody knows yet whose the ports are
		l.holdBoot(want)
	}
	s.Unknown = l.guarding.ports.Unknown(want, l.now())
	s.Bridges = want.Site.Findings(want.Left, s.Unknown)
	l.publish(s)
	l.endpointLog.pass(s)
	l.again = recheck(want)
}

// reconcile brings the kernel to the wanted state. The order matters: no port may be open even
// for a moment. A port stays closed until all rules and limits of its endpoint are in the
// kernel.
func (l *Loop) reconcile(ctx context.Context, s *State) {
	want := s.Want
	l.BootCache.keep(want.Seen.View, want.Seen.Reads)

	// 1. Close ports that nobody knows yet, before anything that takes long.
	l.guarding.closeUnknown(want.Site)

	// 2. Rules of policies, and the end of connections that former owners of addresses left.
	if err := l.builder.Decide(want); err != nil {
		l.log.Error("link-local addresses of containers do not count: the guard's table cannot be read", "error", err)
	}
	l.guarding.policed = l.guarding.policed || want.Ruling.Any()
	l.guarding.isolate(want.Site, want.Closed)
	l.policing.want(want.Ruling, networksIn(want.Seen.View))
	l.policing.apply(ctx)
	l.handOver(ctx, want)
	s.Policies = l.policing.state()
	want.Narrow(l.policing.known)

	// 3. Limits.
	l.shaping.apply(want.Endpoints, want.Seen.Links.Ports, want.Seen.Old)

	// 4. Admission of the endpoints that have all of that.
	l.admitAll(want, s.Policies)

	// Last: what takes long, and what no container waits for.
	l.look(ctx, want)
}

// admitAll makes the guard admit each endpoint whose rules and limits are all in the kernel.
func (l *Loop) admitAll(want *desired.State, p *PolicyState) {
	_, came := changed.Between(l.judged, want.Endpoints)
	for _, d := range came {
		if d.Unmanaged != "" && d.Port != nil {
			delete(l.admitted, d.Port.Seen) // its rules and limits are taken away
		}
	}
	l.judged = want.Endpoints
	l.granted = nil
	// While the ruling is not in force, older rules may be: isolated ports stay isolated.
	ports := l.guarding.ports.Of(want.Endpoints, want.Site, desired.Judge{Ask: func(d *desired.Endpoint) desired.Verdict {
		verdict := l.admit(d, p)
		if verdict == desired.Admit {
			l.granted = append(l.granted, d.Port)
		}
		return verdict
	}, Again: p.bridgesErr != nil, Closed: want.Closed, Keep: !l.policing.holds})
	l.guarding.apply(want.Site, ports, desired.Unmanaged(want.Endpoints))
	l.remember(want.Seen.Links.Ports)
}

// admit gives the verdict on an endpoint. It admits one that has all that it should have.
func (l *Loop) admit(d *desired.Endpoint, p *PolicyState) desired.Verdict {
	seen := d.Port.Seen
	if len(d.Wrong) > 0 || p.within(d.Key, d.Network.Bridge) != nil {
		delete(l.admitted, seen)
		return desired.Refuse
	}
	failing := l.shaping.fault(seen) != nil
	holds := l.shaping.inForce(d) && l.policing.holds && !p.uncovered(d.Key) && !l.handover.blind() && !l.handover.waits(d)
	switch {
	case l.admitted[seen]:
		return desired.Stay
	case holds:
		return desired.Admit
	case !l.policing.ever, l.handover.blind():
		// Only what an earlier agent wrote applies to it.
		return desired.Leave
	case failing && l.policing.holds:
		// Its limit cannot be written: the port stays as it is.
		return desired.Leave
	}
	return desired.Refuse
}

// remember notes which of the granted ports the guard has opened, and forgets ports that are gone.
// The guard may open a port later: its write may fail at first, or another port may have the MAC.
func (l *Loop) remember(ports []*link.Port) {
	if l.guarding.err != nil {
		return
	}
	l.granted = slices.DeleteFunc(l.granted, func(p *link.Port) bool {
		opened := l.guarding.opened(p.Index)
		if opened {
			l.admitted[p.Seen] = true
		}
		return opened
	})
	if len(l.admitted) <= len(ports) {
		return
	}
	here := make(map[uint64]bool, len(ports))
	for _, p := range ports {
		here[p.Seen] = true
	}
	maps.DeleteFunc(l.admitted, func(seen uint64, _ bool) bool { return !here[seen] })
}

// holdBoot closes the ports of bridges that were managed before a boot, until Docker answers.
func (l *Loop) holdBoot(want *desired.State) {
	fresh := func() (bool, error) {
		e, err := l.Guard.Earlier()
		return e.Fresh, err
	}
	if !want.Config.AdmissionOpen && l.BootCache.holds(want.Site.Others(), want.Site.Managed, fresh) {
		l.guarding.closeAll(want.Site)
	}
}

// holding tells whether the guard was told to close ports until Docker answers. Otherwise the guard
// has no wanted state before that.
func (l *Loop) holding() bool {
	return l.BootCache.closed && !l.last.Config.AdmissionOpen && len(l.guarding.wish.Bridges) > 0
}

// keepHold keeps these ports closed: it tries again after a failure, and puts back what other
// programs changed.
func (l *Loop) keepHold() {
	if l.now().Before(l.guarding.next()) {
		return
	}
	s := *l.state.Load()
	l.guarding.keep()
	l.publish(&s)
}

// keep checks what is due in the kernel. The wanted state is the same as at the last pass.
func (l *Loop) keep(ctx context.Context) {
	for _, p := range []*pace.Pace{&l.shaping.round, &l.policing.glance, &l.policing.check, &l.guarding.round} {
		p.Ahead(ahead)
	}
	if due := pace.Soonest(l.shaping.next(), l.policing.next(), l.guarding.next()); l.now().Before(due) {
		return
	}
	s := *l.state.Load()
	before := l.shaping.version
	l.shaping.verify(s.Want.Seen.Links.Ports, l.shaping.wanted)
	l.guarding.keep()
	l.remember(s.Want.Seen.Links.Ports)
	l.look(ctx, s.Want)
	if l.shaping.version != before {
		l.rerun() // somebody may be admitted now, or not any more
	}
	s.Policies = l.policing.state()
	l.publish(&s)
}

// look makes policing check the rules and the connections.
func (l *Loop) look(ctx context.Context, want *desired.State) {
	if l.policing.keep(ctx, func() bool { return l.list(ctx, want) }) {
		l.rerun() // there is more to do, or to tell
	}
}

// rerun makes a pass follow at once.
func (l *Loop) rerun() {
	l.last = nil
	l.wakeup.Call()
}

// recheck is when a pass is due because time alone decides something: about endpoints that
// Docker does not list, and about ports that are unknown so far.
func recheck(want *desired.State) time.Time {
	if len(want.Seen.Unlisted) > 0 {
		return want.Now.Add(observe.LackingFor / 2)
	}
	var at time.Time
	for _, p := range slices.Backward(want.Seen.Links.Ports) { // the youngest are the last
		ripe := p.Since.Add(desired.Patience)
		if !want.Now.Before(ripe) {
			break
		}
		at = pace.Soonest(ripe, at)
	}
	return at
}
