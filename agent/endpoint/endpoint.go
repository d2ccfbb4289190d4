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
	"maps"
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
	left := l.group(o.Ports)
	affected := l.compare(o, bound)
	for _, p := range left {
		delete(bound.ports, p.Seen)
	}
	var gone, came []*Endpoint
	for _, nid := range affected {
		left, arrived := o.network(nid, bound)
		gone, came = append(gone, left...), append(came, arrived...)
	}
	for nid, n := range l.networks {
		if _, there := o.View.Networks[nid]; !there {
			delete(l.networks, nid)
			gone = slices.AppendSeq(gone, maps.Values(n.by))
		}
	}
	l.replace(gone, came)
	return l.all
}

// order is that of Join's result.
func (e *Endpoint) order(o *Endpoint) int {
	return cmp.Or(strings.Compare(e.Container.Name, o.Container.Name), strings.Compare(e.Network.Name, o.Network.Name),
		strings.Compare(e.Key.Container, o.Key.Container), strings.Compare(e.Key.Network, o.Key.Network))
}

// network joins what may be another than at the last time of one network. It gives the endpoints
// that it has no more, and the new ones.
func (o Observation) network(nid string, bound Bindings) (gone, came []*Endpoint) {
	l := bound.last
	n := l.networks[nid]
	again := n.again
	n.again = map[string]bool{}
	var free []*link.Port // those that are nobody's
	owned := make(map[string]*link.Port, len(again))
	for _, p := range n.ports {
		switch key := bound.ports[p.Seen]; {
		case key == Key{}:
			free = append(free, p)
		case key.Network == nid && again[key.Container] && owned[key.Container] == nil:
			owned[key.Container] = p
		}
	}
	var attachments []*docker.Attachment
	for id := range again {
		if a := n.Attachment(id); a != nil {
			attachments = append(attachments, a)
		} else if e := n.by[id]; e != nil {
			delete(n.by, id)
			gone = append(gone, e)
		}
	}
	for _, a := range o.provenFirst(attachments) {
		is := o.endpoint(n, a, owned[a.ID], free, bound)
		was := n.by[a.ID]
		if is == was {
			continue
		}
		if was != nil {
			delete(n.by, a.ID)
			gone = append(gone, was)
		}
		if is != nil {
			n.by[a.ID] = is
			came = append(came, is)
		}
	}
	o.disbelieve(n, free, bound)
	n.settled = len(n.again) == 0 && !slices.ContainsFunc(free, func(p *link.Port) bool { _, known := bound.ports[p.Seen]; return !known })
	return gone, came
}

// endpoint gives what an attachment comes to, the one of before where it is the same; nil while
// it is none. What may come to something else without a reason is looked at again.
func (o Observation) endpoint(n *network, a *docker.Attachment, port *link.Port, free []*link.Port, bound Bindings) *Endpoint {
	c := o.View.Container(a.ID)
	switch {
	case a.Kind != docker.KindContainer && n.Bridge == "":
		return nil // a swarm's own
	case a.Kind != docker.KindContainer:
		c = &docker.Container{ID: a.ID, Name: a.ID, State: "running"}
	case c == nil:
		n.again[a.ID] = true
		return nil // listed in a moment
	}
	key, contested := Key{a.ID, n.ID}, false
	if port == nil && n.Bridge != "" {
		if port, contested = o.port(key, a, free, bound); port == nil {
			n.again[a.ID] = true
		}
	}
	sharers := bound.last.sharers[a.ID]
	if e := n.by[a.ID]; e != nil && e.as(c, sharers, &n.Network, a, port, contested) {
		return e
	}
	e := &Endpoint{Key: key, Container: *c, Sharers: sharers, Network: n.Network, Attachment: *a, Port: port, Contested: contested}
	e.Network.Endpoints = nil // it would keep what was attached once
	return e
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
	rank := func(a *docker.Attachment) int {
		_, asked := o.Sandboxes[a.ID]
		switch {
		case a.Kind != docker.KindContainer:
			return 2
		case asked:
			return 0
		}
		return 1
	}
	slices.SortFunc(all, func(a, b *docker.Attachment) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.ID, b.ID))
	})
	return all
}
