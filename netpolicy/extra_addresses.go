package netpolicy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// contest decides who has an extra address that several endpoints of a network name.
// The first one has it, and each other one that policies treat as the first: the two
// sides of a keepalived pair, say. No label takes from a neighbour what policies allow
// under its extra address, closes that address, or gets a neighbour's rights by it.
//
// It is asked when all policies and labels were looked at.
func (p *prepared) contest() {
	var order []int
	for i := range p.endpoints {
		if p.endpoints[i].Managed && len(p.endpoints[i].Extra)+len(p.endpoints[i].Away) > 0 {
			order = append(order, i)
		}
	}
	if len(order) < 2 {
		return
	}
	slices.SortFunc(order, func(i, j int) int {
		a, b := &p.endpoints[i], &p.endpoints[j]
		return cmp.Or(cmp.Compare(a.Since, b.Since), strings.Compare(a.ID, b.ID), cmp.Compare(i, j))
	})
	claims := claims{first: map[claim]int{}, below: map[claim][]int{}, treated: p.treatment()}
	for _, i := range order {
		e := &p.endpoints[i]
		gets := func(prefix netip.Prefix) bool {
			has, taken := claims.take(i, claim{e.Network, prefix})
			if taken {
				p.states[i].Contested = append(p.states[i].Contested, Contested{prefix, p.endpoints[has].Name})
			}
			return !taken
		}
		e.Extra = filter(e.Extra, func(a netip.Addr) bool { return gets(netip.PrefixFrom(a, a.BitLen())) })
		e.Away = filter(e.Away, gets)
	}
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
