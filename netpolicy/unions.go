package netpolicy

import (
	"net/netip"
	"slices"
)

func members(sets []*spec) [][]Member {
	lists := make([][]Member, len(sets))
	for i, s := range sets {
		lists[i] = s.Members
	}
	return lists
}

func unionOf(kind Kind, lists [][]Member) []Member {
	all := slices.Concat(lists...)
	if kind == Nets {
		prefixes := make([]netip.Prefix, len(all))
		for i, m := range all {
			prefixes[i] = m.Prefix
		}
		return netMembers(merged(prefixes))
	}
	return sorted(all)
}

// members gives for each block the members that overlap no member of another block.
func (s *split) members(of func(*spec) []Member) [][]Member {
	lists := make([][]Member, len(s.of))
	owner := map[Member]int{} // a block, or -1 for several
	for i, block := range s.of {
		sets := make([][]Member, len(block))
		for j, set := range block {
			sets[j] = of(set)
		}
		lists[i] = unionOf(s.kind, sets)
		for _, m := range lists[i] {
			if _, taken := owner[m]; taken {
				owner[m] = -1
			} else {
				owner[m] = i
			}
		}
	}
	out := make([][]Member, len(s.of))
	wide := make([][]Member, len(s.of))
	if s.kind == Places {
		for i, list := range lists {
			wide[i] = filter(list, func(m Member) bool { return !m.Prefix.IsSingleIP() })
		}
	}
	for i, list := range lists {
		out[i] = filter(list, func(m Member) bool {
			if owner[m] != i {
				return false
			}
			for j := range lists {
				if s.kind == Nets && j != i && overlaps(lists[j], m.Prefix) || s.kind == Places && j != i && placed(lists[j], wide[j], m) {
					return false
				}
			}
			return true
		})
	}
	return out
}

// placed tells whether a member overlaps a member of another block. all are the members of that
// block, wide those that are more than one address. A single address can only overlap a wide one:
// the same single address in two blocks is left out before.
func placed(all, wide []Member, m Member) bool {
	if m.Prefix.IsSingleIP() {
		all = wide
	}
	return slices.ContainsFunc(all, func(o Member) bool { return o.Bridge == m.Bridge && o.Prefix.Overlaps(m.Prefix) })
}

// overlaps tells whether a prefix overlaps a member. The members are sorted and do not overlap
// each other.
func overlaps(members []Member, p netip.Prefix) bool {
	i, _ := slices.BinarySearchFunc(members, p, func(m Member, p netip.Prefix) int { return comparePrefixes(m.Prefix, p) })
	return i < len(members) && members[i].Prefix.Overlaps(p) || i > 0 && members[i-1].Prefix.Overlaps(p)
}
