package netpolicy

import (
	"net/netip"
	"strconv"
)

// portLists are the published ports of a world, in one family.
type portLists struct {
	all []published
	// byGroup are the ports that may lead to an endpoint of a group, as indexes of all. The first
	// map is for an allow, the second for a deny.
	byGroup [2]map[int][]int
}

func portListsOf(subjects []*subject, ipv6 bool) *portLists {
	l := &portLists{all: publishedOf(subjects, ipv6), byGroup: [2]map[int][]int{{}, {}}}
	for i, p := range l.all {
		for _, t := range p.to {
			for kind, groups := range [][]int{t.opens, t.has} {
				for _, g := range groups {
					if list := l.byGroup[kind][g]; len(list) == 0 || list[len(list)-1] != i {
						l.byGroup[kind][g] = append(list, i)
					}
				}
			}
		}
	}
	return l
}

// targets are the endpoints behind published ports for which the function is gives true. group is
// their group, or none.
type targets struct {
	group int // or none
	kind  int // of lists of portLists
	is    func(target) bool
}

func targetsOf(g *group, denies bool) targets {
	if denies {
		return targets{g.number, 1, func(t target) bool { return t.in(t.has, g.number) }}
	}
	return targets{g.number, 0, func(t target) bool { return t.in(t.opens, g.number) }}
}

// of gives the published ports that lead to a target by a port of p. With some, one target is
// enough. Without some, all endpoints that the port leads to must be targets, except open ones.
func (l *portLists) of(to targets, p ports, some bool, open func(target) bool) []Member {
	var members []Member
	consider := func(port *published) {
		meant, not := false, false
		for _, t := range port.to {
			switch {
			case to.is(t) && p.contain(port.member.Proto, t.port):
				meant = true
			case open != nil && open(t):
			default:
				not = true
			}
		}
		if meant && (some || !not) {
			members = append(members, port.member)
		}
	}
	if to.group != none {
		for _, i := range l.byGroup[to.kind][to.group] {
			consider(&l.all[i])
		}
		return members
	}
	for i := range l.all {
		consider(&l.all[i])
	}
	return members
}

func (b *builder) portSet(name, about string, members func(*portLists) []Member) *spec {
	s := b.set(name)
	if s != nil {
		s.Kind, s.About, s.ports = Published, about, members
		b.made.ports = append(b.made.ports, s)
	}
	return s
}

// publishedSet is the set of all published ports.
func (b *builder) publishedSet() string {
	name := b.named(letterPublished)
	if s := b.portSet(name, "published ports", func(l *portLists) []Member {
		return l.of(targets{group: none, is: func(target) bool { return true }}, nil, true, nil)
	}); s != nil {
		s.Closes = true
	}
	return name
}

// exceptSet is the set of ports of the host that a deny leaves out. A packet of a protocol
// without ports is not in it.
func (b *builder) exceptSet(p ports) string {
	name := b.named(letterPublished, "except", p.String())
	s := b.set(name)
	if s == nil {
		return name
	}
	s.Kind, s.About = Published, "ports of the host that a deny leaves out, "+p.String()
	for _, spec := range p {
		for _, r := range spec.ranges {
			for port := int(r.First); port <= int(r.Last); port++ {
				for _, prefix := range hostPrefixes(netip.Addr{}, b.ipv6) {
					s.Members = append(s.Members, Member{Prefix: prefix, Proto: spec.proto, Port: uint16(port)})
				}
			}
		}
	}
	s.Members = sorted(s.Members)
	return name
}

// isolatedPorts is the set of published ports that lead to an endpoint that a
// stage closes.
func (b *builder) isolatedPorts(s Stage) string {
	name := scopedSet(b.ipv6, letterPublished, s, b.scopes[s])
	if made := b.portSet(name, "published ports closed by "+s.String(), func(l *portLists) []Member {
		return l.of(targets{group: none, is: func(t target) bool { return t.isolated[s] }}, nil, true, nil)
	}); made != nil {
		made.Scoped, made.Closes = true, true
	}
	return name
}

// targetSet is the set of published ports that lead to the endpoints that a rule is about, on one
// of its ports. In an allow, the rule has to be about all endpoints that the port may lead to,
// but for those that an ingress stage leaves open.
func (b *builder) targetSet(key, about string, to targets, of *readyRule, denies bool, s Stage) string {
	name := contentSet(b.ipv6, letterPublished, key, of.text, strconv.FormatBool(denies), b.scopes[s], s.String())
	if b.sets[name] != nil {
		return name
	}
	made := b.portSet(name, "published ports of "+about+", "+of.text, func(l *portLists) []Member {
		if denies {
			return l.of(to, of.ports, true, nil)
		}
		return l.of(to, of.ports, false, func(t target) bool { return s >= FileIngress && !t.isolated[s] })
	})
	made.Scoped, made.Closes = true, denies
	return name
}
