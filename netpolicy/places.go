package netpolicy

import (
	"net/netip"
	"slices"
	"strconv"
)

// In a world of places a container is an address on a bridge. So an address that an
// operator lets it have, and that is somebody else's beyond that bridge, counts as the
// container's there and as nobody's anywhere else: what closes the container closes it
// for no one else.

// whose is the kind of the sets that say whose an address is.
func (b *builder) whose() Kind {
	if b.places {
		return Places
	}
	return Addrs
}

// content names what such a set is about: of another kind it has another name.
func (b *builder) content(key string) []string {
	if b.places {
		return []string{key, Places.String()}
	}
	return []string{key}
}

// appendPlaces adds an address as a member, for whom of its owners is meant.
func (b *builder) appendPlaces(members []Member, a owned, has []bool) []Member {
	m := single(a.addr)
	if !b.places {
		return append(members, m)
	}
	led := false
	for _, i := range a.by {
		if m.Bridge = b.endpoints[i].Bridge; has[i] && m.Bridge != "" {
			members = append(members, m)
			led = true
		}
	}
	if m.Bridge = loopback; led {
		members = append(members, m)
	}
	return members
}

// loopback is the device that the host's packets have that are led on from one of its own
// addresses to a container, as by a published port: the kernel chose it before. A
// container's address counts there too, since nothing else tells whose it is.
const loopback = "lo"

// awayOf gives what is away of some of the endpoints.
func (b *builder) awayOf(has []bool) []Member {
	var members []Member
	for i, parts := range b.away {
		for _, p := range parts {
			if has[i] {
				members = append(members, Member{Prefix: p, Bridge: b.endpoints[i].Bridge})
			}
		}
	}
	return members
}

// awaySet is what is away of any endpoint: on its bridge it is a container's.
func (b *builder) awaySet(denies bool) string {
	return b.set(Set{Name: contentSet(b.ipv6, letterAway, strconv.FormatBool(denies)), Kind: Places, Closes: !denies, About: "extra addresses of other networks"},
		func(b *builder) []Member {
			all := make([]bool, len(b.endpoints))
			for i := range all {
				all[i] = true
			}
			return b.awayOf(all)
		})
}

// awayParts gives for each endpoint what is away of it in a family, without the
// addresses of endpoints on its bridge: a prefix takes none of those.
func (p *prepared) awayParts(ipv6 bool) [][]netip.Prefix {
	parts := make([][]netip.Prefix, len(p.endpoints))
	taken := map[string][]netip.Prefix{} // by bridge
	for i := range p.endpoints {
		e := &p.endpoints[i]
		if !e.Managed || e.Bridge == "" {
			continue
		}
		var prefixes []netip.Prefix
		for _, a := range e.Away {
			if a.Addr().Is6() == ipv6 {
				prefixes = append(prefixes, a)
			}
		}
		if len(prefixes) == 0 {
			continue
		}
		if _, known := taken[e.Bridge]; !known {
			taken[e.Bridge] = p.addressesOn(e.Bridge)
		}
		for _, a := range merged(prefixes) {
			parts[i] = append(parts[i], newCIDR(a, taken[e.Bridge]).prefixes...)
		}
	}
	return parts
}

// addressesOn are the addresses of the endpoints on a bridge.
func (p *prepared) addressesOn(bridge string) []netip.Prefix {
	var all []netip.Prefix
	for a, by := range p.own {
		if slices.ContainsFunc(by, func(i int) bool { return p.endpoints[i].Bridge == bridge }) {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return all
}
