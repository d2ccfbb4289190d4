package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/sync/errgroup"

	"netguard/internal/changed"
)

const (
	// inspectors is how many networks are inspected at a time.
	inspectors = 4

	defaultFirewall = "iptables"

	defaultDataPort = 4789
)

var (
	errWrongAnswer = errors.New("docker engine's answer is wrong")
	errNoNetworks  = fmt.Errorf("list networks: %w: it lists none", errWrongAnswer)
)

// Refresh reads what the hint names and returns the view with it. After an error the view is
// the last good one, and the next TakeHint names the same things again. It is no error if a
// container or network does not exist any more: the view lacks it then.
func (e *Engine) Refresh(ctx context.Context, h Hint) (View, error) {
	e.reading.Lock()
	defer e.reading.Unlock()
	v := e.View()
	if h.Empty() {
		return v, nil
	}
	next, err := e.read(ctx, v, h)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.hint.Merge(h)
		return v, err
	}
	e.view = next
	return next, nil
}

func (e *Engine) read(ctx context.Context, v View, h Hint) (View, error) {
	c, err := e.connected(ctx)
	if err != nil {
		return v, err
	}
	r := reader{client: c, View: v, before: v, read: map[string]*Container{}, members: e.members}
	if !h.Full {
		if err := r.named(ctx, h); err != nil {
			return r.View, err
		}
		e.prove(ctx, &r, imagePatience)
		e.locate(ctx, &r, 0)
		r.keep()
		return r.View, nil
	}
	if !e.told.Load() || v.InSwarm() && v.DataPort == 0 { // once a connection, or until a Swarm's port is known: /info asks storage drivers
		if err := r.about(ctx); err != nil {
			// No reason to be blind: the next full reading asks again.
			e.log.Warn("docker engine does not tell its version and firewall", "error", err)
		} else {
			e.told.Store(true)
		}
	}
	if err := r.all(ctx); err != nil {
		return r.View, err
	}
	patience, forLocals := imagePatience, time.Duration(0)
	if len(v.Networks) == 0 {
		patience, forLocals = firstImagePatience, localsPatience
	}
	e.prove(ctx, &r, patience)
	e.locate(ctx, &r, forLocals)
	used := map[imageKey]bool{}
	for _, c := range r.read {
		if c != nil {
			used[c.image.imageKey] = true
		}
	}
	e.images.keep(func(k imageKey) bool { return used[k] })
	r.keep()
	return r.View, nil
}

// reader makes a new view from the one before. That one was handed out, so it does not change.
type reader struct {
	View
	before  View
	client  *caller
	members map[string]*members // by network
	ownNets bool                // Networks is a map of its own
	// read are the containers that were read, and those that share resolves again. A container
	// that the engine does not list is nil.
	read map[string]*Container
}

// now gives a container as it was read last; nil if there is none.
func (r *reader) now(id string) *Container {
	if c, read := r.read[id]; read {
		return c
	}
	return r.before.Container(id)
}

// keep reuses the values of the view before, where a new reading brought no change. So the two
// views are quick to compare: most pointers are equal.
func (r *reader) keep() {
	if !r.InSwarm() {
		r.DataPort = 0 // the next Swarm may have another one
	}
	sharing := make(map[string]*Container, len(r.read))
	for id, c := range r.read {
		if was := r.before.Container(id); was != nil && c != nil && was.Same(c) {
			r.read[id] = was
		}
		if sharing[id] = nil; c != nil && c.shares() {
			sharing[id] = r.read[id]
		}
	}
	r.Containers, r.sharing = changed.With(r.before.Containers, r.read), changed.With(r.before.sharing, sharing)
	if !r.ownNets {
		return
	}
	others := len(r.Networks) != len(r.before.Networks)
	for id, n := range r.Networks {
		if was, known := r.before.Networks[id]; known && was.Same(&n) && was.SameEndpoints(&n) {
			r.Networks[id] = was
		} else {
			others = true
		}
	}
	if !others {
		r.Networks = r.before.Networks
	}
}

