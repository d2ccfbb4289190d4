package desired

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"netguard/netpolicy/guard"
)

// linkLocals decides which link-local addresses an endpoint has, besides the one that follows
// from its MAC. There are two kinds.
//
// Docker gives some (docker run --link-local-ip). The container's creator names them, as in a
// label netguard.guard.allow. They need no permission: beyond the link they mean nothing.
//
// A container makes others by itself (stable-privacy, addr_gen_mode 2 or 3). Only the container
// says so. Such an address counts only if no other container has it or was given it. The first
// container that has it keeps it as long as it has it. Only a few count for each port.
//
// On a bridge with one of the host's own ports, neither kind counts without the operator's
// permission: anybody beyond that port may have the address.
//
// Both kinds count only on their own bridge, like an address that the operator permits.
type linkLocals struct {
	// earlier are the addresses that an earlier agent let each port have, by ifindex.
	earlier map[int]map[netip.Addr]bool
	read    bool
	// has gives the port (link.Port.Seen) that has an address.
	has map[spot]uint64
	// ever says that a container has had such an address. From then on, rules tell containers
	// by their bridge as well. It stays set, so that the rules are not written again for each
	// container that comes and goes.
	ever bool
}

// spot is an address on a bridge.
type spot struct {
	bridge string
	addr   netip.Addr
}

// cloudAddrs are the addresses of clouds' metadata services, which give a machine its secrets.
// No container can have one unless the operator permits it.
var cloudAddrs = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("169.254.169.253"), netip.MustParseAddr("169.254.169.123"),
	netip.MustParseAddr("169.254.170.2"), netip.MustParseAddr("169.254.170.23"), netip.MustParseAddr("169.254.0.23"),
}

// said is an endpoint that says it has an address, and since when (link.LinkLocal.Since).
type said struct {
	by    *Endpoint
	since uint64
}

// decide adds to each endpoint's Allow the link-local addresses that count, and notes why others
// do not. Call it after extraAddresses.decide, which decides about labels.
func (l *linkLocals) decide(endpoints []*Endpoint, x extraAddresses, before func() (guard.Earlier, error)) error {
	if !l.read {
		earlier, err := before()
		if err != nil {
			return err
		}
		l.earlier, l.read = earlier.LinkLocals, true
	}
	if !slices.ContainsFunc(endpoints, func(d *Endpoint) bool {
		return len(d.Container.LocalAddrs) > 0 || d.Port != nil && len(d.Port.LinkLocals) > 0
	}) {
		l.has = nil
		return nil
	}
	mine := map[spot]*Endpoint{}
	for _, d := range endpoints {
		for _, a := range d.Own() {
			mine[spot{d.Network.Bridge, a}] = d
		}
	}
	for _, d := range endpoints {
		for _, a := range d.Container.LinkLocals(d.Network) {
			if d.Network.Bridge == "" || d.Unmanaged != "" {
				continue
			}
			if why := foreign(d, a, mine, x); why != "" {
				d.notes = append(slices.Clip(d.notes), fmt.Sprintf("link-local address %s (--link-local-ip) is left out: %s", a, why))
				continue
			}
			d.local(a)
		}
	}
	given := givenTo(endpoints)
	all := map[spot][]said{}
	for _, d := range endpoints {
		if d.Port == nil || d.Network.Bridge == "" {
			continue
		}
		for _, a := range d.Port.LinkLocals {
			s := spot{d.Network.Bridge, a.Addr}
			all[s] = append(all[s], said{d, a.Since})
		}
	}
	has := map[spot]uint64{}
	for _, s := range slices.SortedFunc(maps.Keys(all), func(a, b spot) int {
		return cmp.Or(strings.Compare(a.bridge, b.bridge), a.addr.Compare(b.addr))
	}) {
		by := all[s]
		winner, ok := l.first(s, by)
		if ok {
			has[s] = winner.Port.Seen
		}
		for _, one := range by {
			d := one.by
			if d.Unmanaged != "" || d.allows(s.addr) {
				continue
			}
			why := foreign(d, s.addr, mine, x)
			switch other := given(s, d); {
			case why != "":
			case other != nil:
				why = fmt.Sprintf("container %s was given it", other.Container.Name)
			case !ok:
				why = "more than one container has it, and it is not known which was first"
			case winner != d:
				why = fmt.Sprintf("container %s had it first", winner.Container.Name)
			default:
				d.local(s.addr)
				continue
			}
			d.notes = append(slices.Clip(d.notes), fmt.Sprintf("link-local address %s, which the container says it has, is left out: %s", s.addr, why))
		}
	}
	l.has = has
	for i := range endpoints {
		l.ever = l.ever || len(endpoints[i].locals) > 0
	}
	return nil
}

