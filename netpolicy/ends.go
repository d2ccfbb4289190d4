package netpolicy

import (
	"net/netip"
	"slices"
)

// ends gives what to ask of the two ends of a packet on a route so that it is
// one between a group and a peer, the group's end being that of the direction.
// It is false if no packet of the route and the family can be.
func (b *builder) ends(r route, s Stage, d Direction, g group, p peer, of ports) ([]SetMatch, bool) {
	denies := s == Guardrail
	mine, theirs := Src, Dst
	if d == Ingress {
		mine, theirs = Dst, Src
	}
	if r == toPublished {
		return b.publishedEnds(s, d, g, p, of)
	}
	if r != toContainer { // the other end is the host
		switch p.kind {
		case peerHost:
			p = peer{kind: peerAny}
		case peerContainers, peerExternal:
			return nil, false
		}
	}
	theirSets, ok := b.peerMatch(p, theirs, denies)
	if !ok {
		return nil, false
	}
	return append([]SetMatch{{Set: b.groupSet(g, denies), Side: mine}}, theirSets...), true
}

// peerMatch gives what to ask of an end that is a container or outside.
func (b *builder) peerMatch(p peer, side Side, denies bool) ([]SetMatch, bool) {
	switch p.kind {
	case peerAny:
		return nil, true
	case peerExternal:
		sets := []SetMatch{{Set: b.containersSet(denies), Side: side, Not: true}}
		if b.places {
			sets = append(sets, SetMatch{Set: b.awaySet(denies), Side: side, Not: true})
		}
		return sets, true
	case peerContainers:
		return []SetMatch{{Set: b.groupSet(b.selector(p.sel), denies), Side: side}}, true
	case peerNet:
		if p.nets.ipv6() == b.ipv6 {
			return []SetMatch{{Set: b.netSet(p.nets), Side: side}}, true
		}
	}
	return nil, false
}

// publishedEnds is ends for a connection to a published port, asked about as if
// it went to the container behind.
func (b *builder) publishedEnds(s Stage, d Direction, g group, p peer, of ports) ([]SetMatch, bool) {
	denies := s == Guardrail
	if d == Ingress {
		theirs, ok := b.peerMatch(p, Src, denies)
		if !ok {
			return nil, false
		}
		is := func(b *builder) func(target) bool {
			has := b.group(g).members(denies)
			return func(t target) bool { return has[t.endpoint] }
		}
		return append([]SetMatch{{Set: b.targetSet(g.key, g.about, is, of, denies, s), Side: Dst}}, theirs...), true
	}
	is, ok := b.targets(p, denies)
	if !ok {
		return nil, false
	}
	return []SetMatch{
		{Set: b.groupSet(g, denies), Side: Src},
		{Set: b.targetSet("peer "+p.canonical(), p.String(), is, of, denies, s), Side: Dst},
	}, true
}

// targets tells of which containers behind published ports a peer speaks. A CIDR
// allows what has its first address of the family in it, since that is where a
// connection would have gone; it denies what has any address in it, since
// docker-proxy goes to the other family as well.
func (b *builder) targets(p peer, denies bool) (func(*builder) func(target) bool, bool) {
	switch p.kind {
	case peerAny:
		return func(*builder) func(target) bool { return func(target) bool { return true } }, true
	case peerContainers:
		return func(b *builder) func(target) bool {
			has := b.selector(p.sel).members(denies)
			return func(t target) bool { return has[t.endpoint] }
		}, true
	case peerNet:
		if denies {
			return func(b *builder) func(target) bool {
				return func(t target) bool { return slices.ContainsFunc(b.endpoints[t.endpoint].Addrs, p.nets.contains) }
			}, true
		}
		if p.nets.ipv6() != b.ipv6 {
			return nil, false
		}
		return func(b *builder) func(target) bool {
			return func(t target) bool {
				addrs := b.endpoints[t.endpoint].Addrs
				i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is6() == b.ipv6 })
				return i >= 0 && p.nets.contains(addrs[i])
			}
		}, true
	}
	return nil, false
}
