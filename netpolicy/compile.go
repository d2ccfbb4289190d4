package netpolicy

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// World is all that a rule set is made of.
type World struct {
	Endpoints []Endpoint
	Policies  []Policy
	// Broken are policies that could not be read, in place of which nothing is
	// known: whom they select is closed both ways.
	Broken []Broken
	// Places has the rules tell a container by its address and its bridge together,
	// which costs a little more. Without, by its address alone, and what is Away of
	// endpoints does not count: nobody may use it then.
	Places bool
	// Held are the extra addresses that endpoints had before; see RuleSet.Held.
	Held map[Holding]bool
}

// Compile makes the rule set. It cannot fail: what could not be read closes the
// endpoints that it is about. The same input gives the same rule set.
func Compile(w World) *RuleSet { return compile(w, blockRules) }

// compile parts chains of more than so many rules.
func compile(w World, block int) *RuleSet {
	p := prepare(w)
	// The generation is a hash of rules that name it, so they are made twice.
	draft := &RuleSet{Generation: strings.Repeat("a", generationLen)}
	for _, f := range []*Family{&draft.V4, &draft.V6} {
		// Whole: how chains are parted follows from them.
		b := builder{prepared: p, block: math.MaxInt, ipv6: f == &draft.V6, generation: draft.Generation, draft: true, sets: map[string]*Set{}}
		f.Chains = b.chains()
	}
	meaning := []string{draft.rulesText(), strconv.Itoa(block)}
	if p.places { // no name says of what kind the sets of a generation are
		meaning = append(meaning, Places.String())
	}
	rs := &RuleSet{Generation: digest(generationLen, meaning...), States: p.states, bounded: boundedPeers(w.Policies), allows: allowedOf(w.Policies)}
	for _, f := range rs.Families() {
		ipv6 := f == &rs.V6
		b := builder{prepared: p, block: block, ipv6: ipv6, generation: rs.Generation, sets: map[string]*Set{},
			addrs: p.own.family(ipv6), ports: publishedOf(p.endpoints, ipv6)}
		if p.places {
			b.away = p.awayParts(ipv6)
		}
		*f = b.family()
	}
	return rs
}

// rulesText is all rules as a text.
func (r *RuleSet) rulesText() string {
	var b strings.Builder
	for _, f := range r.Families() {
		for _, c := range f.Chains {
			fmt.Fprintf(&b, "%s\n", c.Name)
			for _, r := range c.Rules {
				fmt.Fprintf(&b, "%v %d %v %d %d %s %v\n", r.Sets, r.Proto, r.Ports, r.ICMPType, r.Verdict, r.Goto, r.Origin)
			}
		}
	}
	return b.String()
}

// builder makes one family of a rule set.
type builder struct {
	*prepared
	block      int // rules
	ipv6       bool
	generation string
	draft      bool // only the rules count, sets stay without members
	addrs      []owned
	away       [][]netip.Prefix // by endpoint
	ports      []published
	sets       map[string]*Set
}

func (b *builder) family() Family {
	f := Family{IPv6: b.ipv6, Chains: b.chains()}
	f.Entry = [3]string{
		Forward: b.chain(codeForward, ""), Input: b.chain(codeInput, ""), Output: b.chain(codeOutput, ""),
	}
	for _, s := range b.sets {
		f.Sets = append(f.Sets, *s)
	}
	slices.SortFunc(f.Sets, func(a, b Set) int { return strings.Compare(a.Name, b.Name) })
	return f
}

func (b *builder) chain(path, stage string) string { return chainName(path, stage, b.generation) }

// set gives a set by its name, made at its first use.
func (b *builder) set(s Set, members func() []Member) string {
	if _, ok := b.sets[s.Name]; !ok {
		if !b.draft {
			s.Members = members()
			slices.SortFunc(s.Members, compareMembers)
			s.Members = slices.Compact(s.Members)
		}
		b.sets[s.Name] = &s
	}
	return s.Name
}

func single(a netip.Addr) Member { return Member{Prefix: netip.PrefixFrom(a, a.BitLen())} }

// addrsOf gives the addresses of which all owners, or one, are meant.
func (b *builder) addrsOf(has []bool, all bool) []Member {
	var members []Member
	for _, a := range b.addrs {
		meant := 0
		for _, i := range a.by {
			if has[i] {
				meant++
			}
		}
		if meant == len(a.by) || meant > 0 && !all {
			members = b.appendPlaces(members, a, has)
		}
	}
	return append(members, b.awayOf(has)...)
}

