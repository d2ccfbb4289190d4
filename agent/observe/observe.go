// Package observe joins what Docker lists with the ports that the kernel has, into a Snapshot.
//
// A goroutine of its own asks Docker, so that an engine that answers slowly delays nothing
// else. It asks for what Docker's events name, and for what the last snapshot lacks: networks
// with ports that fit no endpoint, endpoints that Docker does not list, and the namespaces of
// containers whose MACs do not tell their ports. A snapshot does not change after it was handed
// out.
package observe

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/agent/pace"
)

const (
	minRetry = 100 * time.Millisecond
	maxRetry = time.Second
	maxRest  = 3 * time.Second
	// listEvery is how often everything is read, because Docker sends no event about some
	// changes. If that takes long, it is read less often: see listAfter.
	listEvery  = 30 * time.Second
	listRarely = 5 * time.Minute
	listShare  = 500
	listMost   = 50
	// listSoon is how much later than the kernel Docker may report a new network.
	listSoon = 300 * time.Millisecond
	// LackingFor is how long Docker may not list a container whose port is there: while a
	// container stops, Docker does not list it for a moment.
	LackingFor = 2 * time.Second
	// minAgain and maxAgain are the times between two readings of everything that happen because
	// Docker lacks something. The time is longer if a reading takes more than one part in
	// againShare of it.
	minAgain   = time.Second
	maxAgain   = 5 * time.Second
	againShare = 20
	// askAgain is the time between two questions about the namespace of one container.
	askAgain = time.Second
	// inspectors is how many containers' namespaces are asked for at a time.
	inspectors = 8
)

// listAfter is the pause before everything is read again. It is listShare times as long as the
// last reading took, but at least listEvery and at most listRarely. It is never shorter than
// listMost times the reading, even if that is longer than listRarely.
func listAfter(took time.Duration) time.Duration {
	return max(listEvery, min(listShare*took, listRarely), listMost*took)
}

// Engine is what the observer needs of Docker.
type Engine interface {
	// TakeHint takes what Docker's events named since the last call.
	TakeHint() docker.Hint
	// Refresh reads what a hint names, and gives all that is known then.
	Refresh(context.Context, docker.Hint) (docker.View, error)
	// Sandbox gives the path of the network namespace of a container that runs.
	Sandbox(ctx context.Context, container string) (string, error)
}

// Links is what the observer needs of the kernel.
type Links interface {
	// Take takes what changed since the last call, and gives what there is.
	Take() (link.Hint, link.View)
	// Snapshot gives the ports alone.
	Snapshot() []*link.Port
	// Seen is the highest number of a port (link.Port.Seen).
	Seen() uint64
	// NSIDOf gives this namespace's number for the namespace at a path.
	NSIDOf(path string) (int, error)
}

// Observer gives snapshots. Run asks Docker; Take, in another goroutine, gives what is known.
type Observer struct {
	// Wakeup makes Run look for something to ask.
	Wakeup pace.Wakeup

	engine Engine
	links  Links
	log    *slog.Logger
	clock  func() time.Time
	notify func() // wakes the caller of Take

	// What follows belongs to the goroutine of Run.
	known     Snapshot
	unmatched unmatched
	retry     time.Duration
	last      time.Time     // that everything was read
	took      time.Duration // how long that took
	list      time.Time     // when everything is read again
	settled   time.Time     // when contested ports are asked about again

	joiner joiner // belongs to the goroutine of Take

	mu  sync.Mutex // guards what follows
	now Snapshot
	wanted
}

// New returns an observer. It calls notify, which must not block, when there is something to
// act on.
func New(engine Engine, links Links, log *slog.Logger, clock func() time.Time, notify func()) *Observer {
	return &Observer{Wakeup: pace.NewWakeup(), engine: engine, links: links, log: log, clock: clock, notify: notify,
		retry: minRetry, joiner: joiner{bound: endpoint.NewBindings()}}
}

// Current returns what is known of Docker, without the ports.
func (o *Observer) Current() Snapshot {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now
}

// Take takes what the kernel reported about links since the last call, and gives what is known.
// It makes Run ask Docker for what is still missing. Only one goroutine may call it.
func (o *Observer) Take() (link.Hint, Snapshot) {
	s := o.Current() // before the ports: they may only be newer
	var hint link.Hint
	hint, s.Links = o.links.Take()
	was, lacked := o.joiner.last, len(o.joiner.unlisted)
	o.joiner.join(&s, o.clock())
	if slices.Equal(was, s.Joined) && lacked+len(s.Unlisted) == 0 {
		return hint, s
	}
	w := wants(&s)
	o.mu.Lock()
	news := w.news(o.wanted)
	o.wanted = w
	o.mu.Unlock()
	if news {
		o.Wakeup.Call()
	}
	return hint, s
}

