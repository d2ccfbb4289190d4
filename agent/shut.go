package agent

import (
	"slices"

	"netguard/netpolicy"
	"netguard/netpolicy/guard"
)

// shut gives the ports of those that policies close for what reaches them, by ifindex.
func (r *ruling) shut(desires []*desire) map[int]bool {
	out := map[int]bool{}
	for i := range desires {
		if e := desires[i]; e.Port != nil && e.Unmanaged == "" && r.states[e.Key].Isolated(netpolicy.Ingress) {
			out[e.Port.Index] = true
		}
	}
	return out
}

// shut shuts ports at once, before rules are in force, and leaves all others as they
// are.
func (s *sentry) shut(here site, shut map[int]bool) {
	wish := slices.Clone(s.wish.Ports)
	changed := false
	for i := range wish {
		if p := &wish[i]; shut[p.Index] && !p.Shut {
			p.Shut, changed = true, true
		}
	}
	if changed && s.err == nil {
		s.apply(here, wish, s.wish.Taken)
	}
}

// shutting says of ports whether they are shut. Where the rules are not in force those
// from before may be, so that what was shut stays so.
func (s *sentry) shutting(ports []guard.Port, shut map[int]bool, inForce bool) []guard.Port {
	was := map[int]bool{}
	for _, p := range s.wish.Ports {
		was[p.Index] = p.Shut
	}
	for i := range ports {
		p := &ports[i]
		p.Shut = shut[p.Index] || !inForce && was[p.Index]
	}
	return ports
}

// any tells whether policies are about a container.
func (r *ruling) any() bool {
	for _, s := range r.states {
		if s.Isolated(netpolicy.Ingress) || s.Isolated(netpolicy.Egress) {
			return true
		}
	}
	return false
}
