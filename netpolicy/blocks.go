package netpolicy

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A packet meets the rules of a chain one after the other. Where there are many,
// it is led past most of them: the sets of one side (senders, receivers, CIDRs)
// are parted into blocks, and each block has a chain of its own.
//
//	not in any set of this side         -> goto the rules that do not ask for it
//	in the sets of block 1 and no other -> goto those and the rules of block 1
//	in the sets of block 2 and no other -> goto those and the rules of block 2
//	all rules, for who is in the sets of several blocks
//
// So a way leads to some of the rules and leaves out only such as cannot match,
// in their order. Which blocks there are follows from the rules alone; who is in
// one, from the members of sets: a container that comes or goes changes no rule.
const (
	// blockRules is how many rules stand in a chain at most before it is parted.
	blockRules = 32
	// leastSets is how many sets of a side are worth it.
	leastSets = 4
)

// levels is how often the rules of a stage are parted. nf_tables refuses ways of
// more than 16 chains (NFT_JUMP_STACK_SIZE), the base chain, Docker's and a
// driver's own among them: no way from an entry is longer than maxWay.
func (s Stage) levels() int {
	if s == FileEgress || s == FileIngress {
		return 2
	}
	return 1
}

const maxWay = 12

// parter makes the chains of a stage on a route.
type parter struct {
	*builder
	code   string
	stage  Stage
	last   []Rule // the end of each chain
	chains []Chain
}

// parted gives the chains of rules, the one to enter last.
func (b *builder) parted(code string, s Stage, head, rules, last []Rule) []Chain {
	p := parter{builder: b, code: code, stage: s, last: last}
	all := p.fill(head, rules, s.levels())
	return append(p.chains, Chain{chainName(code, "", b.generation), all})
}

func (p *parter) fill(head, rules []Rule, levels int) []Rule {
	var led []Rule
	if levels > 0 && len(rules) > p.block {
		if s, ok := p.pick(rules); ok {
			led = p.lead(s, rules, levels-1)
		}
	}
	return slices.Concat(head, led, rules, p.last)
}

// leaf makes a chain of some rules.
func (p *parter) leaf(rules []Rule, levels int) string {
	all := p.fill(nil, rules, levels)
	c := Chain{chainName(p.code, strconv.Itoa(len(p.chains)+1), p.generation), all}
	p.chains = append(p.chains, c)
	return c.Name
}

// parts are the sets of one kind that rules ask for on one side.
type parts struct {
	side  Side
	kind  Kind
	sets  []*Set // each once
	rules int    // that ask for one
}

// asked gives the set that a rule asks for there, "" if none.
func (s *parts) asked(r *Rule, sets map[string]*Set) string {
	for _, m := range r.Sets {
		if m.Side == s.side && !m.Not && sets[m.Set].Kind == s.kind {
			return m.Set
		}
	}
	return ""
}

// pick gives the side and kind that tells the rules apart best.
func (p *parter) pick(rules []Rule) (parts, bool) {
	var best parts
	for _, side := range []Side{Src, Dst} {
		for _, kind := range []Kind{p.whose(), Nets} {
			s := parts{side: side, kind: kind}
			seen := map[string]bool{}
			members := 0
			for i := range rules {
				name := s.asked(&rules[i], p.sets)
				if name == "" {
					continue
				}
				s.rules++
				if !seen[name] {
					seen[name] = true
					s.sets = append(s.sets, p.sets[name])
					members += len(p.sets[name].Members)
				}
			}
			if kind == Nets && members > maxNets {
				continue
			}
			if len(s.sets) > len(best.sets) {
				best = s
			}
		}
	}
	return best, len(best.sets) >= min(leastSets, p.block+1) && best.rules > p.block
}

// likeness orders sets so that those stand together that are often about the same
// addresses: by project and service, or by prefix. It tells no two apart that one
// name may have.
func likeness(a, b *Set) int {
	if a.Kind == Nets && len(a.Members) > 0 && len(b.Members) > 0 {
		return cmp.Or(compareMembers(a.Members[0], b.Members[0]), cmp.Compare(a.Name, b.Name))
	}
	return cmp.Or(cmp.Compare(a.About, b.About), cmp.Compare(a.Name, b.Name))
}

