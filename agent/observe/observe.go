// Package observe keeps what is known of the Docker engine up to date, and asks it about
// what the kernel has and the engine does not list. What it hands out does not change.
package observe

import (
	"context"
	"log/slog"
	"maps"
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
	// listEvery is how often everything is read, for what no event tells of. Where that
	// takes long it is read less often: see listAfter.
	listEvery  = 30 * time.Second
	listRarely = 5 * time.Minute
	listShare  = 500
	listMost   = 50
	// listSoon is how long Docker's word of a new network may be behind the
	// kernel's.
	listSoon = 300 * time.Millisecond
	// LackingFor is how long Docker may have forgotten a container whose port is there:
	// while one stops it does so for a moment.
	LackingFor = 2 * time.Second
	// minAgain is how often everything is read at most for the sake of what Docker lacks.
	minAgain = time.Second
	// askAgain is after what time it is asked again whose a port is.
	askAgain = time.Second
	// inspectors is how many containers' sandboxes are asked for at a time.
	inspectors = 8
)

// listAfter is how long after everything was read it is read again, by how long that took.
// It takes one part in listShare of the time, or more where that would be more seldom than
// listRarely, but never more than one part in listMost.
func listAfter(took time.Duration) time.Duration {
	return max(listEvery, min(listShare*took, listRarely), listMost*took)
}

// Observer keeps a view of the engine up to date, in a goroutine of its own, so
// that an engine that is slow to answer holds up nothing else.
type Observer struct {
	engine *docker.Engine
	links  *link.Table
	log    *slog.Logger
	wakeup pace.Wakeup
	notify func() // tells the loop

	unmatched unmatched

	mu  sync.Mutex
	now Snapshot
	// lacks is since when Docker does not list what the kernel has; zero if it
	// does.
	lacks time.Time
	// contests are the containers whose ports their MACs do not tell.
	contests map[string]bool
}

// Contested notes whose ports their MACs do not tell, and asks for their namespaces.
func (o *Observer) Contested(endpoints []*endpoint.Endpoint) {
	contests, news := map[string]bool{}, false
	for _, e := range endpoints {
		if e.Contested {
			contests[e.Key.Container] = true
		}
	}
	o.mu.Lock()
	for id := range contests {
		news = news || !o.contests[id]
	}
	o.contests = contests
	o.mu.Unlock()
	if news {
		o.wakeup.Call()
	}
}

// waiting names the contested containers that do not run as far as is known, each time
// that it is due: only of one that runs the namespace may be asked for.
func (o *Observer) waiting(v docker.View, now, due time.Time) docker.Hint {
	o.mu.Lock()
	defer o.mu.Unlock()
	h := docker.Hint{Containers: map[string]struct{}{}}
	for id := range o.contests {
		if !now.Before(due) && !v.Containers[id].Running() {
			h.Containers[id] = struct{}{}
		}
	}
	return h
}

// settle asks for the namespaces of containers whose ports are contested, each time
// that it is due, and tells when that is again.
func (o *Observer) settle(ctx context.Context, known *Snapshot, due time.Time) time.Time {
	o.mu.Lock()
	contests := o.contests
	o.mu.Unlock()
	now := time.Now()
	if len(contests) == 0 {
		return time.Time{}
	}
	if now.Before(due) {
		return due
	}
	seen := o.links.Seen() // before the engine is asked
	known.Sandboxes = maps.Clone(known.Sandboxes)
	if known.Sandboxes == nil {
		known.Sandboxes = map[string]endpoint.Sandbox{}
	}
	maps.Copy(known.Sandboxes, o.findSandboxes(ctx, known.View, seen, func(id string) bool { return contests[id] }))
	return time.Now().Add(askAgain)
}

// Lacking notes since when Docker does not list what the kernel has. Everything is
// read again then: no event may tell.
func (o *Observer) Lacking(since time.Time) {
	o.mu.Lock()
	was := o.lacks
	o.lacks = since
	o.mu.Unlock()
	if was.IsZero() && !since.IsZero() {
		o.wakeup.Call()
	}
}

