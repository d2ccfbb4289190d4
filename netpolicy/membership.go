package netpolicy

import (
	"net/netip"
	"slices"
)

// membership is the state of a Compiler about the members of sets. An address is in the sets that
// at gives for it. So if it gets another holder, only those sets change.
type membership struct {
	holders holders
	// away says that some endpoint has addresses that count on its bridge alone. Then the members
	// of one address depend on others, so all members are made again.
	away bool
}

// at is a member of a set.
type at struct {
	set    *spec
	member Member
}

// at adds the sets that an address is in, with its member in each. by are the subjects that have
// the address.
func (f *frameFamily) at(all []at, a netip.Addr, by []*subject) []at {
	begin := len(all)
	add := func(set *spec, meant func(*subject) bool) {
		m := single(a)
		if set.Kind == Addrs {
			all = append(all, at{set, m})
			return
		}
		led := false
		for i, s := range by {
			if s.Bridge != "" && meant(s) && !slices.ContainsFunc(by[:i], func(o *subject) bool { return o.Bridge == s.Bridge && meant(o) }) {
				m.Bridge, led = s.Bridge, true
				all = append(all, at{set, m})
			}
		}
		if led {
			m.Bridge = loopback
			all = append(all, at{set, m})
		}
	}
	if len(by) == 0 {
		return all
	}
	// In an allow, an address counts if all subjects that have it are meant. In a deny, one is
	// enough.
	for _, g := range by[0].opens {
		if set := f.allow[g]; set != nil && !slices.ContainsFunc(by[1:], func(s *subject) bool { return !s.in(s.opens, g) }) {
			add(set, func(*subject) bool { return true })
		}
	}
	for i, s := range by {
		for _, g := range s.has {
			if set := f.deny[g]; set != nil && !slices.ContainsFunc(by[:i], func(o *subject) bool { return o.in(o.has, g) }) {
				add(set, func(o *subject) bool { return o.in(o.has, g) })
			}
		}
	}
	for stage, set := range f.isolated {
		closes := func(s *subject) bool { return s.isolated[stage] }
		if set != nil && slices.ContainsFunc(by, closes) {
			add(set, closes)
		}
	}
	for _, set := range f.all {
		all = append(all, at{set, single(a)})
	}
	return f.blocks(all, begin)
}

// blocks adds the union sets and block sets that follow from the sets in all[begin:].
func (f *frameFamily) blocks(all []at, begin int) []at {
	type place struct {
		split  *split
		member Member
		block  int
	}
	places := make([]place, 0, 8) // on the stack
	end := len(all)
	for i := begin; i < end; i++ {
		x := all[i]
		for _, union := range x.set.unions {
			if y := (at{union, x.member}); !slices.Contains(all[end:], y) {
				all = append(all, y)
			}
		}
		for _, in := range x.set.blocks {
			j := slices.IndexFunc(places, func(p place) bool { return p.split == in.split && p.member == x.member })
			switch {
			case j < 0:
				places = append(places, place{in.split, x.member, in.block})
			case places[j].block != in.block:
				places[j].block = none
			}
		}
	}
	for _, p := range places {
		if p.block != none {
			all = append(all, at{p.split.sets[p.block], p.member})
		}
	}
	return all
}

// build makes all members.
func (m *membership) build(f *frame, subjects []*subject, rs *RuleSet) {
	m.holders = make(holders, 2*len(subjects))
	for _, s := range subjects {
		m.holders.add(s)
	}
	var addrs [2][]netip.Addr
	for a := range m.holders {
		addrs[index(a.Is6())] = append(addrs[index(a.Is6())], a)
	}
	m.away = f.places && slices.ContainsFunc(subjects, func(s *subject) bool { return s.leaves() })
	bothFamilies(func(i int) {
		family, ff := rs.Families()[i], &f.families[i]
		slices.SortFunc(addrs[i], netip.Addr.Compare)
		all := make([]at, 0, 8*len(addrs[i]))
		for _, a := range addrs[i] {
			all = ff.at(all, a, m.holders[a].by())
		}
		lists := listsOf(all, len(ff.specs))
		if m.away {
			m.addAway(ff, lists, subjects)
		}
		family.Sets = make([]Set, len(ff.specs))
		for j, s := range ff.specs {
			set := &family.Sets[j]
			if *set = s.Set; s.Members == nil {
				set.Members = sorted(lists[j])
				set.singles = !m.away
			}
		}
		ff.fillPorts(family.Sets, subjects)
	})
}

