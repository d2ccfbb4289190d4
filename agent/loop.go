package agent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy/guard"
	"netguard/shaper"
	"netguard/shaper/tc"
)

const (
	// verifyEvery repairs what nobody told about.
	verifyEvery = 30 * time.Second
	// verifySoon gathers the kernel's messages about one change, netguard's own
	// among them, before the kernel is read.
	verifySoon = 100 * time.Millisecond
	// verifyShare keeps reading the kernel below this part of the time, on
	// hosts where it takes long.
	verifyShare = 10

	// settle is how long after the last container came the kernel is read, and
	// settleMost how long that is put off at most.
	settle     = 500 * time.Millisecond
	settleMost = 3 * time.Second

	minFailing = time.Second
	maxFailing = 30 * time.Second
)

// loop is the one goroutine that writes to the kernel.
type loop struct {
	log      *slog.Logger
	driver   *tc.Driver
	features tc.Features // set before run
	links    *link.Table
	observer *observer
	settings *settings
	policies *policies
	police   *police
	sentry   *sentry
	alerts   *alerts
	tables   *tables
	memory   *memory
	asks     chan func()
	wakeup   wake

	holder *holder
	bound  endpoint.Bindings
	// applied is what was written last for a port, by link.Port.Seen.
	applied map[uint64]form
	failing map[uint64]failure // ports that could not be written, by link.Port.Seen
	// admitted are the ports that all rules were in the kernel for, by
	// link.Port.Seen: they stay so when a later change fails.
	admitted map[uint64]bool
	check    check
	came     time.Time // the last container
	// veths are the veths behind the IFBs that were there at the last look, by their
	// ifindexes: one that is gone does not say whose it was.
	veths  map[int]int
	fights map[uint64]*fight       // about limits, by link.Port.Seen
	told   map[endpoint.Key]string // what was logged last about an endpoint
	reads  int                     // of observed, at the last pass
	over   bool                    // nothing is to be written any more

	state atomic.Pointer[state]
}

// check says what is to be compared with the kernel, and when.
type check struct {
	at    time.Time
	all   bool
	links map[int]struct{} // by ifindex, of veths and IFBs
	took  time.Duration    // the last one
	put   time.Time        // since when it has been put off; zero if it is not
}

func (c *check) within(d time.Duration) {
	c.by(time.Now().Add(max(d, verifyShare*c.took)))
}

// due tells whether the moment has come. While containers start it is put off, since
// each look takes a lock of the kernel's that they, and those who set them up, need.
func (c *check) due(now, came time.Time) bool {
	if now.Before(c.at) {
		return false
	}
	if calm := came.Add(settle); now.Before(calm) {
		if c.put.IsZero() {
			c.put = now
		}
		if most := c.put.Add(settleMost); now.Before(most) {
			c.at = calm
			if most.Before(calm) {
				c.at = most
			}
			return false
		}
	}
	return true
}

// by is within, for a moment that was set before.
func (c *check) by(at time.Time) {
	if c.at.IsZero() || at.Before(c.at) {
		c.at = at
	}
}

// mark has a link looked at.
func (c *check) mark(index int) {
	if c.links == nil {
		c.links = map[int]struct{}{}
	}
	c.links[index] = struct{}{}
}

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

// state is what the last pass came to.
type state struct {
	desires  []desire
	errs     map[endpoint.Key]error // why the kernel could not be brought to it
	observed observed
	held     map[endpoint.Key]time.Time
	policing *policing
	guarding guard.Report
	guardErr error
	// admission is what holds of it, "" while nothing was written.
	admission string
	fights    []string // findings
}

func newLoop(log *slog.Logger, driver *tc.Driver, links *link.Table, observer *observer, s *settings) *loop {
	return &loop{log: log, driver: driver, links: links, observer: observer, settings: s, holder: &holder{log: log, tell: observer.lacking},
		wakeup: newWake(), bound: endpoint.Bindings{}, applied: map[uint64]form{}, told: map[endpoint.Key]string{}, veths: map[int]int{}, failing: map[uint64]failure{}, admitted: map[uint64]bool{}, asks: make(chan func()), fights: map[uint64]*fight{},
		check: check{all: true}}
}

// run reconciles until ctx ends. What is in the kernel stays there.
func (l *loop) run(ctx context.Context) error {
	for {
		l.pass(ctx)
		if l.fighting() {
			l.breathe(ctx)
		}
		at := l.check.at
		for _, next := range []time.Time{l.police.next(), l.sentry.at, l.alerts.next} {
			if next.Before(at) {
				at = next
			}
		}
		timer := time.NewTimer(time.Until(at))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-l.wakeup:
			timer.Stop()
		case f := <-l.asks:
			timer.Stop()
			f()
		case <-timer.C:
		}
	}
}

// breathe lets a moment pass, in which nothing is done but what is asked for: who
// fights may give reason for any number of passes.
func (l *loop) breathe(ctx context.Context) {
	for enough := time.After(fightPass); ; {
		select {
		case <-ctx.Done():
			return
		case f := <-l.asks:
			f()
		case <-enough:
			return
		}
	}
}

