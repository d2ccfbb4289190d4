package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"time"

	"netguard/agent/link"
	"netguard/shaper"
	"netguard/shaper/tc"
)

// failure is why a port is not as desired, and when it is tried again.
type failure struct {
	err   error
	until time.Time
	wait  time.Duration
}

func (l *loop) fail(seen uint64, err error) {
	f := l.failing[seen]
	f.wait = min(max(2*f.wait, minFailing), maxFailing)
	f.err, f.until = err, time.Now().Add(f.wait)
	l.failing[seen] = f
}

// apply writes what changed, and compares with the kernel what is due.
func (l *loop) apply(s *state, ports []link.Port) {
	news := false
	wanted := make(map[uint64]*desire, len(s.desires))
	for _, d := range s.desires {
		if d.Port == nil || d.Unmanaged != "" {
			continue
		}
		wanted[d.Port.Seen] = d
		have, known := l.applied[d.Port.Seen]
		switch want := d.form(); {
		case known && have == want:
		case !known && d.Port.Seen > s.observed.old:
			// Nobody can have put anything on a port this new: there is
			// no need to read, and every reason to be quick.
			l.quick(d, want)
			news = true
		default:
			l.check.mark(d.Port.Index)
			l.check.at = time.Now()
		}
	}
	here := make(map[uint64]struct{}, len(ports))
	for _, p := range ports {
		here[p.Seen] = struct{}{}
		if f, was := l.applied[p.Seen]; was && !f.empty() && wanted[p.Seen] == nil {
			l.check.mark(p.Index)
			l.check.at = time.Now()
		}
	}
	gone := func(seen uint64) bool { _, ok := here[seen]; return !ok }
	maps.DeleteFunc(l.failing, func(seen uint64, _ failure) bool { return gone(seen) })
	maps.DeleteFunc(l.fights, func(seen uint64, _ *fight) bool { return gone(seen) })
	maps.DeleteFunc(l.admitted, func(seen uint64, _ bool) bool { return gone(seen) })
	for seen, f := range l.applied {
		if gone(seen) {
			delete(l.applied, seen)
			if f.limit[shaper.Egress].Rate != 0 {
				l.check.within(verifySoon) // its IFB is an orphan
			}
		}
	}
	now := time.Now()
	if news {
		l.came = now
	}
	if l.check.all || l.check.due(now, l.came) {
		l.verify(s, ports, wanted)
	}
}

// quick shapes a port that has nothing yet.
func (l *loop) quick(d *desire, want form) {
	if want.empty() {
		l.applied[d.Port.Seen] = want
		return
	}
	err := l.driver.Apply(d.Port.Index, d.Port.Name, shaper.Diff(shaper.Endpoint{}, d.wish))
	if err != nil { // the port has something after all, or is gone
		l.check.mark(d.Port.Index)
		l.check.at = time.Now()
		return
	}
	l.applied[d.Port.Seen] = want
	l.check.mark(d.Port.Index) // read back
	l.check.within(verifySoon)
}