// listsOf gives the members of each of n sets, in the order of all.
func listsOf(all []at, n int) [][]Member {
	counts := make([]int, n)
	for i := range all {
		counts[all[i].set.number]++
	}
	lists := make([][]Member, n)
	for i := range all {
		n := all[i].set.number
		if lists[n] == nil {
			lists[n] = make([]Member, 0, counts[n])
		}
		lists[n] = append(lists[n], all[i].member)
	}
	return lists
}

// fillPorts makes the members of the sets of published ports.
func (f *frameFamily) fillPorts(sets []Set, subjects []*subject) {
	ports := portListsOf(subjects, f.IPv6)
	for _, s := range f.ports {
		set := &sets[s.number]
		if set.Members = nil; len(ports.all) > 0 {
			set.Members = sorted(s.ports(ports))
		}
	}
}

// addAway adds what counts on one bridge alone.
func (m *membership) addAway(f *frameFamily, lists [][]Member, subjects []*subject) {
	for s, parts := range m.awayParts(subjects, f.IPv6) {
		sets := slices.Clone(f.away)
		for _, g := range s.opens {
			sets = append(sets, f.allow[g])
		}
		for _, g := range s.has {
			sets = append(sets, f.deny[g])
		}
		for stage, set := range f.isolated {
			if s.isolated[stage] {
				sets = append(sets, set)
			}
		}
		for _, set := range sets {
			for _, p := range parts {
				if set != nil {
					lists[set.number] = append(lists[set.number], Member{Prefix: p, Bridge: s.Bridge})
				}
			}
		}
	}
	of := func(s *spec) []Member { return lists[s.number] }
	for _, s := range f.specs {
		if s.of != nil {
			sets := make([][]Member, len(s.of))
			for i, o := range s.of {
				sets[i] = of(o)
			}
			lists[s.number] = unionOf(s.Kind, sets)
		}
	}
	for _, s := range f.splits {
		for i, list := range s.members(of) {
			lists[s.sets[i].number] = list
		}
	}
}

// patch changes the members of the last rule set for the subjects that went and came. The rules
// have to be the same. It gives false if all members have to be made again.
func (m *membership) patch(f *frame, gone, came, subjects []*subject, last, rs *RuleSet) bool {
	leaves := func(s *subject) bool { return s.leaves() }
	if m.away || f.places && slices.ContainsFunc(came, leaves) {
		return false
	}
	var addrs []netip.Addr
	ports := false
	for _, s := range slices.Concat(gone, came) {
		addrs = append(addrs, s.addresses()...)
		ports = ports || len(s.Published) > 0
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	var was, is [2][]at
	for _, a := range addrs {
		i := index(a.Is6())
		was[i] = f.families[i].at(was[i], a, m.holders[a].by())
	}
	for _, s := range gone {
		m.holders.remove(s)
	}
	for _, s := range came {
		m.holders.add(s)
	}
	for _, a := range addrs {
		i := index(a.Is6())
		is[i] = f.families[i].at(is[i], a, m.holders[a].by())
	}
	for i, family := range rs.Families() {
		family.Sets = slices.Clone(last.Families()[i].Sets)
		type delta struct{ add, del []Member }
		changed := map[*spec]*delta{}
		of := func(s *spec) *delta {
			d := changed[s]
			if d == nil {
				d = &delta{}
				changed[s] = d
			}
			return d
		}
		count := make(map[at]bool, len(was[i]))
		for _, x := range was[i] {
			count[x] = true
		}
		for _, x := range is[i] {
			if count[x] {
				delete(count, x)
				continue
			}
			d := of(x.set)
			d.add = append(d.add, x.member)
		}
		for x := range count {
			d := of(x.set)
			d.del = append(d.del, x.member)
		}
		for s, d := range changed {
			set := &family.Sets[s.number]
			set.Members = Patched(set.Members, d.add, d.del)
		}
		if ports {
			f.families[i].fillPorts(family.Sets, subjects)
		}
	}
	return true
}
