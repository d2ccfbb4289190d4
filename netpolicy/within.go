package netpolicy

import (
	"net/netip"
	"slices"
)

// Within tells for each endpoint whether policies may decide about traffic between it and another
// endpoint of its network. If so, its bridge has to hand over the frames that it forwards.
// endpoints are those that the rule set was made of, in the same order.
func (r *RuleSet) Within(endpoints []*Endpoint) []bool {
	within := make([]bool, len(endpoints))
	for i, s := range r.States {
		within[i] = s.Isolated(Ingress) || s.Isolated(Egress)
	}
	if !r.guarded {
		return within
	}
	judge := NewJudge(r)
	for i := range judge.families {
		f := &judge.families[i]
		for _, rule := range f.guardrails() {
			f.between(&rule, endpoints, within)
		}
	}
	return within
}

// guardrails gives the rules of policies' deny that a forwarded packet may meet.
func (f *judgeFamily) guardrails() []Rule {
	var all []Rule
	seen := map[string]bool{}
	todo := []string{f.Entry[Forward]}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		for _, r := range f.chains[name] {
			if r.Verdict == Goto {
				todo = append(todo, r.Goto)
			}
			if r.Origin.Stage == Guardrail && r.Origin.Policy != "" {
				all = append(all, r)
			}
		}
	}
	return all
}

// between notes the endpoints that may be the two ends, on one network, of a packet that a rule
// is about.
func (f *judgeFamily) between(r *Rule, endpoints []*Endpoint, within []bool) {
	from, to := map[string][]int{}, map[string][]int{}
	for i := range endpoints {
		e := endpoints[i]
		if f.end(r, e, Src) {
			from[e.Network] = append(from[e.Network], i)
		}
		if f.end(r, e, Dst) {
			to[e.Network] = append(to[e.Network], i)
		}
	}
	for network, senders := range from {
		receivers := to[network]
		if len(receivers) == 0 || len(senders) == 1 && len(receivers) == 1 && senders[0] == receivers[0] {
			continue
		}
		for _, ends := range [][]int{senders, receivers} {
			for _, i := range ends {
				within[i] = true
			}
		}
	}
}

// end tells whether an endpoint may be one end of the packets that a rule is about.
func (f *judgeFamily) end(r *Rule, e *Endpoint, side Side) bool {
	for _, addrs := range [][]netip.Addr{e.Addrs, e.Extra} {
		for _, a := range addrs {
			if a.Is6() == f.IPv6 && f.fits(r, a, e.Bridge, side) {
				return true
			}
		}
	}
	// An endpoint with such prefixes counts for every rule, since a part of a prefix may be in a
	// CIDR.
	return slices.ContainsFunc(e.Away, func(p netip.Prefix) bool { return p.Addr().Is6() == f.IPv6 })
}

func (f *judgeFamily) fits(r *Rule, a netip.Addr, bridge string, side Side) bool {
	for _, m := range r.Sets {
		if m.Side == side && f.set(m.Set).has(a, bridge, &Packet{}) == m.Not {
			return false
		}
	}
	return true
}
