package agent

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
)

const (
	minRetry = 100 * time.Millisecond
	maxRetry = time.Second
	maxRest  = 3 * time.Second
	// listEvery has everything read that no event told of. listShare keeps
	// that below this part of the time, on hosts where it takes long.
	listEvery = 30 * time.Second
	listShare = 50
	// listSoon is how long Docker's word of a new network may be behind the
	// kernel's.
	listSoon = 300 * time.Millisecond
	// askAgain is after what time it is asked again whose a port is.
	askAgain = time.Second
	// inspectors is how many containers' sandboxes are asked for at a time.
	inspectors = 8
)

// observed is what the observer knows of the engine. It does not change after
// it was handed out.
type observed struct {
	view      docker.View
	fresh     map[string]uint64 // see endpoint.Observation
	sandboxes map[string]endpoint.Sandbox
	old       uint64
	complete  bool // everything was read at least once
	reads     int  // how often networks were read
	err       error

	at     time.Time // of the last reading that succeeded
	asking time.Time // since when an answer is waited for; zero if none is
	// others are the bridges, by ifindex, that had ports when everything was
	// read last, and are no network's.
	others map[int]bool
}

// observer keeps a view of the engine up to date, in a goroutine of its own, so
// that an engine that is slow to answer holds up nothing else.
type observer struct {
	engine *docker.Engine
	links  *link.Table
	log    *slog.Logger
	wakeup wake
	notify func() // tells the loop

	unmatched unmatched

	mu  sync.Mutex
	now observed
	// lacks is since when Docker does not list what the kernel has; zero if it
	// does.
	lacks time.Time
	// contests are the containers whose ports their MACs do not tell.
	contests map[string]bool
}

// contested notes whose ports their MACs do not tell, and asks for their namespaces.
func (o *observer) contested(endpoints []*endpoint.Endpoint) {
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
		o.wakeup.call()
	}
}

// waiting names the contested containers that do not run as far as is known, each time
// that it is due: only of one that runs the namespace may be asked for.
func (o *observer) waiting(v docker.View, now, due time.Time) docker.Hint {
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
func (o *observer) settle(ctx context.Context, known *observed, due time.Time) time.Time {
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
	known.sandboxes = maps.Clone(known.sandboxes)
	if known.sandboxes == nil {
		known.sandboxes = map[string]endpoint.Sandbox{}
	}
	maps.Copy(known.sandboxes, o.findSandboxes(ctx, known.view, seen, func(id string) bool { return contests[id] }))
	return time.Now().Add(askAgain)
}

// lacking notes since when Docker does not list what the kernel has. Everything is
// read again then: no event may tell.
func (o *observer) lacking(since time.Time) {
	o.mu.Lock()
	was := o.lacks
	o.lacks = since
	o.mu.Unlock()
	if was.IsZero() && !since.IsZero() {
		o.wakeup.call()
	}
}

// relist is when everything should be read for the sake of what Docker lacks, if
// it was last read then; zero if not. What lacks for long is asked for seldom.
func (o *observer) relist(last time.Time) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lacks.IsZero() {
		return time.Time{}
	}
	at := o.lacks.Add(heldFor)
	if !last.Before(at) {
		at = last.Add(max(minFailing, last.Sub(o.lacks)/2))
	}
	return at
}

// current returns what is known.
func (o *observer) current() observed {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now
}

// keep has others see it. The loop is told where it should act on it.
func (o *observer) keep(n observed) {
	o.mu.Lock()
	o.now = n
	o.mu.Unlock()
}

