package netpolicy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// builder makes one family of a frame.
type builder struct {
	*frame
	family int
	ipv6   bool
	block  int // rules
	picks  int // see spec.picked
	made   frameFamily
	sets   map[string]*spec
	names  map[string]string // of sets of no group, by what they are about
}

// spec is a set, and where its members come from.
type spec struct {
	Set // Members only where no endpoint has a part in them
	// number is its index in the sorted sets of the family.
	number int
	// ports gives the members of a set of published ports.
	ports func(*portLists) []Member
	// unions are the union sets that this set is a part of. blocks are its places in splits.
	unions []*spec
	blocks []inBlock
	of     []*spec // of a union
	// picked is the last pick that met the set, by side. While a chain is divided, rules counts
	// the rules that ask for the set, and in is the block of the set.
	picked    [2]int
	rules, in int
}

// build makes the chains and sets of a family.
func (f *frame) build(family, block int) frameFamily {
	n := len(f.groups)
	b := builder{frame: f, family: family, ipv6: family == 1, block: block, names: map[string]string{}, sets: make(map[string]*spec, 3*n),
		made: frameFamily{allow: make([]*spec, n), deny: make([]*spec, n)}}
	b.made.Family = Family{IPv6: b.ipv6}
	b.made.Chains, b.made.Entry = b.chains()
	return b.made.numbered()
}

// numbered gives the family with its sets in order, and an index.
func (f frameFamily) numbered() frameFamily {
	slices.SortFunc(f.specs, func(a, b *spec) int { return strings.Compare(a.Name, b.Name) })
	f.index = familyIndex{sets: make(map[string]int, len(f.specs)), chains: make(map[string][]Rule, len(f.Chains))}
	for i, s := range f.specs {
		s.number = i
		f.index.sets[s.Name] = i
	}
	for _, c := range f.Chains {
		f.index.chains[c.Name] = c.Rules
	}
	return f
}

// set makes a set for the caller to fill in. It gives nil if the set is there already.
func (b *builder) set(name string) *spec {
	if b.sets[name] != nil {
		return nil
	}
	s := &spec{Set: Set{Name: name}}
	b.sets[name] = s
	b.made.specs = append(b.made.specs, s)
	return s
}

// named gives the name of a set by what it is about, worked out once.
func (b *builder) named(letter string, content ...string) string {
	key := letter + "\x00" + strings.Join(content, "\x00")
	name, ok := b.names[key]
	if !ok {
		name = contentSet(b.ipv6, letter, content...)
		b.names[key] = name
	}
	return name
}

// groupSet is the set of a group's addresses. If several endpoints have an address, it counts in
// an allow if the group has all of them, in a deny if the group has one.
func (b *builder) groupSet(g *group, denies bool) string {
	letter, list, kind := letterSelect, b.made.allow, 0
	if denies {
		letter, list, kind = letterDeny, b.made.deny, 1
	}
	name := &g.names[b.family][kind]
	if *name == "" {
		*name = contentSet(b.ipv6, letter, b.content(g.key)...)
	}
	if list[g.number] == nil {
		s := b.set(*name)
		s.Kind, s.Closes, s.About = b.whose(), denies, g.about
		list[g.number] = s
	}
	return *name
}

// isolatedSet is the set of the endpoints that a stage closes.
func (b *builder) isolatedSet(s Stage) string {
	name := scopedSet(b.ipv6, letterIsolated, s, b.scopes[s])
	if made := b.set(name); made != nil {
		made.Kind, made.Scoped, made.Closes, made.About = b.whose(), true, true, "endpoints closed by "+s.String()
		b.made.isolated[s] = made
	}
	return name
}

// containersSet is the set of all containers' addresses, managed or not. Rules ask only whether
// an address is not in it. So a member more closes in an allow, and opens in a deny. For the
// order of changes, there is one set for each.
func (b *builder) containersSet(denies bool) string {
	name := b.named(letterContainers, strconv.FormatBool(denies))
	if s := b.set(name); s != nil {
		s.Kind, s.Closes, s.About = Addrs, !denies, "all containers"
		b.made.all = append(b.made.all, s)
	}
	return name
}

func (b *builder) netSet(n nets) string {
	name := b.named(letterNet, n.key)
	if s := b.set(name); s != nil {
		s.Kind, s.About, s.Set.of, s.Members = Nets, n.String(), n.of, netMembers(n.prefixes)
	}
	return name
}

func netMembers(prefixes []netip.Prefix) []Member {
	members := make([]Member, len(prefixes))
	for i, p := range prefixes {
		members[i].Prefix = p
	}
	return members
}

// sorted sorts members, each once. None is nil.
func sorted(members []Member) []Member {
	if len(members) == 0 {
		return nil
	}
	if !slices.IsSortedFunc(members, CompareMembers) {
		slices.SortFunc(members, CompareMembers)
	}
	return slices.Compact(members)
}

func single(a netip.Addr) Member { return Member{Prefix: netip.PrefixFrom(a, a.BitLen())} }

func stageCode(s Stage) string {
	return strings.ToLower([...]string{"", codeEgress, codeEgressLabel, codeIngress, codeIngressLabel}[s])
}

// appendTo adds the rule as a text. The names of chains are hashes of this text, so its form must
// not change.
func (r *Rule) appendTo(text []byte) []byte {
	text = append(text, '[')
	for i, m := range r.Sets {
		if i > 0 {
			text = append(text, ' ')
		}
		text = append(append(append(text, '{'), m.Set...), ' ')
		text = append(append(text, m.Side.String()...), ' ')
		text = append(strconv.AppendBool(text, m.Not), '}')
	}
	text = strconv.AppendInt(append(text, "] "...), int64(r.Proto), 10)
	text = append(text, " ["...)
	for i, p := range r.Ports {
		if i > 0 {
			text = append(text, ' ')
		}
		text = append(text, p.String()...)
	}
	text = strconv.AppendInt(append(text, "] "...), int64(r.ICMPType), 10)
	text = strconv.AppendInt(append(text, ' '), int64(r.Verdict), 10)
	text = append(append(append(text, ' '), r.Goto...), " {"...)
	text = append(append(text, r.Origin.Stage.String()...), ' ')
	text = append(append(text, r.Origin.Policy...), ' ')
	text = append(append(text, r.Origin.Direction.String()...), ' ')
	return append(strconv.AppendInt(text, int64(r.Origin.Index), 10), "}\n"...)
}
