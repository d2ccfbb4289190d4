package netpolicy

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
)

// maxNets is how many prefixes a set gets before another set begins. One CIDR with its exceptions
// never has more. A driver takes several times as many.
const maxNets = 1 << 16

// nets is the addresses of some CIDRs of one family.
type nets struct {
	of       []cidr
	prefixes []netip.Prefix // sorted, apart from each other, none a /0
	key      string         // a hash of the prefixes
}

// newNets takes CIDRs of one family.
func newNets(of []cidr) nets {
	var all []netip.Prefix
	for _, c := range of {
		all = append(all, c.prefixes...)
	}
	n := nets{of: of, prefixes: merged(all)}
	n.key = keyOf(n.prefixes)
	return n
}

func keyOf(prefixes []netip.Prefix) string {
	words := make([]string, len(prefixes))
	for i, p := range prefixes {
		words[i] = p.String()
	}
	return digest(setHashLen, words...)
}

// gathered joins the CIDRs of a rule's peers of one family into one peer. Then a packet filter
// asks once for all of them.
func gathered(peers []peer) []peer {
	var all []peer
	var cidrs [2][]cidr
	for _, p := range peers {
		if p.kind != peerNet {
			all = append(all, p)
			continue
		}
		for _, c := range p.nets.of {
			cidrs[index(c.ipv6())] = append(cidrs[index(c.ipv6())], c)
		}
	}
	for _, list := range cidrs {
		for len(list) > 0 {
			n, size := 0, 0
			for n < len(list) && (n == 0 || size+len(list[n].prefixes) <= maxNets) {
				size += len(list[n].prefixes)
				n++
			}
			all = append(all, peer{kind: peerNet, nets: newNets(list[:n:n])})
			list = list[n:]
		}
	}
	return all
}

// merged gives the same addresses as few prefixes that do not overlap. None is a /0.
func merged(all []netip.Prefix) []netip.Prefix {
	all = slices.Clone(all)
	slices.SortFunc(all, comparePrefixes)
	var out []netip.Prefix
	for _, p := range all {
		if n := len(out); n > 0 && out[n-1].Overlaps(p) {
			continue // what begins no earlier and overlaps is inside
		}
		out = append(out, p)
		for n := len(out); n > 1; n-- {
			a, b := out[n-2], out[n-1]
			if a.Bits() != b.Bits() || a.Bits() <= 1 {
				break
			}
			up := netip.PrefixFrom(a.Addr(), a.Bits()-1)
			if up.Masked() != up || !up.Contains(b.Addr()) {
				break
			}
			out[n-2] = up
			out = out[:n-1]
		}
	}
	return out
}

// inside tells whether one of sorted prefixes that do not overlap contains an
// address.
func inside(n int, prefix func(int) netip.Prefix, a netip.Addr) bool {
	i := sort.Search(n, func(i int) bool { return prefix(i).Addr().Compare(a) > 0 })
	return i > 0 && prefix(i-1).Contains(a)
}

func (n nets) ipv6() bool { return n.of[0].ipv6() }

func (n nets) contains(a netip.Addr) bool {
	return inside(len(n.prefixes), func(i int) netip.Prefix { return n.prefixes[i] }, a)
}

// String lists the CIDRs, the first of many.
func (n nets) String() string { return cidrsText(n.of) }

func cidrsText(of []cidr) string {
	const most = 3
	var words []string
	for _, c := range of[:min(most, len(of))] {
		words = append(words, c.String())
	}
	text := strings.Join(words, " or ")
	if more := len(of) - most; more > 0 {
		text += fmt.Sprintf(" or %d more", more)
	}
	return text
}
