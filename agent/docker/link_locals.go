package docker

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
)

// A container's creator can give it link-local addresses (docker run --link-local-ip). They
// stand in no list of the engine's. Only an inspection of the container gives them, and the
// engine does not answer one while the container starts. So the agent inspects in the
// background, and only containers that may have such addresses. Only the first reading waits a
// moment.

const (
	// localsPatience is how long the first reading waits for them.
	localsPatience = 2 * time.Second
	// maxLinkLocals is how many count of an endpoint.
	maxLinkLocals = 32
)

// locals are the link-local addresses of one container, by network.
type locals = map[string][]netip.Addr

// LinkLocals are the link-local addresses that the container's creator gave it on a
// network, as far as is known.
func (c Container) LinkLocals(n Network) []netip.Addr {
	if all, ok := c.LocalAddrs[n.Name]; ok {
		return all
	}
	return c.LocalAddrs[n.ID]
}

// localsOf names the endpoints for which the creator asked for addresses; "" if there are none.
// An endpoint that is made again has a new ID, so the result differs then.
func localsOf(s container.Summary) string {
	if s.NetworkSettings == nil {
		return ""
	}
	var all []string
	for name, n := range s.NetworkSettings.Networks {
		if n != nil && n.IPAMConfig != nil {
			all = append(all, fmt.Sprintf("%q %q", clip(name), clip(n.EndpointID)))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// locate asks for the addresses of containers that were just read, and gives them what is
// known.
func (e *Engine) locate(ctx context.Context, r *reader, patience time.Duration) {
	var waiting []*answer[locals]
	for id, c := range r.read {
		if c == nil || c.asked == "" {
			continue
		}
		k := e.locals.ask(ctx, id, c.asked, func(ctx context.Context) (locals, error) {
			return r.client.linkLocals(ctx, id)
		}, func(k *answer[locals], before locals) {
			if !maps.EqualFunc(k.value, before, slices.Equal) {
				e.hurry(map[string]struct{}{id: {}})
			}
		})
		if k != nil {
			waiting = append(waiting, k)
		}
	}
	await(ctx, waiting, patience)
	e.locals.keep(func(id string) bool { c := r.now(id); return c != nil && c.asked != "" })
	e.locals.mu.Lock()
	defer e.locals.mu.Unlock()
	for id, c := range r.read {
		if k := e.locals.known[id]; c != nil && k != nil {
			c.LocalAddrs = k.value
		}
	}
}

// linkLocals asks the engine for the link-local addresses of a container.
func (c *caller) linkLocals(ctx context.Context, id string) (locals, error) {
	i, err := c.ContainerInspect(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("inspect container %.12s: %w", id, err)
	}
	if i.ContainerJSONBase == nil || i.ID != id {
		return nil, fmt.Errorf("inspect container %.12s: %w: it is about another one", id, errWrongAnswer)
	}
	out := locals{}
	if i.NetworkSettings == nil {
		return out, nil
	}
	for name, n := range i.NetworkSettings.Networks {
		if n == nil || n.IPAMConfig == nil {
			continue
		}
		for _, text := range n.IPAMConfig.LinkLocalIPs {
			// The engine takes any address. Only link-local ones count here.
			if a := parseAddr(text).Unmap(); a.IsLinkLocalUnicast() && a.Zone() == "" && len(out[clip(name)]) < maxLinkLocals {
				out[clip(name)] = append(out[clip(name)], a)
			}
		}
	}
	return out, nil
}
