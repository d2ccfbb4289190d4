package netpolicy

import "net/netip"

// outsides are where Outside looks for an address: first the prefixes for documentation (RFC
// 5737, RFC 3849) and benchmarks, then all that may be routed.
var outsides = [2][]netip.Prefix{
	prefixes("203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24", "198.18.0.0/15",
		"1.0.0.0/8", "2.0.0.0/7", "4.0.0.0/6", "8.0.0.0/7", "11.0.0.0/8", "12.0.0.0/6", "16.0.0.0/4", "32.0.0.0/3", "64.0.0.0/3", "128.0.0.0/3"),
	prefixes("2001:db8:ffff::/48", "2001:db8::/32", "2000::/3"),
}

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}

// Outside gives an address of each family that is in no CIDR of a rule (a /0 aside), in no
// exception of one, and not taken. It stands for somebody outside of whom rules know nothing
// more. A family without such an address has none.
func (r *RuleSet) Outside(taken []netip.Addr) []netip.Addr {
	var found []netip.Addr
	for _, f := range r.Families() {
		ipv6 := f == &r.V6
		var named []netip.Prefix
		for _, s := range f.Sets {
			for _, c := range s.of {
				named = append(named, c.except...)
				if c.prefix.Bits() > 0 {
					named = append(named, c.prefix)
				}
			}
		}
		for _, a := range taken {
			if a.Is6() == ipv6 {
				named = append(named, netip.PrefixFrom(a, a.BitLen()))
			}
		}
		for _, p := range outsides[index(ipv6)] {
			if a := firstFree(p, named); a.IsValid() {
				found = append(found, a)
				break
			}
		}
	}
	return found
}

// firstFree gives an address of a prefix that is in none of others, invalid if there
// is none.
func firstFree(p netip.Prefix, others []netip.Prefix) netip.Addr {
	var near []netip.Prefix
	for _, o := range others {
		if !o.Overlaps(p) {
			continue
		}
		if o.Bits() <= p.Bits() {
			return netip.Addr{}
		}
		near = append(near, o)
	}
	switch {
	case len(near) == 0 && p.IsSingleIP():
		return p.Addr()
	case len(near) == 0:
		return p.Addr().Next() // the first is often nobody's
	}
	low, high := halves(p)
	if a := firstFree(low, near); a.IsValid() {
		return a
	}
	return firstFree(high, near)
}