// foreign says why an address cannot be an endpoint's; "" if it can.
func foreign(d *Endpoint, a netip.Addr, mine map[spot]*Endpoint, x extraAddresses) string {
	permitted := within(x.permitted, a)
	if other := mine[spot{d.Network.Bridge, a}]; other != nil && other != d {
		return "it is the address of container " + other.Container.Name
	}
	if slices.Contains(d.Network.Gateways, a) {
		return "it is the address of the bridge"
	}
	if !permitted && slices.Contains(cloudAddrs, a) {
		return "it is that of a cloud's metadata service"
	}
	if ports := x.own[d.Network.Bridge].all; !permitted && len(ports) > 0 {
		return fmt.Sprintf("bridge %s holds %s, beyond which it may be somebody else's; name it in the label %s, and %s", d.Network.Bridge, ports[0], guard.LabelAllow, ask)
	}
	switch route, err := x.route(a); {
	case err != nil:
		return fmt.Sprintf("for now: %v", err)
	case route.Own:
		return "it is the host's own address"
	case a.Is4() && !permitted && leads(route, x.bridges[d.Network.Bridge]):
		return fmt.Sprintf("the host reaches it by %s", route.Device)
	}
	return ""
}

// first finds the endpoint that keeps an address, of those that say they have it: the one that
// had it at the last call, else the one that had it under an earlier agent, else the first that
// had it. ok is false if nobody knows which was first.
func (l *linkLocals) first(s spot, by []said) (*Endpoint, bool) {
	for _, one := range by {
		if seen, ok := l.has[s]; ok && one.by.Port.Seen == seen {
			return one.by, true
		}
	}
	var had []*Endpoint
	for _, one := range by {
		if l.earlier[one.by.Port.Index][s.addr] {
			had = append(had, one.by)
		}
	}
	if len(had) == 1 {
		return had[0], true
	}
	lowest := slices.MinFunc(by, func(a, b said) int { return cmp.Compare(a.since, b.since) })
	for _, one := range by {
		if one.by != lowest.by && one.since == lowest.since {
			return nil, false
		}
	}
	return lowest.by, true
}

// local adds a link-local address to the endpoint's Allow.
func (d *Endpoint) local(a netip.Addr) {
	if !d.allows(a) && !slices.Contains(d.Own(), a) {
		// The address counts now, so notes about it from a label are wrong.
		d.notes = slices.DeleteFunc(slices.Clone(d.notes), func(n string) bool {
			return strings.HasPrefix(n, fmt.Sprintf("label %s: %s ", guard.LabelAllow, a))
		})
		d.locals = append(d.locals, a)
		d.Allow.Prefixes = append(slices.Clip(d.Allow.Prefixes), netip.PrefixFrom(a, a.BitLen()))
	}
}

// allows tells whether an address is the endpoint's by a label or by Docker.
func (d *Endpoint) allows(a netip.Addr) bool {
	return within(d.Allow.Prefixes, a)
}

// givenTo gives a function that finds another endpoint of the bridge that has an address by a
// label or by Docker.
func givenTo(endpoints []*Endpoint) func(spot, *Endpoint) *Endpoint {
	by := map[string][]*Endpoint{}
	for i := range endpoints {
		if d := endpoints[i]; len(d.Allow.Prefixes) > 0 && d.Network.Bridge != "" {
			by[d.Network.Bridge] = append(by[d.Network.Bridge], d)
		}
	}
	names := map[*Endpoint][]netip.Prefix{}
	for _, all := range by {
		for _, d := range all {
			names[d] = slices.Clone(d.Allow.Prefixes)
		}
	}
	return func(s spot, not *Endpoint) *Endpoint {
		for _, d := range by[s.bridge] {
			if d != not && slices.ContainsFunc(names[d], func(p netip.Prefix) bool { return p.Contains(s.addr) }) {
				return d
			}
		}
		return nil
	}
}