// run reads what hints name until ctx ends. Links must have been listed.
func (o *observer) run(ctx context.Context) error {
	known := observed{fresh: map[string]uint64{}, old: o.links.Seen()}
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
		hint.Merge(o.waiting(known.view, now, settled))
		list = earlier(list, o.relist(last))
		if soon := now.Add(listSoon); unknown(known, ports) && soon.Before(list) {
			list = soon
		}
		if !now.Before(list) {
			hint.Merge(docker.Hint{Full: true})
		}
		wait := time.Until(earlier(list, next))
		news := false
		if !hint.Empty() {
			began := time.Now()
			known.asking = began
			o.keep(known)
			read := o.read(ctx, known, hint)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case read.err != nil:
				if news = another(known.err, read.err); known.err == nil {
					o.log.Warn("docker cannot be read; what is enforced stays enforced", "error", read.err)
				}
				known.err = read.err
				// What takes long to fail may take the processor's time.
				wait = max(retry, min(time.Since(began), maxRest))
				retry = min(2*retry, maxRetry)
			default:
				known, retry, news = read, minRetry, true
				if hint.Full {
					last = time.Now()
					list = earlier(last.Add(max(listEvery, listShare*last.Sub(began))), o.relist(last))
				}
				wait = time.Until(earlier(list, next))
			}
			known.asking = time.Time{}
		}
		sandboxes := known.sandboxes
		if settled = o.settle(ctx, &known, settled); !settled.IsZero() {
			wait = min(wait, time.Until(settled))
			news = news || !maps.Equal(sandboxes, known.sandboxes)
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

func (o *observer) read(ctx context.Context, known observed, hint docker.Hint) observed {
	seen, ports, began := o.links.Seen(), o.links.Snapshot(), time.Now() // before the engine is asked
	view, err := o.engine.Refresh(ctx, hint)
	if err != nil {
		return observed{err: err}
	}
	next := observed{view: view, old: known.old, sandboxes: known.sandboxes, complete: known.complete || hint.Full, reads: known.reads,
		at: began, others: known.others}
	if hint.Full {
		next.others = others(view, ports)
	}
	if hint.Full || !sameNetworks(known.view, view) {
		next.reads++
	}
	next.fresh = make(map[string]uint64, len(view.Networks))
	for id := range view.Networks {
		_, named := hint.Networks[id]
		if next.fresh[id] = known.fresh[id]; hint.Full || named {
			next.fresh[id] = seen
		}
	}
	if !known.complete && next.complete {
		next.sandboxes = o.findSandboxes(ctx, view, known.old, func(string) bool { return true })
	}
	next.sandboxes = running(next.sandboxes, view)
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

// findSandboxes asks for the namespaces of the containers that run, of those that are
// meant, with the ports seen so far. At the beginning that is all: they ran unwatched
// until then, so what their MAC says proves nothing.
func (o *observer) findSandboxes(ctx context.Context, v docker.View, seen uint64, meant func(id string) bool) map[string]endpoint.Sandbox {
	out := map[string]endpoint.Sandbox{}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(inspectors)
	for id, c := range v.Containers {
		if !meant(id) || !c.Running() || c.SandboxOf != "" || c.NetworkMode == "host" || c.NetworkMode == "none" {
			continue
		}
		g.Go(func() error {
			nsid, err := o.sandbox(ctx, id)
			if err != nil {
				o.log.Warn("container's network namespace cannot be told; going by its MAC", "container", c.Name, "error", err)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			out[id] = endpoint.Sandbox{NSID: nsid, Seen: seen}
			return nil
		})
	}
	_ = g.Wait() // each one logs its own
	return out
}

func (o *observer) sandbox(ctx context.Context, id string) (int, error) {
	path, err := o.engine.Sandbox(ctx, id)
	if err != nil {
		return 0, err
	}
	return o.links.NSIDOf(path)
}

// running drops the sandboxes of containers that run no more: their next start
// has another one.
func running(sandboxes map[string]endpoint.Sandbox, v docker.View) map[string]endpoint.Sandbox {
	out := maps.Clone(sandboxes)
	maps.DeleteFunc(out, func(id string, _ endpoint.Sandbox) bool { return !v.Containers[id].Running() })
	return out
}
