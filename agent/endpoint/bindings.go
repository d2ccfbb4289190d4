package endpoint

import (
	"net"
	"slices"
	"time"

	"netguard/agent/docker"
	"netguard/agent/link"
)

// Bindings are what Join has found out about ports (by link.Port.Seen), and its last results.
type Bindings struct {
	// ports gives the endpoint of each port. The zero Key says that the MAC of the port does
	// not count: see disbelieve.
	ports map[uint64]Key
	// beside is the newest port (link.Port.Seen) on the bridge while the endpoint still had its
	// port. No port up to that one becomes its next port by its MAC alone.
	beside map[Key]uint64
	last   *last
}

// NewBindings gives bindings without any port.
func NewBindings() Bindings {
	return Bindings{ports: map[uint64]Key{}, beside: map[Key]uint64{}, last: &last{}}
}

// unclaimed is how long Docker may take to list the container of a new port. A port that still
// has none may wait for a container with the same MAC, to be taken for its port.
const unclaimed = 5 * time.Second

// lose removes the bindings to endpoints that are gone from a network.
func (b Bindings) lose(n *network, gone func(Key) bool) {
	for seen, key := range b.ports {
		if gone(key) {
			if delete(b.ports, seen); has(n.ports, seen) {
				b.beside[key] = n.seen()
			}
		}
	}
}

// clean forgets the endpoints that are gone.
func (b Bindings) clean(o Observation) {
	for seen, key := range b.ports {
		if _, known := o.View.Networks[key.Network]; !known && key != (Key{}) {
			delete(b.ports, seen)
		}
	}
	for key := range b.beside {
		n, known := o.View.Networks[key.Network]
		a := n.Attachment(key.Container)
		if !known || o.View.Container(key.Container) == nil && (a == nil || a.Kind == docker.KindContainer) {
			delete(b.beside, key)
		}
	}
}

// port finds an endpoint's port among those of its bridge, and binds it.
func (o Observation) port(of Key, a *docker.Attachment, ports []*link.Port, bound Bindings) (_ *link.Port, contested bool) {
	var found []*link.Port
	later := false // a port that the view may not know has the MAC too
	for _, p := range ports {
		key, known := bound.ports[p.Seen]
		if known && key != (Key{}) || p.NSID < 0 {
			continue
		}
		if p.Seen > o.Fresh[of.Network] {
			later = later || a.MAC != nil && slices.Equal(p.PeerMAC, a.MAC)
			continue
		}
		if ns, asked := o.Sandboxes[of.Container]; asked && p.Seen <= ns.Seen {
			if p.NSID == ns.NSID {
				bound.ports[p.Seen] = of
				return p, false
			}
			continue
		}
		switch {
		case a.MAC == nil || !slices.Equal(p.PeerMAC, a.MAC):
		case known || p.Seen <= bound.beside[of]:
			contested = true
		default:
			found = append(found, p)
		}
	}
	// Two with the same MAC: one of them lies, or the operator chose it twice.
	if len(found) != 1 || later {
		return nil, contested || len(found) > 0
	}
	bound.ports[found[0].Seen] = of
	return found[0], false
}

// disbelieve notes the free ports of a network whose MAC does not count. Either it is the MAC of
// a container that has another port, or the port has been free for longer than unclaimed. Such a
// port may wait until a container with its MAC goes, or comes. A MAC that is not final (see
// link.Port.Pinned) is no excuse: a container that can change it can also keep its link down.
func (o Observation) disbelieve(n *network, free []*link.Port, bound Bindings) {
	for _, p := range free {
		_, known := bound.ports[p.Seen]
		if known || p.NSID < 0 || p.PeerMAC == nil || p.Seen > o.Fresh[n.ID] {
			continue
		}
		if n.claimed(p.PeerMAC, bound) || !p.Since.IsZero() && o.Now.Sub(p.Since) > unclaimed {
			bound.ports[p.Seen] = Key{}
		}
	}
}

// claimed tells whether Docker gave a MAC to a container that has a port. It does not look at the
// MAC of that port: even a port that is proven by its namespace may lie about its MAC.
func (n *network) claimed(mac net.HardwareAddr, bound Bindings) bool {
	for _, a := range n.Endpoints {
		if slices.Equal(a.MAC, mac) && slices.ContainsFunc(n.ports, func(p *link.Port) bool { return bound.ports[p.Seen] == Key{a.ID, n.ID} }) {
			return true
		}
	}
	return false
}
