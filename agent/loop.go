package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/agent/observe"
	"netguard/agent/pace"
	"netguard/netpolicy/guard"
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
)

// loop is the one goroutine that writes to the kernel.
type loop struct {
	log      *slog.Logger
	driver   *tc.Driver // of shaping
	shaping  *shaping
	features tc.Features // set before run
	links    *link.Table
	observer *observe.Observer
	settings *settings
	policies *policies
	police   *police
	sentry   *sentry
	alerts   *alerts
	tables   *tables
	memory   *memory
	asks     chan func()
	routes   routes
	wakeup   pace.Wakeup

	holder *holder
	bound  endpoint.Bindings
	drafts drafts
	// decided are the desires as they were compiled last.
	decided settled
	// admitted are the ports that all rules were in the kernel for, by
	// link.Port.Seen: they stay so when a later change fails.
	admitted map[uint64]bool
	told     map[endpoint.Key]*tale // what was logged last about an endpoint
	round    uint64                 // of tell
	ground   []string               // what was logged last about ports of bridges
	taking   taking
	// handover is what the addresses of containers that are gone leave behind.
	handover handover
	locals   linkLocals
	reads    int // of observed, at the last pass
	// last is what the last pass worked from, again when one is due that nobody asks for.
	last  *inputs
	again time.Time
	over  bool // nothing is to be written any more

	state atomic.Pointer[state]
}

// state is what the last pass came to.
type state struct {
	desires  []*desire
	errs     map[endpoint.Key]error // why the kernel could not be brought to it
	unread   map[endpoint.Key]bool  // limits that were changed since they were read
	observed observe.Snapshot
	held     map[endpoint.Key]time.Time
	policing *policing
	guarding guard.Report
	guardErr error
	// keeping is what keeps packets as they were judged.
	keeping string
	// admission is what holds of it, "" while nothing was written.
	admission string
	fights    []string // findings
	ground    []string // findings about the bridges' ports
	unknown   []link.Port
	here      site
}

func newLoop(log *slog.Logger, driver *tc.Driver, links *link.Table, s *settings) *loop {
	return &loop{log: log, driver: driver, links: links, settings: s, holder: &holder{log: log},
		wakeup: pace.NewWakeup(), bound: endpoint.NewBindings(), told: map[endpoint.Key]*tale{}, admitted: map[uint64]bool{}, asks: make(chan func()),
		shaping: newShaping(log, driver, func(index int) bool { _, err := links.Resolve(index); return errors.Is(err, link.ErrNotFound) }),
		routes:  routes{ask: links.RouteTo, own: links.Addresses}}
}

// observes says who tells of the engine. It is called before run.
func (l *loop) observes(o *observe.Observer) { l.observer, l.holder.tell = o, o.Lacking }