// lead makes the chains of the blocks, and the rules that lead there.
func (p *parter) lead(s parts, rules []Rule, levels int) []Rule {
	count := map[string]int{} // rules by set
	others := 0
	for i := range rules {
		if name := s.asked(&rules[i], p.sets); name != "" {
			count[name]++
		} else {
			others++
		}
	}
	// Each block has the others too: not so many blocks that these are most.
	most := max(1, 2*len(rules)/max(1, others))
	size := max(p.block, int(math.Sqrt(float64(s.rules))), (s.rules+most-1)/most)
	slices.SortFunc(s.sets, likeness)
	var blocks [][]*Set
	in := map[string]int{} // block by set
	n := 0
	for _, set := range s.sets {
		if n == 0 || n >= size {
			blocks, n = append(blocks, nil), 0
		}
		in[set.Name] = len(blocks) - 1
		blocks[len(blocks)-1] = append(blocks[len(blocks)-1], set)
		n += count[set.Name]
	}
	rest, of := []Rule(nil), make([][]Rule, len(blocks))
	for i := range rules {
		name := s.asked(&rules[i], p.sets)
		if name == "" {
			rest = append(rest, rules[i])
		}
		for j := range of {
			if name == "" || in[name] == j {
				of[j] = append(of[j], rules[i])
			}
		}
	}
	lead := func(set string, not bool, rules []Rule) Rule {
		r := goOn(p.leaf(rules, levels), p.stage)
		r.Sets = []SetMatch{{Set: set, Side: s.side, Not: not}}
		return r
	}
	out := []Rule{lead(p.unionSet(s), true, rest)}
	if len(blocks) == 1 {
		return out
	}
	for i, set := range p.blockSets(s, blocks) {
		out = append(out, lead(set, false, of[i]))
	}
	return out
}

// unionSet is what is in any of the sets.
func (p *parter) unionSet(s parts) string {
	kind, names := s.kind, namesOf(s.sets)
	return p.blockSet(s, p.stage == Guardrail, "whom many rules are about", "union "+nameAll(s.sets), func(b *builder) []Member { return unionOf(kind, b.named(names)) })
}

// blockSets are, for each block, what is in its sets and in none of another
// block. A member more leaves rules out.
func (p *parter) blockSets(s parts, blocks [][]*Set) []string {
	key := ""
	for _, block := range blocks {
		key += "block " + nameAll(block)
	}
	key = digest(setHashLen, key)
	kind, names := s.kind, make([][]string, len(blocks))
	for i, block := range blocks {
		names[i] = namesOf(block)
	}
	alone := func(b *builder) [][]Member {
		lists, ok := b.apart[key]
		if !ok {
			sets := make([][]*Set, len(names))
			for i := range names {
				sets[i] = b.named(names[i])
			}
			lists = disjoint(kind, sets)
			b.apart[key] = lists
		}
		return lists
	}
	out := make([]string, len(blocks))
	for i := range blocks {
		out[i] = p.blockSet(s, p.stage != Guardrail, "whom a block of many rules is about", fmt.Sprint("block ", i, " of ", key), func(b *builder) []Member { return alone(b)[i] })
	}
	return out
}

func (p *parter) blockSet(s parts, closes bool, about, key string, members recipe) string {
	name := contentSet(p.ipv6, letterBlock, key, strconv.FormatBool(closes))
	return p.set(Set{Name: name, Kind: s.kind, Closes: closes, About: about}, members)
}

func namesOf(sets []*Set) []string {
	names := make([]string, len(sets))
	for i, s := range sets {
		names[i] = s.Name
	}
	return names
}

// named gives sets by their names.
func (b *builder) named(names []string) []*Set {
	sets := make([]*Set, len(names))
	for i, name := range names {
		sets[i] = b.sets[name]
	}
	return sets
}

func nameAll(sets []*Set) string {
	var b strings.Builder
	for _, s := range sets {
		b.WriteString(s.Name + " ")
	}
	return b.String()
}

func unionOf(kind Kind, sets []*Set) []Member {
	var all []Member
	for _, s := range sets {
		all = append(all, s.Members...)
	}
	if kind == Nets {
		prefixes := make([]netip.Prefix, len(all))
		for i, m := range all {
			prefixes[i] = m.Prefix
		}
		return netMembers(merged(prefixes))
	}
	slices.SortFunc(all, compareMembers)
	return slices.Compact(all)
}

// disjoint gives for each block the members that overlap none of another's.
func disjoint(kind Kind, blocks [][]*Set) [][]Member {
	lists := make([][]Member, len(blocks))
	owner := map[Member]int{} // a block, or -1 for several
	for i, block := range blocks {
		lists[i] = unionOf(kind, block)
		for _, m := range lists[i] {
			if _, taken := owner[m]; taken {
				owner[m] = -1
			} else {
				owner[m] = i
			}
		}
	}
	out := make([][]Member, len(blocks))
	wide := make([][]Member, len(blocks))
	if kind == Places {
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
				if kind == Nets && j != i && overlaps(lists[j], m.Prefix) || kind == Places && j != i && placed(lists[j], wide[j], m) {
					return false
				}
			}
			return true
		})
	}
	return out
}

// placed tells whether a member overlaps others than itself. Nearly all are single
// addresses, which overlap only the wide ones.
func placed(all, wide []Member, m Member) bool {
	if m.Prefix.IsSingleIP() {
		all = wide
	}
	return slices.ContainsFunc(all, func(o Member) bool { return o.Bridge == m.Bridge && o.Prefix.Overlaps(m.Prefix) })
}

// overlaps takes members that are sorted and do not overlap each other.
func overlaps(members []Member, p netip.Prefix) bool {
	i, _ := slices.BinarySearchFunc(members, p, func(m Member, p netip.Prefix) int { return comparePrefixes(m.Prefix, p) })
	return i < len(members) && members[i].Prefix.Overlaps(p) || i > 0 && members[i-1].Prefix.Overlaps(p)
}