// groupSet is the set of a group's addresses. An address that several endpoints
// claim counts in an allow if all of them are meant, in a deny if one is.
func (b *builder) groupSet(g group, denies bool) string {
	letter := letterSelect
	if denies {
		letter = letterDeny
	}
	return b.set(Set{Name: contentSet(b.ipv6, letter, b.content(g.key)...), Kind: b.whose(), Closes: denies, About: g.about},
		func() []Member { return b.addrsOf(g.members(denies), !denies) })
}

// isolatedSet is the set of the endpoints that a stage closes.
func (b *builder) isolatedSet(s Stage) string {
	return b.set(Set{Name: scopedSet(b.ipv6, letterIsolated, stageCode(s), b.generation), Kind: b.whose(), Scoped: true, Closes: true,
		About: "endpoints closed by " + s.String()},
		func() []Member { return b.addrsOf(b.isolated[s], false) })
}

// containersSet is the set of all containers' addresses, managed or not. It is
// asked whether an address is not in it, so that a member more closes in an
// allow, and opens in a deny: there are two, for the order of changes.
func (b *builder) containersSet(denies bool) string {
	return b.set(Set{Name: contentSet(b.ipv6, letterContainers, strconv.FormatBool(denies)), Kind: Addrs, Closes: !denies, About: "all containers"},
		func() []Member {
			var members []Member
			for _, a := range b.addrs {
				members = append(members, single(a.addr))
			}
			return members
		})
}

func (b *builder) netSet(n nets) string {
	return b.set(Set{Name: contentSet(b.ipv6, letterNet, n.key), Kind: Nets, About: n.String(), of: n.of},
		func() []Member { return netMembers(n.prefixes) })
}

func netMembers(prefixes []netip.Prefix) []Member {
	members := make([]Member, len(prefixes))
	for i, p := range prefixes {
		members[i].Prefix = p
	}
	return members
}

// publishedSet is the set of all published ports.
func (b *builder) publishedSet() string {
	return b.set(Set{Name: contentSet(b.ipv6, letterPublished), Kind: Published, Closes: true, About: "published ports"},
		func() []Member { return b.portsOf(func(target) bool { return true }, nil, true) })
}

// exceptSet is the set of ports of the host that a deny leaves out. What has no ports is
// in no such set.
func (b *builder) exceptSet(p ports) string {
	return b.set(Set{Name: contentSet(b.ipv6, letterPublished, "except", p.String()), Kind: Published,
		About: "ports of the host that a deny leaves out, " + p.String()}, func() []Member {
		var all []Member
		for _, s := range p {
			for _, r := range s.ranges {
				for port := int(r.First); port <= int(r.Last); port++ {
					for _, prefix := range hostPrefixes(netip.Addr{}, b.ipv6) {
						all = append(all, Member{Prefix: prefix, Proto: s.proto, Port: uint16(port)})
					}
				}
			}
		}
		slices.SortFunc(all, compareMembers)
		return all
	})
}

// isolatedPorts is the set of published ports that lead to an endpoint that a
// stage closes.
func (b *builder) isolatedPorts(s Stage) string {
	return b.set(Set{Name: scopedSet(b.ipv6, letterPublished, stageCode(s), b.generation), Kind: Published, Scoped: true, Closes: true,
		About: "published ports closed by " + s.String()},
		func() []Member { return b.portsOf(func(t target) bool { return b.isolated[s][t.endpoint] }, nil, true) })
}

// targetSet is the set of published ports that lead to whom a rule is about, on
// one of its ports. For an allow all that the port may lead to has to be meant,
// but for what the stage leaves open.
func (b *builder) targetSet(key, about string, is func(target) bool, p ports, denies bool, s Stage) string {
	open := func(t target) bool { return s >= FileIngress && !b.isolated[s][t.endpoint] }
	name := contentSet(b.ipv6, letterPublished, key, p.String(), strconv.FormatBool(denies), b.generation, s.String())
	return b.set(Set{Name: name, Kind: Published, Scoped: true, Closes: denies,
		About: "published ports of " + about + ", " + p.String()},
		func() []Member {
			if denies {
				return b.portsOf(is, p, true)
			}
			return b.portsOf(is, p, false, open)
		})
}

// portsOf gives the published ports that lead to a target of which is holds and
// whose port is one of p: one of them if some will do, else all but the open.
func (b *builder) portsOf(is func(target) bool, p ports, some bool, open ...func(target) bool) []Member {
	var members []Member
	for _, port := range b.ports {
		meant, not := false, false
		for _, t := range port.to {
			switch {
			case is(t) && p.contain(port.member.Proto, t.port):
				meant = true
			case len(open) > 0 && open[0](t):
			default:
				not = true
			}
		}
		if meant && (some || !not) {
			members = append(members, port.member)
		}
	}
	return members
}

func stageCode(s Stage) string {
	return strings.ToLower([...]string{"", codeEgress, codeEgressLabel, codeIngress, codeIngressLabel}[s])
}
