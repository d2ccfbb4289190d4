// Package endpoint joins what Docker declares with what the kernel has: it finds which bridge
// port belongs to which container on which network. It is pure.
//
// It binds a port to a container once, for the port's whole life. It never does so by a view
// that is older than the port: in such a view, a dead container may have the MAC that a new
// container, the owner of the port, has got now.
//
// A port's MAC says which container it belongs to, if it was read before the container could
// change it. That is nearly always so, and nothing else says it sooner. A MAC that may be a lie
// does not count. Then Docker is asked for the network namespace, which no container chooses.
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
	// Contested says that it has no port because its MAC does not tell which: several ports
	// have that MAC, or a port that may lie. The container's Sandbox tells it.
	Contested bool
}

// Observation is what Join looks at.
type Observation struct {
	View  docker.View
	Ports []*link.Port
	// Fresh gives for each network (by ID) the newest port (link.Port.Seen) when reading it
	// began. A newer port may belong to a container that the view does not know.
	Fresh map[string]uint64
	// Sandboxes gives the network namespaces that Docker was asked for, by container ID. Docker
	// is asked about containers that ran when netguard began: they may have changed their MACs
	// unwatched. And it is asked about containers whose ports were contested.
	Sandboxes map[string]Sandbox
	Now       time.Time
}

// Sandbox is a container's network namespace.
type Sandbox struct {
	NSID int // what this namespace calls it
	// Seen is the newest port (link.Port.Seen) before it was asked for. Among ports up to that
	// one, only NSID decides. A newer port may belong to the container's next start.
	Seen uint64
}

// Join gives all endpoints that the view names, ordered by container and network name, and
// updates the bindings. An endpoint that did not change keeps its pointer. Nobody may change the
// slice, or what its pointers lead to.
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

// network joins again what may have changed in one network. It gives the endpoints that are gone
// and the new ones. An endpoint that changed is in both.
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

// endpoint gives the endpoint of an attachment; nil while there is none. If nothing changed, it
// keeps its pointer. If its container or its port is missing, it is looked at again next time.
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
	e.Network.Endpoints = nil // otherwise it would keep old attachments
	return e
}

// as tells whether an endpoint made of these would equal e.
func (e *Endpoint) as(c *docker.Container, sharers []docker.Container, n *docker.Network, a *docker.Attachment, p *link.Port, contested bool) bool {
	return e.Contested == contested && (p == nil) == (e.Port == nil) && (p == nil || p.Same(e.Port)) &&
		e.Container.SameDeclared(c) && e.Network.Same(n) && e.Attachment.Same(a) &&
		slices.EqualFunc(e.Sharers, sharers, func(x, y docker.Container) bool { return x.SameDeclared(&y) })
}

// provenFirst orders attachments: first those of containers whose namespaces were asked for,
// last those of no container. A namespace tells a port for certain. A MAC may be a lie, and what
// is no container has only a MAC. The order is always the same.
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