// ask runs f in the loop's goroutine, which owns the drivers.
func (l *loop) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case l.asks <- func() { f(); close(done) }:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pass brings the kernel to what is desired now.
func (l *loop) pass(ctx context.Context) {
	if l.over {
		l.check.at = time.Now().Add(verifyEvery)
		l.police.at, l.police.cut, l.sentry.at, l.alerts.next = l.check.at, time.Time{}, l.check.at, l.check.at
		return
	}
	seen := l.observer.current() // before the ports: they may only be newer
	l.hear(l.links.TakeHint())
	if changed, by := l.tables.takeRules(); changed || seen.reads != l.reads {
		// Docker writes its chains anew when a network comes, or it starts.
		l.reads = seen.reads
		l.police.soon(by)
	}
	ports := l.links.Snapshot()
	cfg := l.settings.config()
	seen.view = l.holder.view(seen.view, ports)
	op := endpoint.Operator{Exclude: cfg.Exclude, AllowOptOut: cfg.AllowOptOut}
	endpoints := endpoint.Join(endpoint.Observation{View: seen.view, Ports: ports, Fresh: seen.fresh,
		Sandboxes: seen.sandboxes, Old: seen.old}, op, l.bound)
	l.holder.joined(endpoints)
	s := &state{desires: desired(endpoints, cfg, l.features.Leaf), errs: map[endpoint.Key]error{}, observed: seen, held: l.holder.held}
	if seen.complete { // before that nobody knows whose the ports are
		l.memory.keep(seen.view, seen.reads)
		managed := managedBridges(seen.view, l.links.Bridges(), op)
		l.sentry.quarantine(ports, managed, cfg) // before anything that takes long
		l.police.compile(l.policies.now.Load(), s.desires)
		shut := l.police.ruling.shut(s.desires)
		l.sentry.shut(shut, ports, managed, cfg)
		l.police.pass(ctx)
		s.policing = l.police.result()
		for i := range s.desires {
			s.desires[i].narrow(s.policing.ruling.widened[s.desires[i].Key], cfg.Claims)
		}
		l.apply(s, ports)
		watched := watch(s.desires, ports, managed, cfg, func(d *desire) verdict { return l.admit(d, s.policing) })
		l.sentry.apply(l.sentry.shutting(watched, shut, l.police.holds), managed, managed.others(ports), elsewhere(s.desires), cfg)
		if l.police.after(ctx) {
			l.wakeup.call()
		}
		l.alerts.pass(time.Now(), s.desires)
		s.guarding = l.sentry.report
		s.guardErr = l.sentry.err
		s.fights = l.fightFindings()
	} else {
		l.police.at = time.Now().Add(verifyEvery)
		l.sentry.at = l.police.at
		l.check.within(verifyEvery)
		managed := managedBridges(l.memory.view, l.links.Bridges(), op)
		if !cfg.AdmissionOpen && l.memory.holds(ports, managed, l.sentry.driver.Fresh) {
			l.sentry.hold(ports, managed, cfg)
		}
	}
	for i := range s.desires {
		if d := &s.desires[i]; d.Port != nil && d.Unmanaged == "" {
			if f, ok := l.failing[d.Port.Seen]; ok {
				s.errs[d.Key] = f.err
			}
		}
	}
	s.admission = l.sentry.admission
	l.tell(s)
	l.state.Store(s)
}

// hear has looked at what the kernel told of.
func (l *loop) hear(h link.Hint) {
	l.sentry.hear(h)
	if h.Full || len(h.Links) > 0 {
		l.check.all = l.check.all || h.Full
		for index := range h.Links {
			l.check.mark(index)
			if veth, ok := l.veths[index]; ok {
				l.check.mark(veth)
			}
		}
		l.check.within(verifySoon)
	}
	for name, index := range l.links.Bridges() {
		if _, named := h.Links[index]; named || h.Full {
			l.police.touched(name)
		}
	}
}

// admission is what holds of it since the last pass.
func (l *loop) admission() string {
	if s := l.state.Load(); s != nil {
		return s.admission
	}
	return ""
}

// verdict is what the agent says of an endpoint's port.
type verdict int

const (
	refuse verdict = iota
	// leave keeps it as an earlier agent left it.
	leave
	admit
)

// admit tells whether all that an endpoint should have is in the kernel.
func (l *loop) admit(d *desire, p *policing) verdict {
	seen := d.Port.Seen
	if len(d.wrong) > 0 || p.within(d.Key, d.Network.Bridge) != nil {
		delete(l.admitted, seen)
		return refuse
	}
	have, known := l.applied[seen]
	_, failing := l.failing[seen]
	if known && have == d.form() && !failing && l.police.holds {
		l.admitted[seen] = true
	}
	switch {
	case l.admitted[seen]:
		return admit
	case !l.police.ever:
		// What holds for it is what an earlier agent wrote.
		return leave
	}
	return refuse
}

// apply writes what changed, and compares with the kernel what is due.
func (l *loop) apply(s *state, ports []link.Port) {
	news := false
	wanted := make(map[uint64]*desire, len(s.desires))
	for i := range s.desires {
		d := &s.desires[i]
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
	return nil
}