// keep makes a snapshot the current one.
func (o *Observer) keep() {
	o.mu.Lock()
	o.now = o.known
	o.mu.Unlock()
}

// Run asks Docker until ctx ends. Links must have been listed.
func (o *Observer) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		timer := time.NewTimer(o.Turn(ctx).Sub(o.clock()))
		select {
		case <-ctx.Done():
		case <-o.Wakeup:
		case <-timer.C:
		}
		timer.Stop()
	}
	return ctx.Err()
}

// Turn asks Docker for what hints name and for what is due. It returns when the next turn is
// due. Only Run calls it, or a test instead of Run.
func (o *Observer) Turn(ctx context.Context) time.Time {
	known, now := &o.known, o.clock()
	if known.Fresh == nil { // the first turn
		known.Fresh, known.Old = map[string]uint64{}, o.links.Seen()
		o.last, o.list = now, now.Add(listEvery)
		o.keep()
	}
	hint := o.engine.TakeHint()
	ports := o.links.Snapshot()
	o.mu.Lock()
	wanted := o.wanted
	o.mu.Unlock()
	ask, next := o.unmatched.look(known, ports, now)
	hint.Merge(ask)
	if !now.Before(o.settled) {
		hint.Merge(wanted.waiting(known.View))
	}
	o.list = pace.Soonest(o.list, wanted.relist(o.last, o.took))
	if soon := now.Add(listSoon); unknown(*known, o.unmatched.byBridge) && soon.Before(o.list) {
		o.list = soon
	}
	if !now.Before(o.list) {
		hint.Merge(docker.Hint{Full: true})
	}
	news, sandboxes := false, known.Sandboxes
	if hint.Empty() {
		next = pace.Soonest(o.list, next)
	} else {
		known.Asking = now
		o.keep()
		read := o.read(ctx, hint)
		took := o.clock().Sub(now)
		switch {
		case ctx.Err() != nil:
			return now
		case read.Err != nil:
			if news = !sameError(known.Err, read.Err); known.Err == nil {
				o.log.Warn("docker cannot be read; what is enforced stays enforced", "error", read.Err)
			}
			known.Err = read.Err
			// A failure that took long may have used the processor all the time.
			next = o.clock().Add(max(o.retry, min(took, maxRest)))
			o.retry = min(2*o.retry, maxRetry)
		default:
			*known, o.retry, news = read, minRetry, true
			if hint.Full {
				o.last, o.took = now.Add(took), took
				o.list = pace.Soonest(o.last.Add(listAfter(took)), wanted.relist(o.last, took))
			}
			next = pace.Soonest(o.list, next)
		}
		known.Asking = time.Time{}
	}
	o.settle(ctx, wanted.contested)
	news = news || !maps.Equal(sandboxes, known.Sandboxes)
	if o.keep(); news {
		o.notify()
	}
	return pace.Soonest(next, o.settled)
}

// settle asks for the namespaces of contested containers, if that is due.
func (o *Observer) settle(ctx context.Context, contested map[string]bool) {
	if len(contested) == 0 {
		o.settled = time.Time{}
		return
	}
	if o.clock().Before(o.settled) {
		return
	}
	seen := o.links.Seen() // before the engine is asked
	sandboxes := maps.Clone(o.known.Sandboxes)
	if sandboxes == nil {
		sandboxes = map[string]endpoint.Sandbox{}
	}
	maps.Copy(sandboxes, o.findSandboxes(ctx, o.known.View, seen, func(id string) bool { return contested[id] }))
	o.known.Sandboxes, o.settled = sandboxes, o.clock().Add(askAgain)
}

// read asks Docker for what a hint names, and gives what is known then.
func (o *Observer) read(ctx context.Context, hint docker.Hint) Snapshot {
	known, seen, ports := &o.known, o.links.Seen(), o.links.Snapshot() // before the engine is asked
	view, err := o.engine.Refresh(ctx, hint)
	if err != nil {
		return Snapshot{Err: err}
	}
	next := Snapshot{View: view, Old: known.Old, Sandboxes: known.Sandboxes, Complete: known.Complete || hint.Full, Reads: known.Reads,
		At: known.Asking, others: known.others}
	if hint.Full {
		next.others = others(view, ports)
	}
	if hint.Full || !maps.EqualFunc(known.View.Networks, view.Networks, func(_, _ docker.Network) bool { return true }) { // one came or went
		next.Reads++
	}
	next.Fresh = make(map[string]uint64, len(view.Networks))
	for id := range view.Networks {
		_, named := hint.Networks[id]
		if next.Fresh[id] = known.Fresh[id]; hint.Full || named {
			next.Fresh[id] = seen
		}
	}
	if !known.Complete && next.Complete {
		next.Sandboxes = o.findSandboxes(ctx, view, known.Old, func(string) bool { return true })
	}
	next.Sandboxes = running(next.Sandboxes, known.View, view)
	return next
}