// run reconciles until ctx ends. What is in the kernel stays there.
func (l *loop) run(ctx context.Context) error {
	for {
		l.pass(ctx)
		if l.fighting() {
			l.breathe(ctx)
		}
		at := time.Now().Add(verifyEvery)
		if next := l.shaping.next(); !next.IsZero() && next.Before(at) {
			at = next
		}
		for _, next := range []time.Time{l.police.next(), l.sentry.at} {
			if next.Before(at) {
				at = next
			}
		}
		at = pace.Soonest(pace.Soonest(at, l.alerts.next), l.again)
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
			l.last = nil // it may have changed anything
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
			l.last = nil
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
		later := time.Now().Add(verifyEvery)
		l.police.at, l.police.cut, l.sentry.at, l.alerts.next = later, time.Time{}, later, later
		l.shaping.begun = false
		return
	}
	seen := l.observer.Current() // before the ports: they may only be newer
	hint := l.links.TakeHint()
	l.hear(hint)
	if changed, by := l.tables.takeRules(); changed || seen.Reads != l.reads {
		// Docker writes its chains anew when a network comes, or it starts.
		l.reads = seen.Reads
		l.police.soon(by)
	}
	now, in := time.Now(), l.inputs(seen)
	if l.last != nil && in.same(l.last) {
		if l.tables.takeGuard() || !hint.Empty() {
			l.again = pace.Soonest(now.Add(hintGather), l.again)
		}
		if !l.due(now) {
			l.alert(now, l.state.Load())
			return
		}
	}
	l.tables.takeGuard() // this pass looks
	l.last, l.again = &in, time.Time{}
	ports, cfg := in.ports, in.cfg
	seen.View = trusting(l.holder.view(seen.View, ports), cfg.TrustImageLabels)
	l.police.networks = allOf(seen.View)
	op := endpoint.Operator{Exclude: cfg.Exclude, AllowOptOut: cfg.AllowOptOut}
	ground := site{ports: ports, op: *cfg, devices: in.devices, watches: l.sentry.mode == guard.Monitor}
	ground.own = hostPorts(ports, ground.devices, cfg.Uplinks)
	op.Left = l.left(seen, op, ground, in.bridges)
	endpoints := endpoint.Join(endpoint.Observation{View: seen.View, Ports: ports, Fresh: seen.Fresh,
		Sandboxes: seen.Sandboxes, Now: time.Now()}, op, l.bound)
	l.observer.Contested(endpoints)
	l.holder.joined(endpoints)
	s := &state{desires: l.drafts.desired(endpoints, cfg, l.features.Leaf), errs: map[endpoint.Key]error{}, unread: map[endpoint.Key]bool{}, observed: seen, held: l.holder.held}
	if seen.Complete { // before that nobody knows whose the ports are
		l.memory.keep(seen.View, seen.Reads)
		here := ground
		here.managed = managedBridges(seen.View, in.bridges, op)
		l.sentry.quarantine(here) // before anything that takes long
		words := extras{cfg.Claims, l.routes.to, in.bridges, ground.own}
		s.desires = copies(s.desires)
		words.decide(s.desires)
		if err := l.locals.decide(s.desires, words); err != nil {
			l.log.Error("link-local addresses of containers do not count: the guard's table cannot be read", "error", err)
		}
		changed := l.decided.settle(s.desires)
		l.police.swarm = swarmPort(seen.View, *cfg)
		l.police.compile(in.catalog, s.desires, len(cfg.Claims) > 0 || l.locals.ever)
		l.sentry.policed = l.sentry.policed || l.police.ruling.any()
		shut := l.police.ruling.shut(s.desires)
		l.sentry.shut(here, shut)
		l.police.pass(ctx)
		l.handOver(ctx, s.desires, changed)
		s.policing = l.police.result()
		s.desires = l.narrowed(s.desires, s.policing.ruling, cfg)
		l.shaping.apply(s.desires, ports, seen.Old)
		watched := watch(s.desires, here, func(d *desire) verdict { return l.admit(d, s.policing) })
		l.sentry.apply(here, l.sentry.shutting(watched, shut, l.police.holds), elsewhere(s.desires))
		if l.police.after(ctx, &l.handover) {
			l.last = nil // there is more to do, or to tell
			l.wakeup.Call()
		}
		now = time.Now()
		s.guarding = l.sentry.report
		s.unknown = here.unknownPorts(s.desires, seen, now)
		s.here = here
		s.ground = here.findings(op.Left, s.unknown)
		l.tellGround(s.ground)
		s.guardErr = l.sentry.err
		s.keeping = l.sentry.keeping()
		s.fights = l.fightFindings()
	} else {
		l.police.at = time.Now().Add(verifyEvery)
		l.sentry.at = l.police.at
		here := ground
		here.managed = managedBridges(l.memory.view, in.bridges, op)
		if !cfg.AdmissionOpen && l.memory.holds(here.others(), here.managed, leftBy(l.sentry.driver, func(e guard.Earlier) bool { return e.Fresh })) {
			l.sentry.hold(here)
		}
	}
	for i := range s.desires {
		if d := s.desires[i]; d.Port != nil && d.Unmanaged == "" {
			if err := l.shaping.fault(d.Port.Seen); err != nil {
				s.errs[d.Key] = err
			}
			if l.shaping.unread(d.Port) {
				s.unread[d.Key] = true
			}
		}
	}
	s.admission = l.sentry.admission
	l.tell(s)
	l.state.Store(s)
	l.again = l.recheck(now, s, ports)
	l.alert(now, s)
}

// due tells whether a part of a pass is due though nothing changed that is known.
func (l *loop) due(now time.Time) bool {
	shaping := l.shaping.next()
	return !shaping.IsZero() && !now.Before(shaping) || !now.Before(l.police.next()) || !now.Before(l.sentry.at) ||
		!l.again.IsZero() && !now.Before(l.again)
}

// alert tells of frames that were refused since the last time, when it is time.
func (l *loop) alert(now time.Time, s *state) {
	if s != nil && s.observed.Complete && !now.Before(l.alerts.next) {
		l.alerts.pass(now, s.desires, s.here.lasting(s.desires, s.unknown, s.guarding, now))
	}
}

// hear has looked at what the kernel told of.
func (l *loop) hear(h link.Hint) {
	l.sentry.hear(h)
	l.shaping.hear(h)
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
