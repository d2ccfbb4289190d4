package netpolicy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// CompareMembers orders members: by address first.
func CompareMembers(a, b Member) int {
	if n := a.Prefix.Addr().Compare(b.Prefix.Addr()); n != 0 {
		return n
	}
	if n := cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()); n != 0 || a == b {
		return n
	}
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), strings.Compare(a.Bridge, b.Bridge))
}

// String is the member as ipset writes it: 192.0.2.1, 10.0.0.0/8, 0.0.0.0/1,tcp:80,
// or 192.0.2.1,docker0.
func (m Member) String() string {
	var b strings.Builder
	if m.Prefix.IsSingleIP() {
		b.WriteString(m.Prefix.Addr().String())
	} else {
		b.WriteString(m.Prefix.String())
	}
	if m.Proto != 0 {
		b.WriteString("," + m.Proto.String() + ":" + strconv.Itoa(int(m.Port)))
	}
	if m.Bridge != "" {
		b.WriteString("," + m.Bridge)
	}
	return b.String()
}

func (p Protocol) String() string {
	switch p {
	case AnyProtocol:
		return "any"
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case ICMPv6:
		return "icmpv6"
	case SCTP:
		return "sctp"
	}
	return strconv.Itoa(int(p))
}

// HasPorts tells whether packets of the protocol carry ports that a policy can
// name.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP || p == SCTP }

// DiffMembers gives the members to add to a set that has have, and those to delete from it, so
// that it has want. Neither list need be sorted.
func DiffMembers(have, want []Member) (add, del []Member) {
	had := make(map[Member]bool, len(have))
	for _, m := range have {
		had[m] = true
	}
	for _, m := range want {
		if !had[m] {
			add = append(add, m)
			had[m] = true
		}
	}
	wanted := make(map[Member]bool, len(want))
	for _, m := range want {
		wanted[m] = true
	}
	for _, m := range have {
		if !wanted[m] {
			del = append(del, m)
			wanted[m] = true
		}
	}
	slices.SortFunc(add, CompareMembers)
	slices.SortFunc(del, CompareMembers)
	return add, del
}

// Change is one step from the actual members of sets to the wanted ones.
type Change struct {
	Set     string
	Kind    Kind
	Delete  bool // else the members are added
	Members []Member
}

// Changes gives the steps that bring the sets of a family to the wanted members. have are the
// members that each set has now, none for a set that it lacks. First come the steps that close,
// then those that open. So no connection passes in between that passes neither before nor after.
func (f *Family) Changes(have map[string][]Member) []Change {
	var steps [4][]Change
	for _, s := range f.Sets {
		add, del := DiffMembers(have[s.Name], s.Members)
		first, last := 2, 1 // what opens: delete, then add
		if s.Closes {
			first, last = 0, 3
		}
		if len(add) > 0 {
			steps[first] = append(steps[first], Change{Set: s.Name, Kind: s.Kind, Members: add})
		}
		if len(del) > 0 {
			steps[last] = append(steps[last], Change{Set: s.Name, Kind: s.Kind, Delete: true, Members: del})
		}
	}
	return slices.Concat(steps[:]...)
}

// Patched gives sorted members with add and without del. members has none of add and all of del.
// If nothing changes, the result is the same slice.
func Patched(members, add, del []Member) []Member {
	if len(add)+len(del) == 0 {
		return members
	}
	add, del = sorted(add), sorted(del)
	out := make([]Member, 0, len(members)+len(add)-len(del))
	for len(add)+len(del) > 0 {
		next, deletes := Member{}, len(add) == 0 || len(del) > 0 && CompareMembers(del[0], add[0]) < 0
		if deletes {
			next, del = del[0], del[1:]
		} else {
			next, add = add[0], add[1:]
		}
		i, _ := slices.BinarySearchFunc(members, next, CompareMembers)
		out = append(out, members[:i]...)
		members = members[i:]
		if deletes {
			members = members[1:]
		} else {
			out = append(out, next)
		}
	}
	if out = append(out, members...); len(out) == 0 {
		return nil
	}
	return out
}
