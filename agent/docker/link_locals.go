package docker

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
)

// The link-local addresses that a container's creator gave it (docker run
// --link-local-ip) stand in no list: the engine tells of them where it is asked about the
// container alone, and not while the container starts. So they are asked for in the
// background, of those containers that may have some, and nobody waits for the answer.

const (
	// localsPatience is how long the first reading waits for them.
	localsPatience = 2 * time.Second
	// maxLinkLocals is how many count of an endpoint.
	maxLinkLocals = 32
)

// knownLocals is what was learnt of a container. The mutex of locals guards it.
type knownLocals struct {
	asked    string // see localsOf
	addrs    map[string][]netip.Addr
	err      error
	at       time.Time // of the answer
	answered bool
	done     chan struct{} // closed with the answer
}

// locals are the link-local addresses of containers, by ID.
type locals struct {
	mu    sync.Mutex
	known map[string]*knownLocals
	turns chan struct{}
}

func newLocals() *locals {
	return &locals{known: map[string]*knownLocals{}, turns: make(chan struct{}, inspectors)}
}

// LinkLocals are the link-local addresses that the container's creator gave it on a
// network, as far as is known.
func (c Container) LinkLocals(n Network) []netip.Addr {
	if all, ok := c.LocalAddrs[n.Name]; ok {
		return all
	}
	return c.LocalAddrs[n.ID]
}

// localsOf names the endpoints on which a container has addresses that were asked for,
// "" if there are none. Each endpoint is another one each time that it is made.
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
	var waiting []*knownLocals
	for id := range r.listed {
		if k := e.askLocals(ctx, r.client, r.Containers[id]); k != nil {
			waiting = append(waiting, k)
		}
	}
	if patience > 0 {
		enough := time.NewTimer(patience)
		defer enough.Stop()
		for over := false; len(waiting) > 0 && !over; waiting = waiting[1:] {
			select {
			case <-waiting[0].done:
			case <-enough.C:
				over = true
			case <-ctx.Done():
				over = true
			}
		}
	}
	l := e.locals
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range r.listed {
		c, ok := r.Containers[id]
		if !ok {
			continue
		}
		c.LocalAddrs = nil
		if k := l.known[id]; k != nil {
			c.LocalAddrs = k.addrs
		}
		r.Containers[id] = c
	}
	maps.DeleteFunc(l.known, func(id string, _ *knownLocals) bool { _, ok := r.Containers[id]; return !ok })
}

// askLocals asks in the background, unless the answer is known or asked for. It gives what
// to wait for, nil if nothing new comes.
func (e *Engine) askLocals(ctx context.Context, c *caller, of Container) *knownLocals {
	l := e.locals
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.known[of.ID]
	switch {
	case of.asked == "":
		delete(l.known, of.ID)
		return nil
	case old != nil && old.asked == of.asked && (!old.answered || old.err == nil || time.Since(old.at) < imageAgain):
		return nil
	}
	k := &knownLocals{asked: of.asked, done: make(chan struct{})}
	if old != nil {
		k.addrs = old.addrs // what was given stays while the endpoint is made anew
	}
	l.known[of.ID] = k
	go func() {
		addrs, err := l.turn(ctx, c, of.ID)
		l.mu.Lock()
		news := err == nil && !maps.EqualFunc(k.addrs, addrs, slices.Equal)
		if k.err, k.at, k.answered = err, time.Now(), true; err == nil {
			k.addrs = addrs
		}
		l.mu.Unlock()
		close(k.done)
		if news {
			e.hurry(map[string]struct{}{of.ID: {}})
		}
	}()
	return k
}

func (l *locals) turn(ctx context.Context, c *caller, id string) (map[string][]netip.Addr, error) {
	select {
	case l.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-l.turns }()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	i, err := c.ContainerInspect(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("inspect container %.12s: %w", id, err)
	}
	if i.ContainerJSONBase == nil || i.ID != id {
		return nil, fmt.Errorf("inspect container %.12s: %w: it is about another one", id, errWrongAnswer)
	}
	out := map[string][]netip.Addr{}
	if i.NetworkSettings == nil {
		return out, nil
	}
	for name, n := range i.NetworkSettings.Networks {
		if n == nil || n.IPAMConfig == nil {
			continue
		}
		for _, text := range n.IPAMConfig.LinkLocalIPs {
			// The engine takes any address. Others than these are no link's.
			if a := parseAddr(text).Unmap(); a.IsLinkLocalUnicast() && a.Zone() == "" && len(out[clip(name)]) < maxLinkLocals {
				out[clip(name)] = append(out[clip(name)], a)
			}
		}
	}
	return out, nil
}
