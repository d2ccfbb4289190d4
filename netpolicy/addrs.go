package netpolicy

import (
	"net/netip"
	"slices"
)

// owners tells which endpoints an address belongs to, by index.
type owners map[netip.Addr][]int

// Usable tells whether a container can have an address to itself.
func Usable(a netip.Addr) bool {
	a, ok := usable(a)
	return ok && !(a.Is4() && (a.As4()[0] == 0 || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})))
}

// usable gives an address in the one form in which it is compared, or tells
// that it is none that a container can have to itself.
func usable(a netip.Addr) (netip.Addr, bool) {
	a = a.Unmap().WithZone("")
	return a, a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast()
}

// clean gives the endpoints with usable addresses only.
func clean(endpoints []Endpoint) []Endpoint {
	endpoints = slices.Clone(endpoints)
	for i := range endpoints {
		for _, list := range []*[]netip.Addr{&endpoints[i].Addrs, &endpoints[i].Extra} {
			var kept []netip.Addr
			for _, a := range *list {
				if a, ok := usable(a); ok {
					kept = append(kept, a)
				}
			}
			*list = kept
		}
		endpoints[i].Away = filter(endpoints[i].Away, func(p netip.Prefix) bool { return p.IsValid() && p == p.Masked() && !p.Addr().Is4In6() })
	}
	return endpoints
}

// ownersOf takes endpoints that are clean.
func ownersOf(endpoints []Endpoint) owners {
	o := owners{}
	add := func(a netip.Addr, i int) {
		if !slices.Contains(o[a], i) {
			o[a] = append(o[a], i)
		}
	}
	for i := range endpoints {
		for _, a := range endpoints[i].Addrs {
			add(a, i)
		}
	}
	// Only then what containers say of themselves: it takes no one's address.
	own := make(map[netip.Addr]bool, len(o))
	for a := range o {
		own[a] = true
	}
	for i := range endpoints {
		if !endpoints[i].Managed {
			continue
		}
		for _, a := range endpoints[i].Extra {
			if !own[a] {
				add(a, i)
			}
		}
	}
	return o
}

// owned is an address with its owners.
type owned struct {
	addr netip.Addr
	by   []int
}

// family gives the addresses of a family that belong to someone, sorted.
func (o owners) family(ipv6 bool) []owned {
	var all []owned
	for a, by := range o {
		if a.Is6() == ipv6 {
			all = append(all, owned{a, by})
		}
	}
	slices.SortFunc(all, func(a, b owned) int { return a.addr.Compare(b.addr) })
	return all
}
