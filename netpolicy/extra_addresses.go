package netpolicy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// contest decides who has an extra address that several endpoints of a network name.
// Who had it before has it, else the first one, and each other one that policies treat as the first: the two
// sides of a keepalived pair, say. No label takes from a neighbour what policies allow
// under its extra address, closes that address, or gets a neighbour's rights by it.
//
// It is asked when all policies and labels were looked at.
func (p *prepared) contest(held map[Holding]bool) {
	type wish struct {
		at     int
		prefix netip.Prefix
		held   bool
	}
	var order []wish
	claimants := 0
	for i := range p.endpoints {
		e := &p.endpoints[i]
		var all []netip.Prefix
		for _, a := range e.Extra {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
		all = append(all, e.Away...)
		if !e.Managed || len(all) == 0 {
			continue
		}
		claimants++
		for _, prefix := range all {
			order = append(order, wish{i, prefix, held[Holding{e.ID, e.Network, prefix}]})
		}
	}
	if claimants < 2 {
		return
	}
	slices.SortStableFunc(order, func(a, b wish) int {
		if a.held != b.held {
			if a.held {
				return -1
			}
			return 1
		}
		x, y := &p.endpoints[a.at], &p.endpoints[b.at]
		return cmp.Or(cmp.Compare(x.Since, y.Since), strings.Compare(x.ID, y.ID), cmp.Compare(a.at, b.at))
	})
	claims := claims{first: map[claim]int{}, below: map[claim][]int{}, treated: p.treatment()}
	lost := map[int][]netip.Prefix{}
	for _, w := range order {
		if has, taken := claims.take(w.at, claim{p.endpoints[w.at].Network, w.prefix}); taken {
			lost[w.at] = append(lost[w.at], w.prefix)
			p.states[w.at].Contested = append(p.states[w.at].Contested, Contested{w.prefix, p.endpoints[has].Name})
		}
	}
	for i, prefixes := range lost {
		e := &p.endpoints[i]
		e.Extra = filter(e.Extra, func(a netip.Addr) bool { return !slices.Contains(prefixes, netip.PrefixFrom(a, a.BitLen())) })
		e.Away = filter(e.Away, func(a netip.Prefix) bool { return !slices.Contains(prefixes, a) })
	}
}

// Holding is an extra address that an endpoint has.
type Holding struct {
	ID, Network string
	Prefix      netip.Prefix
}

// Held gives the extra addresses that endpoints have, those that the rule set was made
// of: the next one is to be told, so that whoever has an address keeps it.
func (r *RuleSet) Held(endpoints []Endpoint) map[Holding]bool {
	held := map[Holding]bool{}
	for i := range endpoints {
		e := &endpoints[i]
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

// claims are those that count so far.
type claims struct {
	first map[claim]int
	// below are those who have a part of a prefix, one of each treatment.
	below   map[claim][]int
	treated func(int) string
}

// take gives a claim to an endpoint, or tells who has it or a part of it.
func (c *claims) take(i int, wanted claim) (int, bool) {
	differs := func(has int) bool { return has != i && c.treated(has) != c.treated(i) }
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
		if have := c.below[wide]; !slices.ContainsFunc(have, func(has int) bool { return !differs(has) }) {
			c.below[wide] = append(have, i)
		}
	}
	return 0, false
}

// treatment gives a function that tells what policies and labels say of an endpoint,
// as a text: of two endpoints with the same text, no rule tells the one from the other.
func (p *prepared) treatment() func(int) string {
	var groups [][]bool
	known := map[int]string{}
	return func(i int) string {
		if groups == nil {
			groups = p.memberships()
		}
		if t, ok := known[i]; ok {
			return t
		}
		t := make([]byte, len(groups))
		for j, has := range groups {
			if t[j] = '-'; has[i] {
				t[j] = '+'
			}
		}
		known[i] = string(t)
		return known[i]
	}
}

// memberships gives all groups of endpoints that rules speak of.
func (p *prepared) memberships() [][]bool {
	all := [][]bool{}
	peers := func(r rule) {
		for _, o := range r.everyone() {
			if o.kind == peerContainers {
				g := p.selector(o.sel)
				all = append(all, g.has, g.opens)
			}
		}
	}
	for _, s := range []Stage{FileEgress, LabelEgress, FileIngress, LabelIngress} {
		all = append(all, p.isolated[s])
		for _, r := range p.rules[s] {
			all = append(all, r.has, r.opens)
			for _, rule := range r.rules {
				peers(rule)
			}
		}
	}
	for _, d := range p.denies {
		all = append(all, d.has, d.opens)
		peers(d.rule)
	}
	return all
}
