// Package endpoint joins what Docker declares with what the kernel has: which
// bridge port is which container's on which network. It is pure.
//
// It promises that a port is bound to a container once and for the port's whole
// life, and never on the word of a view that is older than the port: an address
// that a dead container left behind and a new one got does not make the new one
// the old.
//
// A port's MAC says whose it is where it was read before the container could change
// it, which is nearly always, and sooner than anything else does. It counts no more
// where it may be a lie: the network namespace is asked for then, which no container
// chooses.
package endpoint

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"netguard/agent/docker"
	"netguard/agent/link"
)

// Key names an endpoint: a container on a network, by their IDs.
type Key struct{ Container, Network string }

// Endpoint is one container on one network, or something else that Docker lists there.
type Endpoint struct {
	Key
	// Container is what is known of it; its state is that of some moment. An endpoint of
	// another kind has the name that Docker lists it by, as ID too, and no labels.
	Container docker.Container
	// Sharers are the other containers that run in the same network
	// namespace, by name.
	Sharers    []docker.Container
	Network    docker.Network // without who is attached
	Attachment docker.Attachment
	// Port is the host's end, nil where there is none (yet).
	Port *link.Port
	// Contested says that it has no port because a MAC does not tell which: several
	// have it, or one that is not to be believed. Its Sandbox tells.
	Contested bool
}

// Observation is what Join looks at.
type Observation struct {
	View  docker.View
	Ports []*link.Port
	// Fresh gives for each network (by ID) how far the ports had been seen
	// (link.Port.Seen) when reading it began: later ones may belong to
	// somebody whom the view does not know.
	Fresh map[string]uint64
	// Sandboxes gives the network namespaces of containers (by ID) for which they
	// were asked for: of those that ran when netguard began, and may have changed
	// their MACs unwatched, and of those whose ports were contested.
	Sandboxes map[string]Sandbox
	Now       time.Time
}

// Sandbox is a container's network namespace.
type Sandbox struct {
	NSID int // what this namespace calls it
	// Seen is how far the ports had been seen when it was asked for. Of those
	// nothing else counts; later ones may be of the container's next start.
	Seen uint64
}

// Join gives all endpoints that the view names, ordered by container and
// network name, and updates the bindings. What did not change is the same pointer as at
// the last call. Nobody may change what a pointer leads to, or the slice.
func Join(o Observation, bound Bindings) []*Endpoint {
	l := bound.last
	affected, moved := l.compare(o)
	if !moved && len(affected) == 0 {
		return l.all
	}
	if moved {
		bound.clean(o)
	}
	for _, nid := range affected {
		was := l.networks[nid]
		l.networks[nid] = o.network(nid, bound)
		l.replace(was.all(), l.networks[nid].endpoints)
	}
	for nid, n := range l.networks {
		if _, there := o.View.Networks[nid]; !there {
			delete(l.networks, nid)
			l.replace(n.endpoints, nil)
		}
	}
	return l.all
}

// order is that of Join's result.
func (e *Endpoint) order(o *Endpoint) int {
	return cmp.Or(strings.Compare(e.Container.Name, o.Container.Name), strings.Compare(e.Network.Name, o.Network.Name),
		strings.Compare(e.Key.Container, o.Key.Container), strings.Compare(e.Key.Network, o.Key.Network))
}

// network joins what there is of one network.
func (o Observation) network(nid string, bound Bindings) *network {
	n, l := o.View.Networks[nid], bound.last
	ports := l.ports[n.Bridge]
	owned := make(map[string]*link.Port, len(ports)) // by container
	for _, p := range ports {
		if key := bound.ports[p.Seen]; key.Network == nid && owned[key.Container] == nil {
			owned[key.Container] = p
		}
	}
	was := l.networks[nid]
	is := &network{Network: n, ports: ports, by: make(map[string]*Endpoint, len(n.Endpoints)), settled: true}
	for _, a := range o.provenFirst(n.Endpoints) {
		cid, c := a.ID, o.View.Container(a.ID)
		switch {
		case a.Kind != docker.KindContainer && n.Bridge == "":
			continue // a swarm's own
		case a.Kind != docker.KindContainer:
			c = &docker.Container{ID: cid, Name: cid, State: "running"}
		case c == nil:
			is.settled = false
			continue // listed in a moment
		}
		key := Key{cid, nid}
		port, contested := owned[cid], false
		if port == nil && n.Bridge != "" {
			port, contested = o.port(key, a, ports, bound)
			is.settled = is.settled && port != nil
		}
		e := was.endpoint(cid)
		if e == nil || !e.as(c, l.sharers[cid], &n, a, port, contested) {
			e = &Endpoint{Key: key, Container: *c, Sharers: l.sharers[cid], Network: n, Attachment: *a, Port: port, Contested: contested}
			e.Network.Endpoints = nil // it would keep what was attached once
		}
		is.by[cid] = e
		is.endpoints = append(is.endpoints, e)
	}
	o.disbelieve(nid, ports, bound)
	for _, p := range ports {
		if _, known := bound.ports[p.Seen]; !known {
			is.settled = false
		}
	}
	return is
}

// as tells whether an endpoint that is made of these would be as e is.
func (e *Endpoint) as(c *docker.Container, sharers []docker.Container, n *docker.Network, a *docker.Attachment, p *link.Port, contested bool) bool {
	return e.Contested == contested && (p == nil) == (e.Port == nil) && (p == nil || p.Same(e.Port)) &&
		e.Container.SameDeclared(c) && e.Network.Same(n) && e.Attachment.Same(a) &&
		slices.EqualFunc(e.Sharers, sharers, func(x, y docker.Container) bool { return x.SameDeclared(&y) })
}

// provenFirst orders attachments: first those of containers whose namespaces were asked for,
// last those of no container. A namespace tells a port for certain, a MAC may be a lie, and of
// what is no container there is only the MAC. The order is always the same.
func (o Observation) provenFirst(all []*docker.Attachment) []*docker.Attachment {
	var ranks [3][]*docker.Attachment
	for _, a := range all {
		_, asked := o.Sandboxes[a.ID]
		switch {
		case a.Kind != docker.KindContainer:
			ranks[2] = append(ranks[2], a)
		case asked:
			ranks[0] = append(ranks[0], a)
		default:
			ranks[1] = append(ranks[1], a)
		}
	}
	return slices.Concat(ranks[:]...)
}
