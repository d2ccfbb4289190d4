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
func Compile(w World) *RuleSet { return new(Compiler).Compile(w) }

// compile parts chains of more than so many rules.
func compile(w World, block int) *RuleSet { return (&Compiler{block: block}).Compile(w) }

// Compiler compiles one world after the other, and does again only what changed: while
// policies and what labels say stay, rules stay. It comes to the same as Compile. The zero
// value is ready; it is not safe for concurrent use.
type Compiler struct {
	block    int // rules, after which a chain is parted; blockRules if zero
	read     *labelReader
	skeleton *skeleton
	last     *RuleSet
}

// skeleton is a rule set without the members of its sets.
type skeleton struct {
	policies   []Policy
	labels     [2][]string // what the rules of labels are
	places     bool
	generation string
	families   [2]Family
	outlines   [2][]outline // in the order in which they can be filled
}

// outline is a set, and where its members come from.
type outline struct {
	Set
	members recipe
}

// recipe gives the members of a set in the world of a builder.
type recipe func(*builder) []Member

// Compile makes the rule set of a world. Sets that have the same members as in the last
// rule set share them with it.
func (c *Compiler) Compile(w World) *RuleSet {
	if c.block == 0 {
		c.block = blockRules
	}
	if c.read == nil {
		c.read = newLabelReader()
	}
	c.read.next()
	p := prepare(w, c.read)
	if !c.skeleton.fits(w, p) {
		c.skeleton = c.rules(w, p)
	}
	rs := &RuleSet{Generation: c.skeleton.generation, States: p.states, bounded: boundedPeers(w.Policies), allows: allowedOf(w.Policies)}
	for i, f := range rs.Families() {
		*f = c.fill(c.skeleton, p, i)
	}
	c.last = rs
	return rs
}

// fits tells whether the rules of a world are those of the skeleton.
func (s *skeleton) fits(w World, p *prepared) bool {
	if s == nil || s.places != w.Places || !slices.EqualFunc(s.policies, w.Policies, samePolicy) {
		return false
	}
	labels := labelsOf(p)
	return slices.Equal(s.labels[Ingress], labels[Ingress]) && slices.Equal(s.labels[Egress], labels[Egress])
}

// rules makes the rules of a world.
func (c *Compiler) rules(w World, p *prepared) *skeleton {
	// The generation is a hash of rules that name it, so they are made twice.
	draft := &RuleSet{Generation: strings.Repeat("a", generationLen)}
	for i, f := range draft.Families() {
		// Whole: how chains are parted follows from them.
		f.Chains = newBuilder(p, math.MaxInt, i, draft.Generation).chains()
	}
	meaning := []string{draft.rulesText(), strconv.Itoa(c.block)}
	if p.places { // no name says of what kind the sets of a generation are
		meaning = append(meaning, Places.String())
	}
	s := &skeleton{policies: slices.Clone(w.Policies), places: w.Places, generation: digest(generationLen, meaning...), labels: labelsOf(p)}
	for i := range s.families {
		b := newBuilder(p, c.block, i, s.generation)
		s.families[i] = Family{IPv6: b.ipv6, Chains: b.chains(), Entry: [3]string{
			Forward: b.chain(codeForward, ""), Input: b.chain(codeInput, ""), Output: b.chain(codeOutput, "")}}
		s.outlines[i] = b.outlines
	}
	return s
}

