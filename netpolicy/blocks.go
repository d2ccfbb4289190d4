package netpolicy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A packet meets the rules of a chain one after the other. In a long chain, the first rules lead
// it past most of the others. The sets of one side (senders, receivers, CIDRs) are divided into
// blocks, and each block has a chain of its own.
//
//	not in any set of this side         -> goto the rules that do not ask for it
//	in the sets of block 1 and no other -> goto those and the rules of block 1
//	in the sets of block 2 and no other -> goto those and the rules of block 2
//	all rules, for who is in the sets of several blocks
//
// Each way keeps the order of the rules, and leaves out only rules that cannot match. The rules
// alone decide which blocks there are. The members of sets decide who is in a block, so a
// container that comes or goes changes no rule.
const (
	// blockRules is the most rules that a chain has without blocks.
	blockRules = 32
	// leastSets is the fewest sets of a side for which blocks are worth it.
	leastSets = 4
)

// levels is how often the rules of a stage are divided. nf_tables refuses ways of more than 16
// chains (NFT_JUMP_STACK_SIZE). The base chain, Docker's chains and a driver's own count too. So
// no way from an entry is longer than maxWay.
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

// parted gives the chains for some rules. The last chain is the one to enter.
func (b *builder) parted(code string, s Stage, head, rules, last []Rule) []Chain {
	p := parter{builder: b, code: code, stage: s, last: last}
	all := p.fill(head, rules, s.levels())
	return append(p.chains, Chain{chainName(code, all), all})
}

// fill gives the rules of one chain. It may write into rules.
func (p *parter) fill(head, rules []Rule, levels int) []Rule {
	var led []Rule
	if levels > 0 && len(rules) > p.block {
		if s, ok := p.pick(rules); ok {
			led = p.lead(s, rules, levels-1)
		}
	}
	if len(head)+len(led) == 0 {
		return append(rules, p.last...) // there is room
	}
	return slices.Concat(head, led, rules, p.last)
}

// leaf makes a chain of some rules.
func (p *parter) leaf(rules []Rule, levels int) string {
	all := p.fill(nil, rules, levels)
	c := Chain{chainName(p.code+strconv.Itoa(len(p.chains)+1), all), all}
	p.chains = append(p.chains, c)
	return c.Name
}

// parts are the sets of one kind that rules ask for on one side.
type parts struct {
	side  Side
	kind  Kind
	sets  []*spec // each once
	rules int     // how many ask for one
}

// asked gives the set of this kind that a rule asks for on this side, nil if none.
func (s *parts) asked(r *Rule, sets map[string]*spec) *spec {
	for _, m := range r.Sets {
		if m.Side == s.side && !m.Not {
			if set := sets[m.Set]; set.Kind == s.kind {
				return set
			}
		}
	}
	return nil
}

// pick gives the side and kind that tells the rules apart best.
func (p *parter) pick(rules []Rule) (parts, bool) {
	all := [4]parts{{side: Src, kind: p.whose()}, {side: Src, kind: Nets}, {side: Dst, kind: p.whose()}, {side: Dst, kind: Nets}}
	p.picks++
	for i := range rules {
		for _, m := range rules[i].Sets {
			set := p.sets[m.Set]
			for j := range all {
				s := &all[j]
				if m.Not || s.side != m.Side || s.kind != set.Kind {
					continue
				}
				if s.rules++; set.picked[m.Side] != p.picks {
					set.picked[m.Side] = p.picks
					s.sets = append(s.sets, set)
				}
			}
		}
	}
	var best parts
	for _, s := range all {
		if len(s.sets) > len(best.sets) && (s.kind != Nets || sizeOf(s.sets) <= maxNets) {
			best = s
		}
	}
	return best, len(best.sets) >= min(leastSets, p.block+1) && best.rules > p.block
}

// sizeOf is how many members sets have together.
func sizeOf(sets []*spec) (n int) {
	for _, s := range sets {
		n += len(s.Members)
	}
	return n
}