// verify compares with the kernel, and repairs.
func (l *loop) verify(s *state, ports []link.Port, wanted map[uint64]*desire) {
	began := time.Now()
	due := l.check
	l.check = check{at: began.Add(verifyEvery)}
	defer func() { l.check.took = time.Since(began) }()
	// With nothing named the timer has run out: look at all.
	due.all = due.all || len(due.links) == 0
	snapshot, err := l.driver.Snapshot()
	if err != nil {
		l.log.Error("kernel cannot be read", "error", err)
		l.check.all = true
		l.check.by(began.Add(minFailing))
		return
	}
	keep := map[int]bool{} // veths whose IFB has a use
	was := map[int]int{}   // the IFBs of veths, at the last look
	for ifb, veth := range l.veths {
		was[veth] = ifb
	}
	clear(l.veths)
	for i := range ports {
		p := &ports[i]
		_, veth := due.links[p.Index]
		at := snapshot.IFB(p.Index)
		_, ifb := due.links[at]
		if at = cmp.Or(at, was[p.Index]); at != 0 {
			l.veths[at] = p.Index
		}
		d := wanted[p.Seen]
		keep[p.Index] = d != nil && d.wish.Egress != nil
		if d == nil && !snapshot.Touched(p.Index) || !due.all && !veth && !ifb {
			continue
		}
		if g := l.fights[p.Seen]; g != nil && began.Before(g.until()) && l.applied[p.Seen] == d.formOrNone() {
			l.check.mark(p.Index)
			l.check.by(g.until())
			continue
		}
		f, failed := l.failing[p.Seen]
		if !failed || !began.Before(f.until) {
			err := l.repair(snapshot, p, d)
			if g := l.fights[p.Seen]; g != nil && g.on() {
				l.check.mark(p.Index)
				l.check.by(g.next(began, l.check.at))
			}
			if err == nil {
				delete(l.failing, p.Seen)
				continue
			}
			if !failed || f.err.Error() != err.Error() {
				l.log.Error("port cannot be shaped; trying again until it can", "veth", p.Name, "error", err)
			}
			if errors.As(err, new(conflictError)) {
				l.failing[p.Seen] = failure{err: err} // the kernel tells when it is gone
				continue
			}
			l.fail(p.Seen, err)
		}
		l.check.mark(p.Index)
		l.check.by(l.failing[p.Seen].until)
	}
	n, err := l.driver.Sweep(func(veth int) bool { return keep[veth] })
	switch {
	case err != nil:
		l.log.Error("IFBs without a port cannot be deleted", "error", err)
	case n > 0:
		l.log.Debug("deleted IFBs without a port", "count", n)
	}
}

// repair brings one port to what is desired for it; d is nil where nothing is.
func (l *loop) repair(snapshot *tc.Snapshot, p *link.Port, d *desire) error {
	have, err := snapshot.Endpoint(p.Index)
	if err != nil {
		return err
	}
	var wish shaper.Wish
	var want form
	if d != nil {
		wish, want = d.wish, d.form()
	}
	steps := shaper.Diff(have, wish)
	was, known := l.applied[p.Seen]
	if d != nil {
		l.applied[p.Seen] = want // also when it fails: from here on only verify tries
	}
	if err := l.driver.Apply(p.Index, p.Name, steps); err != nil {
		if _, gone := l.links.Resolve(p.Index); errors.Is(gone, link.ErrNotFound) {
			return nil // its end is the next message
		}
		return err
	}
	if len(steps) == 0 {
		if err := l.driver.Apply(p.Index, p.Name, shaper.Leftovers(have, wish)); err != nil {
			l.log.Debug("classes of an earlier version stay", "veth", p.Name, "error", err)
		}
	}
	g := l.fights[p.Seen]
	switch {
	case len(steps) == 0 && g != nil:
		g.calm(l.log, time.Now())
	case len(steps) > 0 && known && was == want && d != nil:
		if g == nil {
			g = &fight{}
			l.fights[p.Seen] = g
		}
		if !g.drifted(l.log, "the limits of "+d.Container.Name, time.Now(), []string{steps[0].String() + " (" + p.Name + ")"}, nil) {
			l.log.Warn("shaping was changed by somebody else; restored", "container", d.Container.Name,
				"network", d.Network.Name, "veth", p.Name, "steps", steps)
		}
	}
	if d == nil {
		delete(l.applied, p.Seen)
	}
	return conflict(have, wish, p.Name)
}

// conflictError says what of somebody else's stands where a limit should be.
type conflictError string

func (e conflictError) Error() string { return string(e) }

// conflict is a conflictError, nil where nothing stands in the way.
func conflict(have shaper.Endpoint, wish shaper.Wish, veth string) error {
	switch in, out := shaper.Conflicts(have, wish); {
	case in:
		return conflictError(fmt.Sprintf("another program's %s qdisc stands at the root of %s, so ingress is not limited: if nothing needs it, remove it with tc qdisc del dev %s root",
			have.Veth.Root.Kind, veth, veth))
	case out:
		return conflictError(fmt.Sprintf("another program's filter or qdisc stands at the ingress of %s, so egress is not limited: if nothing needs it, remove it with tc qdisc del dev %s ingress",
			veth, veth))
	}
	return nil
}
