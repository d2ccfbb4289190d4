package endpoint

import (
	"bytes"
	"maps"
	"net/netip"

	"netguard/agent/docker"
	"netguard/agent/link"
	"netguard/internal/changed"
)

// Hold adds to a view the endpoints of last that Docker does not list although their ports are
// there. It returns the new view and their keys. The parameter was is the view that has all of
// last.
//
// A port belongs to its container as long as the port is there, and a container with a port
// runs. So an endpoint keeps its rules and stays admitted even if Docker does not list it, for a
// moment or wrongly. Hold lets it go when Docker gives its bridge or one of its addresses to
// another, so that nobody inherits what it may do.
func Hold(v, was docker.View, last []*Endpoint, ports []*link.Port) (docker.View, []Key) {
	gone := map[string]bool{} // containers
	for _, c := range less(was.Containers, v.Containers) {
		gone[c.ID] = true
	}
	left := map[Key]bool{}
	for nid, n := range was.Networks {
		for _, a := range less(n.Endpoints, v.Networks[nid].Endpoints) {
			left[Key{a.ID, nid}] = true
		}
	}
	if len(gone)+len(left) == 0 {
		return v, nil
	}
	var lacking []*Endpoint
	for _, e := range last {
		// Endpoints of other kinds are over as soon as Docker does not list them.
		if e.Port != nil && e.Attachment.Kind == docker.KindContainer && (gone[e.Key.Container] || left[e.Key]) {
			lacking = append(lacking, e)
		}
	}
	if len(lacking) == 0 {
		return v, nil
	}
	here := make(map[uint64]*link.Port, len(ports))
	for _, p := range ports {
		here[p.Seen] = p
	}
	bridges, given := map[string]string{}, map[netip.Addr]Key{}
	for nid, n := range v.Networks {
		bridges[n.Bridge] = nid
		for _, a := range n.Endpoints {
			given[a.IPv4], given[a.IPv6] = Key{a.ID, nid}, Key{a.ID, nid}
		}
	}
	delete(given, netip.Addr{})
	var held []Key
	for _, e := range lacking {
		p := here[e.Port.Seen]
		if p == nil || p.MasterName != e.Network.Bridge || p.NSID != e.Port.NSID || p.NSID < 0 {
			continue // the port is gone, or is about to go
		}
		if nid, taken := bridges[e.Network.Bridge]; taken && nid != e.Key.Network {
			continue
		}
		if other(given, e.Attachment.IPv4, e.Key) || other(given, e.Attachment.IPv6, e.Key) || macTaken(v, e) {
			continue
		}
		if v.Container(e.Key.Container) == nil {
			more := map[string]*docker.Container{e.Key.Container: &e.Container}
			for i := range e.Sharers {
				if s := &e.Sharers[i]; v.Container(s.ID) == nil && more[s.ID] == nil {
					more[s.ID] = s
				}
			}
			v.Containers = changed.With(v.Containers, more)
		}
		if len(held) == 0 {
			networks := v.Networks
			v.Networks = make(map[string]docker.Network, len(networks)+1)
			maps.Copy(v.Networks, networks)
		}
		n, listed := v.Networks[e.Key.Network]
		if !listed {
			n = e.Network
		}
		if n.Attachment(e.Key.Container) == nil {
			n.Endpoints = changed.With(n.Endpoints, map[string]*docker.Attachment{e.Key.Container: &e.Attachment})
		}
		v.Networks[e.Key.Network] = n
		held = append(held, e.Key)
	}
	return v, held
}

// less gives the items of a list whose keys it has no more.
func less[T changed.Keyed](was, is []T) (out []T) {
	var none T
	gone, _ := changed.Between(was, is)
	for _, one := range gone {
		if changed.Find(is, one.Key()) == none {
			out = append(out, one)
		}
	}
	return out
}

func other(given map[netip.Addr]Key, a netip.Addr, key Key) bool {
	owner, taken := given[a]
	return taken && owner != key
}

func macTaken(v docker.View, e *Endpoint) bool {
	for _, a := range v.Networks[e.Key.Network].Endpoints {
		if a.ID != e.Key.Container && a.MAC != nil && bytes.Equal(a.MAC, e.Attachment.MAC) {
			return true
		}
	}
	return false
}
