package netpolicy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// contest decides who gets an extra address that several endpoints of a network name. Who had it
// before keeps it. If nobody had it, the first one gets it. Other endpoints get it too if
// policies treat them like that one, such as the two sides of a keepalived pair. So no label
// takes from a neighbour what policies allow under its extra address. No label closes that
// address, or gets the neighbour's rights.
//
// contest runs after policies and labels were judged. It gives the subjects without the addresses
// that they do not get, and notes these in the states. A subject of before is used again if it
// lost the same.
func contest(subjects, before []*subject, states []*State, held map[Holding]bool) []*subject {
	type wish struct {
		at     int
		prefix netip.Prefix
		held   bool
	}
	var order []wish
	claimants := 0
	for i, s := range subjects {
		if !s.Managed || len(s.Extra)+len(s.Away) == 0 {
			continue
		}
		claimants++
		for _, a := range s.Extra {
			prefix := netip.PrefixFrom(a, a.BitLen())
			order = append(order, wish{i, prefix, held[Holding{s.ID, s.Network, prefix}]})
		}
		for _, prefix := range s.Away {
			order = append(order, wish{i, prefix, held[Holding{s.ID, s.Network, prefix}]})
		}
	}
	if claimants < 2 {
		return subjects
	}
	slices.SortStableFunc(order, func(a, b wish) int {
		if a.held != b.held {
			if a.held {
				return -1
			}
			return 1
		}
		x, y := subjects[a.at], subjects[b.at]
		return cmp.Or(cmp.Compare(x.Since, y.Since), strings.Compare(x.ID, y.ID), cmp.Compare(a.at, b.at))
	})
	claims := claims{subjects: subjects, first: map[claim]int{}, below: map[claim][]int{}}
	lost := map[int][]Contested{}
	for _, w := range order {
		if has, taken := claims.take(w.at, claim{subjects[w.at].Network, w.prefix}); taken {
			lost[w.at] = append(lost[w.at], Contested{w.prefix, subjects[has].Name})
		}
	}
	if len(lost) == 0 {
		return subjects
	}
	known := map[*subject]*subject{}
	for _, s := range before {
		if s.base != nil {
			known[s.base] = s
		}
	}
	subjects = slices.Clone(subjects)
	for i, all := range lost {
		state := *states[i]
		state.Contested, states[i] = all, &state
		if s := known[subjects[i]]; s != nil && slices.Equal(s.lost, all) {
			subjects[i] = s
			continue
		}
		s, own := *subjects[i], *subjects[i].inspected
		keeps := func(p netip.Prefix) bool {
			return !slices.ContainsFunc(all, func(c Contested) bool { return c.Prefix == p })
		}
		s.inspected, s.base, s.lost = &own, subjects[i], all
		s.Extra = filter(s.Extra, func(a netip.Addr) bool { return keeps(netip.PrefixFrom(a, a.BitLen())) })
		s.Away = filter(s.Away, keeps)
		subjects[i] = &s
	}
	return subjects
}

// Holding is an extra address that an endpoint has.
type Holding struct {
	ID, Network string
	Prefix      netip.Prefix
}

// Held gives the extra addresses that endpoints have. endpoints are those that the rule set was
// made of. Give Held to the next World, so that who has an address keeps it.
func (r *RuleSet) Held(endpoints []*Endpoint) map[Holding]bool {
	held := map[Holding]bool{}
	for i := range endpoints {
		e := endpoints[i]
		has := func(prefix netip.Prefix) {
			if !slices.ContainsFunc(r.States[i].Contested, func(c Contested) bool { return c.Prefix == prefix }) {
				held[Holding{e.ID, e.Network, prefix}] = true
			}
		}
		for _, a := range e.Extra {
			has(netip.PrefixFrom(a, a.BitLen()))
		}
		for _, prefix := range e.Away {
			has(prefix)
		}
	}
	return held
}

// claim is a prefix on a network.
type claim struct {
	network string
	prefix  netip.Prefix
}

// claims are the extra addresses that endpoints got so far. first is the first endpoint that got
// a prefix.
type claims struct {
	subjects []*subject
	first    map[claim]int
	// below are the endpoints with a part of a prefix: the first one, and the first one that
	// rules tell apart from it.
	below map[claim][]int
}

// take gives an extra address to an endpoint. If another endpoint has it, a part of it or a
// prefix around it, and rules tell the two apart, take names that endpoint.
func (c *claims) take(i int, wanted claim) (int, bool) {
	differs := func(has int) bool { return has != i && !alike(c.subjects[has], c.subjects[i]) }
	if k := slices.IndexFunc(c.below[wanted], differs); k >= 0 {
		return c.below[wanted][k], true
	}
	a := wanted.prefix.Addr()
	for bits := wanted.prefix.Bits(); bits >= 0; bits-- {
		if has, ok := c.first[claim{wanted.network, netip.PrefixFrom(a, bits).Masked()}]; ok && differs(has) {
			return has, true
		}
	}
	if _, ok := c.first[wanted]; ok {
		return 0, false
	}
	c.first[wanted] = i
	for bits := wanted.prefix.Bits() - 1; bits >= 0; bits-- {
		wide := claim{wanted.network, netip.PrefixFrom(a, bits).Masked()}
		if have := c.below[wide]; len(have) == 0 || len(have) == 1 && differs(have[0]) {
			c.below[wide] = append(have, i)
		}
	}
	return 0, false
}