// fill gives a family of the skeleton with the members that its sets have in a world.
func (c *Compiler) fill(s *skeleton, p *prepared, family int) Family {
	b := newBuilder(p, c.block, family, s.generation)
	b.look()
	f := s.families[family]
	was := map[string]*Set{}
	if c.last != nil && c.last.Generation == s.generation {
		old := c.last.Families()[family]
		for i := range old.Sets {
			was[old.Sets[i].Name] = &old.Sets[i]
		}
	}
	f.Sets = make([]Set, len(s.outlines[family]))
	for i, o := range s.outlines[family] {
		set := &f.Sets[i]
		if *set = o.Set; o.members != nil {
			set.Members = sorted(o.members(b))
		}
		if old := was[set.Name]; old != nil && slices.Equal(old.Members, set.Members) {
			set.Members = old.Members
		}
		b.sets[set.Name] = set
	}
	slices.SortFunc(f.Sets, func(a, b Set) int { return strings.Compare(a.Name, b.Name) })
	return f
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

// builder makes one family of a rule set: its rules, and the members of its sets.
type builder struct {
	*prepared
	block      int // rules
	ipv6       bool
	generation string
	sets       map[string]*Set
	outlines   []outline

	addrs []owned
	of    [][]int          // the addresses of each endpoint, as indexes of addrs
	away  [][]netip.Prefix // by endpoint
	ports []published
	apart map[string][][]Member // see blockSets
}

func newBuilder(p *prepared, block, family int, generation string) *builder {
	return &builder{prepared: p, block: block, ipv6: family == 1, generation: generation, sets: map[string]*Set{}, apart: map[string][][]Member{}}
}

// look finds what members are made of.
func (b *builder) look() {
	b.addrs, b.ports = b.own.family(b.ipv6), publishedOf(b.endpoints, b.ipv6)
	b.of = make([][]int, len(b.endpoints))
	for k, a := range b.addrs {
		for _, i := range a.by {
			b.of[i] = append(b.of[i], k)
		}
	}
	if b.places {
		b.away = b.awayParts(b.ipv6)
	}
}

func (b *builder) chain(path, stage string) string { return chainName(path, stage, b.generation) }

// set gives a set by its name, made at its first use.
func (b *builder) set(s Set, members recipe) string {
	if _, ok := b.sets[s.Name]; !ok {
		if s.Kind == Nets { // whatever the world, and rules are parted by them
			s.Members, members = sorted(members(b)), nil
		}
		b.sets[s.Name] = &s
		b.outlines = append(b.outlines, outline{s, members})
	}
	return s.Name
}

// group gives a group of another builder in this one's world.
func (b *builder) group(g group) group {
	if own, ok := b.groups[g.key]; ok {
		return own
	}
	if g.sel != nil {
		return b.selector(*g.sel)
	}
	return group{has: make([]bool, len(b.endpoints)), opens: make([]bool, len(b.endpoints))}
}

// sorted sorts members, each once.
func sorted(members []Member) []Member {
	if !slices.IsSortedFunc(members, compareMembers) {
		slices.SortFunc(members, compareMembers)
	}
	return slices.Compact(members)
}

func single(a netip.Addr) Member { return Member{Prefix: netip.PrefixFrom(a, a.BitLen())} }

// addrsOf gives the addresses of which all owners, or one, are meant. In are the
// endpoints that may be meant, nil for all.
func (b *builder) addrsOf(in []int, has []bool, all bool) []Member {
	var members []Member
	consider := func(k int) {
		a := &b.addrs[k]
		meant := 0
		for _, i := range a.by {
			if has[i] {
				meant++
			}
		}
		if meant == len(a.by) || meant > 0 && !all {
			members = b.appendPlaces(members, *a, has)
		}
	}
	if in == nil {
		for k := range b.addrs {
			consider(k)
		}
	} else {
		for _, i := range in {
			for _, k := range b.of[i] {
				consider(k)
			}
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
		func(b *builder) []Member {
			g := b.group(g)
			return b.addrsOf(g.in, g.members(denies), !denies)
		})
}

// isolatedSet is the set of the endpoints that a stage closes.
func (b *builder) isolatedSet(s Stage) string {
	return b.set(Set{Name: scopedSet(b.ipv6, letterIsolated, stageCode(s), b.generation), Kind: b.whose(), Scoped: true, Closes: true,
		About: "endpoints closed by " + s.String()},
		func(b *builder) []Member { return b.addrsOf(nil, b.isolated[s], false) })
}

// containersSet is the set of all containers' addresses, managed or not. It is
// asked whether an address is not in it, so that a member more closes in an
// allow, and opens in a deny: there are two, for the order of changes.
func (b *builder) containersSet(denies bool) string {
	return b.set(Set{Name: contentSet(b.ipv6, letterContainers, strconv.FormatBool(denies)), Kind: Addrs, Closes: !denies, About: "all containers"},
		func(b *builder) []Member {
			var members []Member
			for _, a := range b.addrs {
				members = append(members, single(a.addr))
			}
			return members
		})
}

func (b *builder) netSet(n nets) string {
	return b.set(Set{Name: contentSet(b.ipv6, letterNet, n.key), Kind: Nets, About: n.String(), of: n.of},
		func(*builder) []Member { return netMembers(n.prefixes) })
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
		func(b *builder) []Member { return b.portsOf(func(target) bool { return true }, nil, true) })
}

// exceptSet is the set of ports of the host that a deny leaves out. What has no ports is
// in no such set.
func (b *builder) exceptSet(p ports) string {
	var all []Member // whatever the world
	return b.set(Set{Name: contentSet(b.ipv6, letterPublished, "except", p.String()), Kind: Published,
		About: "ports of the host that a deny leaves out, " + p.String()}, func(b *builder) []Member {
		if all != nil {
			return all
		}
		for _, s := range p {
			for _, r := range s.ranges {
				for port := int(r.First); port <= int(r.Last); port++ {
					for _, prefix := range hostPrefixes(netip.Addr{}, b.ipv6) {
						all = append(all, Member{Prefix: prefix, Proto: s.proto, Port: uint16(port)})
					}
				}
			}
		}
		all = sorted(all)
		return all
	})
}

// isolatedPorts is the set of published ports that lead to an endpoint that a
// stage closes.
func (b *builder) isolatedPorts(s Stage) string {
	return b.set(Set{Name: scopedSet(b.ipv6, letterPublished, stageCode(s), b.generation), Kind: Published, Scoped: true, Closes: true,
		About: "published ports closed by " + s.String()},
		func(b *builder) []Member {
			return b.portsOf(func(t target) bool { return b.isolated[s][t.endpoint] }, nil, true)
		})
}

// targetSet is the set of published ports that lead to whom a rule is about, on
// one of its ports. For an allow all that the port may lead to has to be meant,
// but for what the stage leaves open.
func (b *builder) targetSet(key, about string, is func(*builder) func(target) bool, p ports, denies bool, s Stage) string {
	name := contentSet(b.ipv6, letterPublished, key, p.String(), strconv.FormatBool(denies), b.generation, s.String())
	return b.set(Set{Name: name, Kind: Published, Scoped: true, Closes: denies,
		About: "published ports of " + about + ", " + p.String()},
		func(b *builder) []Member {
			if len(b.ports) == 0 {
				return nil
			}
			if denies {
				return b.portsOf(is(b), p, true)
			}
			return b.portsOf(is(b), p, false, func(t target) bool { return s >= FileIngress && !b.isolated[s][t.endpoint] })
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

// samePolicy tells whether two policies were read from the same text: they share what they
// point to.
func samePolicy(a, b Policy) bool {
	same := a.name == b.name && a.isolates == b.isolates && a.sel.equal(b.sel) && shared(a.deny, b.deny)
	for _, d := range Directions {
		same = same && shared(a.rules[d], b.rules[d])
	}
	return same
}

// shared tells whether two slices are one.
func shared[T any](a, b []T) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// labelsOf gives what the rules of labels are.
func labelsOf(p *prepared) [2][]string {
	var all [2][]string
	for _, d := range Directions {
		for _, r := range p.rules[labelStage(d)] {
			all[d] = append(all[d], r.key)
		}
	}
	return all
}
