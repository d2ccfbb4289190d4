package netpolicy

import (
	"net/netip"
	"slices"
)

// Widened gives for each endpoint, in the order of the input that the rule set was
// made of, those of its extra addresses that would open what its own do not: a
// policy allows a CIDR that has the one and none of the others, or denies a CIDR that
// has one of the others and not this one. A label that names an address must not open
// anything by it.
func (r *RuleSet) Widened(endpoints []Endpoint) [][]netip.Addr {
	widened := make([][]netip.Addr, len(endpoints))
	if !slices.ContainsFunc(endpoints, func(e Endpoint) bool { return len(e.Extra) > 0 }) {
		return widened
	}
	judge := NewJudge(r)
	for i := range endpoints {
		for _, a := range endpoints[i].Extra {
			if judge.families[index(a.Is6())].widens(&endpoints[i], a) {
				widened[i] = append(widened[i], a)
			}
		}
	}
	return widened
}

func (f *judgeFamily) widens(e *Endpoint, a netip.Addr) bool {
	own := slices.DeleteFunc(slices.Clone(e.Addrs), func(o netip.Addr) bool { return o.Is6() != a.Is6() || o.IsLinkLocalUnicast() })
	for _, rules := range f.chains {
		for _, r := range rules {
			if r.Origin.Policy == "" {
				continue
			}
			for _, m := range r.Sets {
				s := f.set(m.Set)
				in := func(a netip.Addr) bool { return s.has(a, "", &Packet{}) }
				if s.Kind == Nets && !m.Not && in(a) == (r.Verdict != Drop) && slices.ContainsFunc(own, in) == (r.Verdict == Drop) {
					return true
				}
			}
		}
	}
	return false
}
