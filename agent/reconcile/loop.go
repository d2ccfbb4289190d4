package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"netguard/agent/config"
	"netguard/agent/desired"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/agent/pace"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/shaper"
)

const (
	// verifyEvery is the longest time between two turns of the loop.
	verifyEvery = 30 * time.Second
	// ahead is how much too early a regular check may begin, so that one turn does several
	// checks: to wake a sleeping process costs something each time.
	ahead = 300 * time.Millisecond
	// verifySoon gathers the kernel's messages about one change, netguard's own
	// among them, before the kernel is read.
	verifySoon = 100 * time.Millisecond
	// verifyShare limits reading the kernel to one part in verifyShare of the time, on hosts
	// where it takes long.
	verifyShare = 10
	// The first retry after a failure waits minFailing. The wait grows up to maxFailing.
	minFailing = time.Second
	maxFailing = 30 * time.Second
)

// Parts are what a loop works with.
type Parts struct {
	Log         *slog.Logger
	Shape       ShapePlane
	Guard       GuardPlane
	Policy      PolicyPlane
	Connections Connections
	Links       Links
	Notices     Notices
	BootCache   *bootCache
	Config      func() *config.Config
	Catalog     func() *netpolicy.Catalog
	Monitor     bool // what is refused is counted and passes
	Clock       func() time.Time
}

// Loop is the one goroutine that writes to the kernel.
type Loop struct {
	Parts
	log      *slog.Logger
	now      func() time.Time
	builder  *desired.Builder
	observer Observer
	alerts   Alerts
	routes   routes

	shaping  *shaping
	policing *policing
	guarding *guarding
	handover handover
	// admitted are the ports that the guard admitted, by link.Port.Seen. They stay admitted
	// when a later change fails.
	admitted map[uint64]bool
	// granted are the ports that the last admitAll admits, and that the guard has not opened yet.
	granted     []*link.Port
	judged      []*desired.Endpoint // the endpoints of the last admitAll
	endpointLog endpointLog

	asks   chan func()
	ended  chan struct{} // closed when Run returns
	wakeup pace.Wakeup
	// last are the inputs of the last pass; nil makes the next turn a pass. again is when time
	// alone makes a pass due: see recheck.
	last  *desired.Inputs
	again time.Time
	reads int  // Snapshot.Reads at the last turn
	over  bool // Stop was called

	state atomic.Pointer[State]
}

// Alerts reports frames that were refused. The loop calls it in its own goroutine.
type Alerts interface {
	// Next is when to look.
	Next() time.Time
	// Look reports what is new.
	Look(now time.Time, s *State)
}

// NewLoop gives a loop that has done nothing.
func NewLoop(p Parts) *Loop {
	mode := guard.Enforce
	if p.Monitor {
		mode = guard.Monitor
	}
	l := &Loop{Parts: p, log: p.Log, now: p.Clock, builder: desired.NewBuilder(), wakeup: pace.NewWakeup(), asks: make(chan func()), ended: make(chan struct{}),
		admitted: map[uint64]bool{}, endpointLog: endpointLog{log: p.Log, last: map[endpoint.Key]string{}},
		routes:   routes{ask: p.Links.RouteTo, own: p.Links.Addresses, now: p.Clock},
		policing: newPolicing(p.Log, p.Policy, p.Connections, p.Clock),
		guarding: newGuarding(p.Log, p.Guard, mode, p.Clock)}
	l.policing.monitor, l.builder.Monitor = p.Monitor, p.Monitor
	l.builder.Route, l.builder.Earlier = l.routes.to, p.Guard.Earlier
	l.shaping = newShaping(p.Log, p.Shape, func(index int) bool {
		_, err := p.Links.Resolve(index)
		return errors.Is(err, link.ErrNotFound)
	}, p.Clock)
	return l
}

// Observes sets the source of what is known of Docker and of links. Call it before Run.
func (l *Loop) Observes(o Observer) { l.observer = o }

// Alerted sets what reports refused frames. Call it before Run.
func (l *Loop) Alerted(a Alerts) { l.alerts = a }

