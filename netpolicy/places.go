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

// loopback is the device that the host's packets have that are led on from one of its own
// addresses to a container, as by a published port: the kernel chose it before. A
// container's address counts there too, since nothing else tells whose it is.
const loopback = "lo"

// awaySet is what is away of any endpoint: on its bridge it is a container's.
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

// awayParts gives for each subject that has some what is away of it in a family, without
// the addresses of endpoints on its bridge: a prefix takes none of those.
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