// about reads the engine's version, its firewall and Swarm's data port.
func (r *reader) about(ctx context.Context) error {
	i, err := r.client.info(ctx)
	if err != nil {
		return err
	}
	r.Version = i.ServerVersion
	r.Firewall = defaultFirewall
	if r.DataPort = 0; i.Swarm.LocalNodeState == swarm.LocalNodeStateActive {
		r.DataPort = defaultDataPort
		if c := i.Swarm.Cluster; c != nil && c.DataPathPort > 0 && c.DataPathPort < 1<<16 { // managers know
			r.DataPort = uint16(c.DataPathPort)
		}
	}
	if i.FirewallBackend != nil && i.FirewallBackend.Driver != "" {
		// "iptables+firewalld" filters with iptables.
		r.Firewall, _, _ = strings.Cut(i.FirewallBackend.Driver, "+")
	}
	return nil
}

// all reads everything. It reads containers first: one that a network names and the list lacks
// is new. What was known and is in no list is asked for by ID: a list with a gap must not take
// anybody's rules away.
func (r *reader) all(ctx context.Context) error {
	if err := r.containers(ctx, nil); err != nil {
		return err
	}
	ctx2, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := r.client.NetworkList(ctx2, network.ListOptions{})
	if err != nil {
		return fmt.Errorf("list networks: %w", err)
	}
	if len(list) == 0 {
		return errNoNetworks // not even host and none, which every engine has
	}
	ids := make(map[string]struct{}, len(list))
	for _, n := range list {
		ids[n.ID] = struct{}{}
	}
	for id := range r.before.Networks {
		ids[id] = struct{}{}
	}
	r.Networks, r.ownNets = make(map[string]Network, len(list)), true
	if err := r.networks(ctx, ids); err != nil {
		return err
	}
	if err := r.strangers(ctx, ids, nil); err != nil {
		return err
	}
	r.share()
	return r.gone(ctx)
}

// named reads what a hint names. Networks come first: they are the urgent part.
func (r *reader) named(ctx context.Context, h Hint) error {
	if err := r.networks(ctx, h.Networks); err != nil {
		return err
	}
	if len(h.Containers) > 0 {
		if err := r.containers(ctx, h.Containers); err != nil {
			return err
		}
	}
	if err := r.strangers(ctx, h.Networks, h.Containers); err != nil {
		return err
	}
	r.share()
	return r.gone(ctx)
}

// networks inspects networks and puts them in the view, or takes them out.
func (r *reader) networks(ctx context.Context, ids map[string]struct{}) error {
	if len(ids) == 0 {
		return nil
	}
	if !r.ownNets {
		r.Networks, r.ownNets = maps.Clone(r.Networks), true
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inspectors)
	for id := range ids {
		g.Go(func() error {
			mu.Lock()
			m := r.members[id]
			if m == nil {
				m = &members{}
				r.members[id] = m
			}
			mu.Unlock()
			n, err := r.client.network(ctx, id, m)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errdefs.IsNotFound(err):
				delete(r.Networks, id)
				delete(r.members, id)
			case err != nil:
				return fmt.Errorf("inspect network %s: %w", id, err)
			default:
				r.Networks[id] = n
			}
			return nil
		})
	}
	return g.Wait()
}

// strangers lists the containers that are attached to these networks and not known. It leaves
// out those that were asked for just before.
func (r *reader) strangers(ctx context.Context, networks, asked map[string]struct{}) error {
	ids := map[string]struct{}{}
	for n := range networks {
		for _, a := range r.Networks[n].Endpoints {
			if _, was := asked[a.ID]; !was && isID(a.ID) && r.now(a.ID) == nil {
				ids[a.ID] = struct{}{}
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return r.containers(ctx, ids)
}

// isID tells whether s is a container's ID. The name of another endpoint is none.
func isID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
