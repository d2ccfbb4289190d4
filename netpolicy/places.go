package netpolicy

import (
	"net/netip"
	"slices"
	"strconv"
)

// In a world of places a container is an address on a bridge. An operator may let it have an
// address that is somebody else's beyond that bridge. On the bridge, the address counts as the
// container's. Anywhere else it is not, so what closes the container does not close the address
// for others.

// whose is the kind of the sets that say whose an address is.
func (b *builder) whose() Kind {
	if b.places {
		return Places
	}
	return Addrs
}

// content names what a set of addresses is about. A set of another kind needs another name.
func (b *builder) content(key string) []string {
	if b.places {
		return []string{key, Places.String()}
	}
	return []string{key}
}

// loopback is the device of a packet that the host sends to one of its own addresses, and then
// leads on to a container, as by a published port. The kernel chose the device before that. A
// container's address counts there too, since nothing else tells whose it is.
const loopback = "lo"

// awaySet is the set of what any endpoint has in Away. On the endpoint's bridge it is a
// container's.
func (b *builder) awaySet(denies bool) string {
	name := b.named(letterAway, strconv.FormatBool(denies))
	if s := b.set(name); s != nil {
		s.Kind, s.Closes, s.About = Places, !denies, "extra addresses of other networks"
		b.made.away = append(b.made.away, s)
	}
	return name
}

// leaves tells whether anything of an endpoint counts on its bridge alone.
func (e *Endpoint) leaves() bool { return e.Managed && e.Bridge != "" && len(e.Away) > 0 }

// awayParts gives for each subject what it has in Away in a family, without the addresses of
// endpoints on its bridge. A prefix takes none of those.
func (m *membership) awayParts(subjects []*subject, ipv6 bool) map[*subject][]netip.Prefix {
	parts := map[*subject][]netip.Prefix{}
	taken := map[string][]netip.Prefix{} // by bridge
	for _, s := range subjects {
		if s.leaves() {
			taken[s.Bridge] = nil
		}
	}
	if len(taken) == 0 {
		return nil
	}
	for a, h := range m.holders {
		for i, s := range h.by() {
			on := func(o *subject) bool { return o.Bridge == s.Bridge }
			if list, asked := taken[s.Bridge]; asked && !slices.ContainsFunc(h.by()[:i], on) {
				taken[s.Bridge] = append(list, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	for _, s := range subjects {
		if !s.leaves() {
			continue
		}
		prefixes := filter(s.Away, func(p netip.Prefix) bool { return p.Addr().Is6() == ipv6 })
		for _, a := range merged(prefixes) {
			parts[s] = append(parts[s], newCIDR(a, taken[s.Bridge]).prefixes...)
		}
	}
	return parts
}
