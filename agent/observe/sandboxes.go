package observe

import (
	"context"
	"maps"
	"sync"

	"golang.org/x/sync/errgroup"

	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/internal/changed"
)

// findSandboxes asks for the network namespaces of those running containers that are meant. seen
// is the newest port (link.Port.Seen) before it asks. At the start all containers are meant: they
// ran unwatched until then, so their MACs prove nothing.
func (o *Observer) findSandboxes(ctx context.Context, v docker.View, seen uint64, meant func(id string) bool) map[string]endpoint.Sandbox {
	out := map[string]endpoint.Sandbox{}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(inspectors)
	for _, c := range v.Containers {
		id := c.ID
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

func (o *Observer) sandbox(ctx context.Context, id string) (int, error) {
	path, err := o.engine.Sandbox(ctx, id)
	if err != nil {
		return 0, err
	}
	return o.links.NSIDOf(path)
}

// running drops the sandboxes of containers that no longer run: at their next start they get
// another one.
func running(sandboxes map[string]endpoint.Sandbox, was, is docker.View) map[string]endpoint.Sandbox {
	out := sandboxes // the same map, so that it is seen at once that nothing changed
	others, _ := changed.Between(was.Containers, is.Containers)
	for _, c := range others {
		if _, asked := out[c.ID]; asked && !is.Container(c.ID).Running() {
			if len(out) == len(sandboxes) {
				out = maps.Clone(sandboxes)
			}
			delete(out, c.ID)
		}
	}
	return out
}
