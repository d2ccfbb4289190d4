package netpolicy

import (
	"net/netip"
	"slices"
)

// ends gives what a rule has to ask of the two ends of a packet on a route, so that the packet
// goes between a group and a peer. The direction says which end is the group's. ok is false if no
// packet of the route and the family can do so.
func (b *builder) ends(r route, s Stage, d Direction, g *group, p *readyPeer, of *readyRule) ([]SetMatch, bool) {
	denies := s == Guardrail
	mine, theirs := Src, Dst
	if d == Ingress {
		mine, theirs = Dst, Src
	}
	if r == toPublished {
		return b.publishedEnds(s, d, g, p, of)
	}
	sets, ok := make([]SetMatch, 1, 3), true
	if r == toContainer {
		if sets, ok = b.peerMatch(sets, p, theirs, denies); !ok {
			return nil, false
		}
	} else if p.kind != peerHost && p.kind != peerAny { // the other end is the host
		if p.kind != peerNet || p.nets.ipv6() != b.ipv6 {
			return nil, false
		}
		sets = append(sets, SetMatch{Set: b.netSet(p.nets), Side: theirs})
	}
	sets[0] = SetMatch{Set: b.groupSet(g, denies), Side: mine}
	return sets, true
}

// peerMatch adds what to ask of an end that is a container or outside.
func (b *builder) peerMatch(sets []SetMatch, p *readyPeer, side Side, denies bool) ([]SetMatch, bool) {
	switch p.kind {
	case peerAny:
		return sets, true
	case peerExternal:
		sets = append(sets, SetMatch{Set: b.containersSet(denies), Side: side, Not: true})
		if b.places {
			sets = append(sets, SetMatch{Set: b.awaySet(denies), Side: side, Not: true})
		}
		return sets, true
	case peerContainers:
		return append(sets, SetMatch{Set: b.groupSet(p.group, denies), Side: side}), true
	case peerNet:
		if p.nets.ipv6() == b.ipv6 {
			return append(sets, SetMatch{Set: b.netSet(p.nets), Side: side}), true
		}
	}
	return nil, false
}

// publishedEnds is ends for a connection to a published port. It asks as if the connection went
// to the container behind the port.
func (b *builder) publishedEnds(s Stage, d Direction, g *group, p *readyPeer, of *readyRule) ([]SetMatch, bool) {
	denies := s == Guardrail
	if d == Ingress {
		sets, ok := b.peerMatch(make([]SetMatch, 1, 3), p, Src, denies)
		if !ok {
			return nil, false
		}
		sets[0] = SetMatch{Set: b.targetSet(g.key, g.about, targetsOf(g, denies), of, denies, s), Side: Dst}
		return sets, true
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

// targets gives the containers behind published ports that a peer means. In an allow, a CIDR
// means a container if it has the container's first address of the family: the connection would
// have gone there. In a deny, any address of the container will do, because docker-proxy also
// uses the other family.
func (b *builder) targets(p *readyPeer, denies bool) (targets, bool) {
	switch p.kind {
	case peerAny:
		return targets{group: none, is: func(target) bool { return true }}, true
	case peerContainers:
		return targetsOf(p.group, denies), true
	case peerNet:
		if denies {
			return targets{group: none, is: func(t target) bool { return slices.ContainsFunc(t.Addrs, p.nets.contains) }}, true
		}
		if p.nets.ipv6() != b.ipv6 {
			return targets{}, false
		}
		return targets{group: none, is: func(t target) bool {
			i := slices.IndexFunc(t.Addrs, func(a netip.Addr) bool { return a.Is6() == b.ipv6 })
			return i >= 0 && p.nets.contains(t.Addrs[i])
		}}, true
	}
	return targets{}, false
}
