package netpolicy

import (
	"net/netip"
	"slices"
)

// published is a port of the host, and the endpoints that it may lead to.
type published struct {
	member Member
	to     []target
}

type target struct {
	*subject
	port uint16 // the container's
}

// publishedOf gives the published ports of a family, sorted. They include ports that lead to a
// container of the other family only, because docker-proxy takes connections there.
func publishedOf(subjects []*subject, ipv6 bool) []published {
	at := map[Member][]target{}
	for _, s := range subjects {
		for _, p := range s.Published {
			if p.HostPort == 0 || !p.Proto.HasPorts() {
				continue
			}
			for _, prefix := range hostPrefixes(p.HostIP, ipv6) {
				m := Member{Prefix: prefix, Proto: p.Proto, Port: p.HostPort}
				if t := (target{s, p.Port}); !slices.Contains(at[m], t) {
					at[m] = append(at[m], t)
				}
			}
		}
	}
	all := make([]published, 0, len(at))
	for m, to := range at {
		all = append(all, published{m, to})
	}
	slices.SortFunc(all, func(a, b published) int { return CompareMembers(a.member, b.member) })
	shareTargets(all)
	return all
}

// shareTargets gives ports that overlap each other's targets: one for an address next to
// one for every address.
func shareTargets(all []published) {
	type key struct {
		proto Protocol
		port  uint16
	}
	same := map[key][]int{}
	for i, p := range all {
		k := key{p.member.Proto, p.member.Port}
		same[k] = append(same[k], i)
	}
	for _, list := range same {
		was := make([][]target, len(list))
		for i, x := range list {
			was[i] = slices.Clone(all[x].to)
		}
		for _, x := range list {
			for j, y := range list {
				if x == y || !all[x].member.Prefix.Overlaps(all[y].member.Prefix) {
					continue
				}
				for _, t := range was[j] {
					if !slices.Contains(all[x].to, t) {
						all[x].to = append(all[x].to, t)
					}
				}
			}
		}
	}
}

// hostPrefixes gives the prefixes of a family that a published port is bound to.
func hostPrefixes(ip netip.Addr, ipv6 bool) []netip.Prefix {
	ip = ip.Unmap().WithZone("")
	switch {
	case ip.IsValid() && ip.Is6() != ipv6:
		return nil
	case ip.IsValid() && !ip.IsUnspecified():
		return []netip.Prefix{netip.PrefixFrom(ip, ip.BitLen())}
	}
	all := netip.IPv4Unspecified()
	if ipv6 {
		all = netip.IPv6Unspecified()
	}
	low, high := halves(netip.PrefixFrom(all, 0))
	return []netip.Prefix{low, high}
}
