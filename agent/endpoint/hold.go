package endpoint

import (
	"bytes"
	"maps"
	"net/netip"

	"netguard/agent/docker"
	"netguard/agent/link"
	"netguard/internal/changed"
)

// Hold gives the view with those endpoints of last added that it lacks although
// their ports are there, and says which. A port belongs to its container for as
// long as it is there, and a container whose port is there runs: that Docker does
// not list it (for a moment, or wrongly) is no reason to take its rules away, and
// none to cut it off. It is let go when Docker gives its bridge or one of its
// addresses to another, so that nobody inherits what it may do.
//
// Was is the view that has all of last.
func Hold(v, was docker.View, last []*Endpoint, ports []*link.Port) (docker.View, []Key) {
	all := changed.Identical(v.Containers, was.Containers)
	same := map[string]bool{} // networks
	for nid, n := range v.Networks {
		same[nid] = changed.Identical(n.Endpoints, was.Networks[nid].Endpoints)
	}
	var lacking []*Endpoint
	for _, e := range last {
		if e.Port == nil || e.Attachment.Kind != docker.KindContainer {
			continue // nothing of another kind outlives it
		}
		listed, attached := all, same[e.Key.Network]
		if !listed {
			_, listed = v.Containers[e.Key.Container]
		}
		if !attached {
			_, attached = v.Networks[e.Key.Network].Endpoints[e.Key.Container]
		}
		if !listed || !attached {
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
		for cid, a := range n.Endpoints {
			given[a.IPv4], given[a.IPv6] = Key{cid, nid}, Key{cid, nid}
		}
	}
	delete(given, netip.Addr{})
	var held []Key
	owned := false
	for _, e := range lacking {
		p := here[e.Port.Seen]
		if p == nil || p.MasterName != e.Network.Bridge || p.NSID != e.Port.NSID || p.NSID < 0 {
			continue // its end, or on its way there
		}
		if nid, taken := bridges[e.Network.Bridge]; taken && nid != e.Key.Network {
			continue
		}
		if other(given, e.Attachment.IPv4, e.Key) || other(given, e.Attachment.IPv6, e.Key) || macTaken(v, e) {
			continue
		}
		if !owned {
			owned = true
			v.Containers, v.Networks = own(v.Containers), own(v.Networks)
		}
		if _, listed := v.Containers[e.Key.Container]; !listed {
			v.Containers[e.Key.Container] = e.Container
			for _, s := range e.Sharers {
				if _, listed := v.Containers[s.ID]; !listed {
					v.Containers[s.ID] = s
				}
			}
		}
		n, listed := v.Networks[e.Key.Network]
		if !listed {
			n = e.Network
		}
		n.Endpoints = own(n.Endpoints)
		if _, attached := n.Endpoints[e.Key.Container]; !attached {
			n.Endpoints[e.Key.Container] = e.Attachment
		}
		v.Networks[e.Key.Network] = n
		held = append(held, e.Key)
	}
	return v, held
}

// own is a copy that can be written to.
func own[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m)+1)
	maps.Copy(out, m)
	return out
}

func other(given map[netip.Addr]Key, a netip.Addr, key Key) bool {
	owner, taken := given[a]
	return taken && owner != key
}

func macTaken(v docker.View, e *Endpoint) bool {
	for cid, a := range v.Networks[e.Key.Network].Endpoints {
		if cid != e.Key.Container && a.MAC != nil && bytes.Equal(a.MAC, e.Attachment.MAC) {
			return true
		}
	}
	return false
}
