package endpoint

import (
	"slices"
	"time"

	"netguard/agent/docker"
	"netguard/agent/link"
)

// Bindings are what Join has found out about ports, which are named by link.Port.Seen, and
// what it came to last.
type Bindings struct {
	// ports gives whose they are. Those with the zero Key are nobody's whom their
	// MAC names.
	ports map[uint64]Key
	// beside is how far ports had been seen while the endpoint had one. None of
	// those will be its next one, whatever MAC they have by then.
	beside map[Key]uint64
	last   *last
}

// NewBindings knows of no port.
func NewBindings() Bindings {
	return Bindings{ports: map[uint64]Key{}, beside: map[Key]uint64{}, last: &last{}}
}

// unclaimed is how long after a port came Docker may name its container. Who has none
// by then may wait for somebody whose MAC it has.
const unclaimed = 5 * time.Second

// clean forgets the ports and the endpoints that are gone.
func (b Bindings) clean(o Observation) {
	here := make(map[uint64]bool, len(o.Ports))
	for _, p := range o.Ports {
		here[p.Seen] = true
	}
	for seen, key := range b.ports {
		if !here[seen] || key != (Key{}) && o.View.Networks[key.Network].Attachment(key.Container) == nil {
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

// disbelieve notes the ports of a network whose MAC does not count: it is that of a
// container that has another port, or nobody's for long. What they wait for is that
// whose MAC it is goes, or comes. That a MAC is not final excuses nobody: a container
// that may change it may keep its link down as well.
func (o Observation) disbelieve(network string, ports []*link.Port, bound Bindings) {
	claimed := map[string]bool{}
	last := uint64(0)
	for _, p := range ports {
		last = max(last, p.Seen)
	}
	for _, p := range ports {
		// As Docker has it: a proven port may itself have a MAC that is a lie.
		if key := bound.ports[p.Seen]; key.Network == network {
			bound.beside[key] = last
			if a := o.View.Networks[network].Attachment(key.Container); a != nil {
				claimed[string(a.MAC)] = true
			}
		}
	}
	for _, p := range ports {
		_, known := bound.ports[p.Seen]
		if known || p.NSID < 0 || p.PeerMAC == nil || p.Seen > o.Fresh[network] {
			continue
		}
		if claimed[string(p.PeerMAC)] || !p.Since.IsZero() && o.Now.Sub(p.Since) > unclaimed {
			bound.ports[p.Seen] = Key{}
		}
	}
}