// relist is when everything should be read for the sake of what Docker lacks, if
// it was last read then; zero if not. What lacks for long is asked for seldom.
func (o *Observer) relist(last time.Time) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lacks.IsZero() {
		return time.Time{}
	}
	at := o.lacks.Add(LackingFor)
	if !last.Before(at) {
		at = last.Add(max(minAgain, last.Sub(o.lacks)/2))
	}
	return at
}

// Current returns what is known.
func (o *Observer) Current() Snapshot {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now
}

// New returns an observer. Notify is called, and must not block, when there is something
// to act on.
func New(engine *docker.Engine, links *link.Table, log *slog.Logger, notify func()) *Observer {
	return &Observer{engine: engine, links: links, log: log, wakeup: pace.NewWakeup(), notify: notify}
}

// Wake has the observer look. It never blocks.
func (o *Observer) Wake() { o.wakeup.Call() }

// keep has others see it. The loop is told where it should act on it.
func (o *Observer) keep(n Snapshot) {
	o.mu.Lock()
	o.now = n
	o.mu.Unlock()
}

// Run reads what hints name until ctx ends. Links must have been listed.
func (o *Observer) Run(ctx context.Context) error {
	known := Snapshot{Fresh: map[string]uint64{}, Old: o.links.Seen()}
	o.keep(known)
	retry := minRetry
	last := time.Now() // that everything was read
	list := last.Add(listEvery)
	var settled time.Time
	for {
		hint := o.engine.TakeHint()
		ports := o.links.Snapshot()
		now := time.Now()
		ask, next := o.unmatched.look(&known, ports, now)
		hint.Merge(ask)
		hint.Merge(o.waiting(known.View, now, settled))
		list = pace.Soonest(list, o.relist(last))
		if soon := now.Add(listSoon); unknown(known, ports) && soon.Before(list) {
			list = soon
		}
		if !now.Before(list) {
			hint.Merge(docker.Hint{Full: true})
		}
		wait := time.Until(pace.Soonest(list, next))
		news := false
		if !hint.Empty() {
			began := time.Now()
			known.Asking = began
			o.keep(known)
			read := o.read(ctx, known, hint)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case read.Err != nil:
				if news = !sameError(known.Err, read.Err); known.Err == nil {
					o.log.Warn("docker cannot be read; what is enforced stays enforced", "error", read.Err)
				}
				known.Err = read.Err
				// What takes long to fail may take the processor's time.
				wait = max(retry, min(time.Since(began), maxRest))
				retry = min(2*retry, maxRetry)
			default:
				known, retry, news = read, minRetry, true
				if hint.Full {
					last = time.Now()
					list = pace.Soonest(last.Add(listAfter(last.Sub(began))), o.relist(last))
				}
				wait = time.Until(pace.Soonest(list, next))
			}
			known.Asking = time.Time{}
		}
		sandboxes := known.Sandboxes
		if settled = o.settle(ctx, &known, settled); !settled.IsZero() {
			wait = min(wait, time.Until(settled))
			news = news || !maps.Equal(sandboxes, known.Sandboxes)
		}
		if o.keep(known); news {
			o.notify()
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-o.wakeup:
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (o *Observer) read(ctx context.Context, known Snapshot, hint docker.Hint) Snapshot {
	seen, ports, began := o.links.Seen(), o.links.Snapshot(), time.Now() // before the engine is asked
	view, err := o.engine.Refresh(ctx, hint)
	if err != nil {
		return Snapshot{Err: err}
	}
	next := Snapshot{View: view, Old: known.Old, Sandboxes: known.Sandboxes, Complete: known.Complete || hint.Full, Reads: known.Reads,
		At: began, others: known.others}
	if hint.Full {
		next.others = others(view, ports)
	}
	if hint.Full || !sameNetworks(known.View, view) {
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
	next.Sandboxes = running(next.Sandboxes, view)
	return next
}

// sameNetworks tells whether no network came or went.
func sameNetworks(a, b docker.View) bool {
	if len(a.Networks) != len(b.Networks) {
		return false
	}
	for id := range a.Networks {
		if _, ok := b.Networks[id]; !ok {
			return false
		}
	}
	return true
}