// likeness orders sets so that sets of the same addresses are often neighbours: by project and
// service, or by prefix. It looks at nothing that can differ between two sets with the same name.
func likeness(a, b *spec) int {
	if a.Kind == Nets && len(a.Members) > 0 && len(b.Members) > 0 {
		return cmp.Or(CompareMembers(a.Members[0], b.Members[0]), cmp.Compare(a.Name, b.Name))
	}
	return cmp.Or(cmp.Compare(a.About, b.About), cmp.Compare(a.Name, b.Name))
}

// lead makes the chains of the blocks, and the rules that lead there.
func (p *parter) lead(s parts, rules []Rule, levels int) []Rule {
	for _, set := range s.sets {
		set.rules = 0
	}
	others := 0
	of := make([]*spec, len(rules))
	for i := range rules {
		if of[i] = s.asked(&rules[i], p.sets); of[i] != nil {
			of[i].rules++
		} else {
			others++
		}
	}
	// Each block repeats the other rules. There are few enough blocks that these are not most of
	// the rules.
	most := max(1, 2*len(rules)/max(1, others))
	size := max(p.block, int(math.Sqrt(float64(s.rules))), (s.rules+most-1)/most)
	slices.SortFunc(s.sets, likeness)
	var blocks [][]*spec
	n := 0
	for _, set := range s.sets {
		if n == 0 || n >= size {
			blocks, n = append(blocks, nil), 0
		}
		set.in = len(blocks) - 1
		blocks[len(blocks)-1] = append(blocks[len(blocks)-1], set)
		n += set.rules
	}
	rest, each := make([]Rule, 0, others+len(p.last)), make([][]Rule, len(blocks))
	for i, block := range blocks {
		n := others + len(p.last)
		for _, set := range block {
			n += set.rules
		}
		each[i] = make([]Rule, 0, n)
	}
	for i, set := range of {
		if set != nil {
			each[set.in] = append(each[set.in], rules[i])
			continue
		}
		rest = append(rest, rules[i])
		for j := range each {
			each[j] = append(each[j], rules[i])
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
		out = append(out, lead(set, false, each[i]))
	}
	return out
}

func (b *builder) blockSet(kind Kind, closes bool, about, key string) (string, *spec) {
	name := contentSet(b.ipv6, letterBlock, key, strconv.FormatBool(closes))
	s := b.set(name)
	if s != nil {
		s.Kind, s.Closes, s.About = kind, closes, about
	}
	return name, s
}

// unionSet is the set of all that is in any of the sets.
func (p *parter) unionSet(s parts) string {
	name, union := p.blockSet(s.kind, p.stage == Guardrail, "whom many rules are about", nameAll("union ", s.sets))
	switch {
	case union == nil:
	case s.kind == Nets:
		union.Members = unionOf(s.kind, members(s.sets))
	default:
		union.of = s.sets
		for _, set := range s.sets {
			set.unions = append(set.unions, union)
		}
	}
	return name
}

// blockSets gives a set for each block: what is in sets of this block, and in none of another
// block. A member more lets a packet skip rules.
func (p *parter) blockSets(s parts, blocks [][]*spec) []string {
	hash := digest(setHashLen, nameAll("block ", blocks...))
	names, made := make([]string, len(blocks)), split{kind: s.kind, sets: make([]*spec, len(blocks)), of: blocks}
	for i := range blocks {
		names[i], made.sets[i] = p.blockSet(s.kind, p.stage != Guardrail, "whom a block of many rules is about", fmt.Sprint("block ", i, " of ", hash))
	}
	switch {
	case made.sets[0] == nil:
	case s.kind == Nets:
		for i, list := range made.members(func(s *spec) []Member { return s.Members }) {
			made.sets[i].Members = list
		}
	default:
		p.made.splits = append(p.made.splits, &made)
		for i, block := range blocks {
			for _, set := range block {
				set.blocks = append(set.blocks, inBlock{&made, i})
			}
		}
	}
	return names
}

// nameAll lists the names of sets, each list after a word.
func nameAll(word string, lists ...[]*spec) string {
	var b strings.Builder
	for _, sets := range lists {
		b.WriteString(word)
		for _, s := range sets {
			b.WriteString(s.Name)
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// split is the sets that many rules ask for, in blocks. An address is in the set of a block if it
// is in a set of this block, and in none of another block.
type split struct {
	kind Kind
	sets []*spec   // by block
	of   [][]*spec // by block
}

type inBlock struct {
	*split
	block int
}