// Shapes says which queues the kernel has for limits. Call it before Run.
func (l *Loop) Shapes(leaf shaper.Leaf) { l.builder.Leaf = leaf }

// Wake makes the loop check whether there is something to do. It never blocks.
func (l *Loop) Wake() { l.wakeup.Call() }

// State is what the last turn came to; nil before the first.
func (l *Loop) State() *State { return l.state.Load() }

// Stop ends all writing. Like Anew, it may be called only by a function of Ask.
func (l *Loop) Stop() { l.over = true }

// Anew makes the loop compare everything with the kernel and write it, as at the start. But
// what was admitted stays admitted.
func (l *Loop) Anew() {
	l.last = nil
	l.policing.anew()
	l.guarding.anew()
	l.shaping.anew()
	l.BootCache.forgotten()
}

// Run reconciles until ctx ends. What is in the kernel stays there. It can be called once.
func (l *Loop) Run(ctx context.Context) error {
	defer close(l.ended)
	for {
		l.turn(ctx)
		if l.contested() {
			l.breathe(ctx)
		}
		timer := time.NewTimer(l.next().Sub(l.now()))
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

// breathe waits a moment, in which the loop only answers Ask. Otherwise a program that undoes
// netguard's work could cause one pass after the other.
func (l *Loop) breathe(ctx context.Context) {
	for enough := time.After(contentionPause); ; {
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

// Ask runs f in the loop's goroutine, which owns the drivers. Where f writes to the kernel, it
// calls Stop or Anew. The error says that f did not run: ctx ended, or Run.
func (l *Loop) Ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case l.asks <- func() { f(); close(done) }:
		<-done
		return nil
	case <-l.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errEnded = errors.New("the agent has ended its work")

// GuardLook is what the guard still has to check. Only a function of Ask may call it.
func (l *Loop) GuardLook() guard.Look { return l.guarding.look }

// next is when the next turn is due if nothing wakes the loop before.
func (l *Loop) next() time.Time {
	at := pace.Soonest(l.now().Add(verifyEvery), l.again)
	switch {
	case l.over || l.last == nil:
		return at
	case l.last.Seen.Complete:
		return pace.Soonest(at, l.shaping.next(), l.policing.next(), l.guarding.next(), l.alerts.Next())
	case l.holding():
		return pace.Soonest(at, l.guarding.next())
	}
	return at
}

// turn does what is due: a pass if the inputs differ from those of the last pass, otherwise
// only checks of the kernel.
func (l *Loop) turn(ctx context.Context) {
	if l.over {
		return
	}
	if s := l.state.Load(); s != nil && l.listed(s.Want) {
		l.last = nil // somebody may be admitted
	}
	in := l.inputs()
	anew := l.last == nil || !l.again.IsZero() && !l.now().Before(l.again)
	if anew || !in.Same(l.last) {
		l.last, l.again = &in, time.Time{}
		l.pass(ctx, in, anew)
	} else if in.Seen.Complete {
		l.keep(ctx)
	} else if l.holding() {
		l.keepHold()
	}
	if s := l.state.Load(); s != nil && s.Want.Seen.Complete && !l.now().Before(l.alerts.Next()) {
		l.alerts.Look(l.now(), s)
	}
}

// inputs takes what is known of Docker and of the kernel. It passes the kernel's reports on to
// guarding, shaping and policing.
func (l *Loop) inputs() desired.Inputs {
	hint, seen := l.observer.Take()
	l.guarding.hear(hint)
	l.shaping.hear(hint)
	for name, index := range seen.Links.Bridges {
		if _, named := hint.Links[index]; named || hint.Full {
			l.policing.bridges.touched(name)
		}
	}
	if changed, by := l.Notices.Rules(); changed || seen.Reads != l.reads {
		// Docker writes its chains again when a network is made, and when Docker starts.
		l.reads = seen.Reads
		l.policing.soon(by)
	}
	if l.Notices.Guard() {
		l.guarding.hints.Wake()
	}
	return desired.Inputs{Seen: seen, Config: l.Config(), Catalog: l.Catalog(), Before: l.BootCache.view, Now: l.now()}
}
