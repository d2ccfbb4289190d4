package netpolicy

import (
	"net/netip"
	"slices"
)

// Widened gives, for each endpoint, the extra addresses that would open what its own addresses do
// not. A policy allows a CIDR that has the extra address and none of its own, or denies a CIDR
// that has an own one and not the extra one. A label that names an address must not open anything
// by it. endpoints are those that the rule set was made of, in the same order. The result is nil
// if none has extra addresses.
func (r *RuleSet) Widened(endpoints []*Endpoint) [][]netip.Addr {
	if !slices.ContainsFunc(endpoints, func(e *Endpoint) bool { return len(e.Extra) > 0 }) {
		return nil
	}
	widened := make([][]netip.Addr, len(endpoints))
	var nets [2]namedNets
	judge := NewJudge(r)
	for i := range nets {
		nets[i] = judge.families[i].namedNets()
	}
	for i := range endpoints {
		for _, a := range endpoints[i].Extra {
			if nets[index(a.Is6())].widens(endpoints[i], a) {
				widened[i] = append(widened[i], a)
			}
		}
	}
	return widened
}

// namedNets finds the sets of CIDRs that policies name and that have an address.
type namedNets struct {
	opens, closes map[string]bool           // sets, by what rules with them do
	by            map[netip.Prefix][]string // sets by what is in them
	lengths       [129]bool                 // of such prefixes
}

func (f *judgeFamily) namedNets() namedNets {
	n := namedNets{opens: map[string]bool{}, closes: map[string]bool{}, by: map[netip.Prefix][]string{}}
	for _, c := range f.Chains {
		for i := range c.Rules {
			r := &c.Rules[i]
			if r.Origin.Policy == "" {
				continue
			}
			for _, m := range r.Sets {
				s := f.set(m.Set)
				if s.Kind != Nets || m.Not {
					continue
				}
				if !n.opens[m.Set] && !n.closes[m.Set] {
					for _, o := range s.Members {
						n.by[o.Prefix] = append(n.by[o.Prefix], m.Set)
						n.lengths[o.Prefix.Bits()] = true
					}
				}
				if r.Verdict == Drop {
					n.closes[m.Set] = true
				} else {
					n.opens[m.Set] = true
				}
			}
		}
	}
	return n
}

// of gives the sets that an address is in.
func (n *namedNets) of(a netip.Addr) []string {
	var all []string
	for bits, any := range n.lengths[:a.BitLen()+1] {
		if any {
			all = append(all, n.by[netip.PrefixFrom(a, bits).Masked()]...)
		}
	}
	return all
}

func (n *namedNets) widens(e *Endpoint, a netip.Addr) bool {
	var own []string
	for _, o := range e.Addrs {
		if o.Is6() == a.Is6() && !o.IsLinkLocalUnicast() {
			own = append(own, n.of(o)...)
		}
	}
	its := n.of(a)
	return slices.ContainsFunc(its, func(set string) bool { return n.opens[set] && !slices.Contains(own, set) }) ||
		slices.ContainsFunc(own, func(set string) bool { return n.closes[set] && !slices.Contains(its, set) })
}
