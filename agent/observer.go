package agent

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"netguard/agent/docker"
	"netguard/agent/link"
)

const (
	minRetry = 100 * time.Millisecond
	maxRetry = 5 * time.Second
	// inspectors is how many containers' sandboxes are asked for at a time.
	inspectors = 8
)

// observed is what the observer knows of the engine. It does not change after
// it was handed out.
type observed struct {
	view      docker.View
	fresh     map[string]uint64 // see endpoint.Observation
	sandboxes map[string]int
	old       uint64
	complete  bool // everything was read at least once
	reads     int  // how often networks were read
	err       error
}

// observer keeps a view of the engine up to date, in a goroutine of its own, so
// that an engine that is slow to answer holds up nothing else.
type observer struct {
	engine *docker.Engine
	links  *link.Table
	log    *slog.Logger
	wakeup wake
	notify func() // tells the loop

	mu  sync.Mutex
	now observed
}

// current returns what is known.
func (o *observer) current() observed {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now
}

func (o *observer) set(n observed) {
	o.mu.Lock()
	o.now = n
	o.mu.Unlock()
	o.notify()
}

// run reads what hints name until ctx ends. Links must have been listed.
func (o *observer) run(ctx context.Context) error {
	known := observed{fresh: map[string]uint64{}, old: o.links.Seen()}
	o.set(known)
	retry := minRetry
	for {
		hint := o.engine.TakeHint()
		hint.Merge(strangers(known, o.links.Snapshot()))
		var again <-chan time.Time
		if !hint.Empty() {
			if next := o.read(ctx, known, hint); next.err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if known.err == nil {
					o.log.Warn("docker cannot be read; what is enforced stays enforced", "error", next.err)
				}
				known.err = next.err
				again, retry = time.After(retry), min(2*retry, maxRetry)
			} else {
				known, retry = next, minRetry
			}
		}
		o.set(known)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-o.wakeup:
		case <-again:
		}
	}
}

// strangers names the networks on whose bridge a port came up after they were
// read: netlink often knows before Docker tells.
func strangers(known observed, ports []link.Port) docker.Hint {
	byBridge := map[string]string{}
	for id, n := range known.view.Networks {
		if n.Bridge != "" {
			byBridge[n.Bridge] = id
		}
	}
	h := docker.Hint{Networks: map[string]struct{}{}}
	for _, p := range ports {
		if id, ok := byBridge[p.MasterName]; ok && p.Seen > known.fresh[id] {
			h.Networks[id] = struct{}{}
		}
	}
	return h
}

func (o *observer) read(ctx context.Context, known observed, hint docker.Hint) observed {
	seen := o.links.Seen() // before the engine is asked
	view, err := o.engine.Refresh(ctx, hint)
	if err != nil {
		return observed{err: err}
	}
	next := observed{view: view, old: known.old, sandboxes: known.sandboxes, complete: known.complete || hint.Full, reads: known.reads}
	if hint.Full || len(hint.Networks) > 0 {
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
		next.sandboxes = o.findSandboxes(ctx, view)
	}
	next.sandboxes = running(next.sandboxes, view)
	return next
}

// findSandboxes asks for the namespaces of the containers that run: they ran
// unwatched until now, so what their MAC says proves nothing.
func (o *observer) findSandboxes(ctx context.Context, v docker.View) map[string]int {
	out := map[string]int{}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(inspectors)
	for id, c := range v.Containers {
		if !c.Running() || c.SandboxOf != "" || c.NetworkMode == "host" || c.NetworkMode == "none" {
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
			out[id] = nsid
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
func running(sandboxes map[string]int, v docker.View) map[string]int {
	out := maps.Clone(sandboxes)
	maps.DeleteFunc(out, func(id string, _ int) bool { return !v.Containers[id].Running() })
	return out
}
