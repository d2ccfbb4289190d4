package guard

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
)

// All three tables are written in one way. netguard compares the wanted table with the
// kernel's, and writes the difference in one transaction a table. The kernel's counters stay,
// unless the table is made anew.

// chunk is how many elements go into one message: the attribute that holds them
// has a length of 16 bits.
const chunk = 256

// change is one transaction on a table: all of it happens, or nothing.
type change struct {
	layout *layout // of the chains; nil where elements alone change
	// create makes the table, remove removes the one that is there.
	create, remove bool
	chains         []string // to be written
	stale          []string // there, and to be emptied first
	moved          []string // stale ones that have another hook or priority
	drop           []string // stale ones that are not wanted any more
	add, del       map[string]elements
}

func (c change) empty() bool { return c.count() == 0 }

// rules tells whether it changes more than elements.
func (c change) rules() bool { return c.create || c.remove || len(c.chains)+len(c.drop) > 0 }

func (c change) count() int {
	n := len(c.chains) + len(c.drop) + size(c.add) + size(c.del)
	if c.create || c.remove {
		n++
	}
	return n
}

// describe says what is to be done to the chains of a table.
func (c change) describe(table string) []string {
	switch {
	case c.create:
		return []string{"the table " + table + " is missing or not netguard's"}
	case c.remove:
		return []string{"the table " + table + " is left over"}
	case c.rules():
		return []string{"the rules of the table " + table + " were changed"}
	}
	return nil
}

func size(sets map[string]elements) (n int) {
	for _, s := range sets {
		n += len(s)
	}
	return n
}

// tablePlan is what a table shall have. Without sets, there shall be no table.
type tablePlan struct {
	rules []rule
	sets  map[string]elements
}

// diff compares the plan with a table that is not the bridge's: no chain names its layout.
func (p tablePlan) diff(family nftables.TableFamily, sets []setSpec, have *tableState) change {
	if have == nil || p.sets == nil {
		return change{remove: have != nil && have.present}
	}
	l := assemble(family, sets, p.rules)
	return diffTable(&l, p.sets, have)
}

// diffTable compares. It is pure.
func diffTable(l *layout, want map[string]elements, have *tableState) change {
	c := change{layout: l, add: map[string]elements{}, del: map[string]elements{}}
	if !have.keeps(*l) {
		c.create, c.remove, c.chains = true, have.present, l.chains
		for set, all := range want {
			c.add[set] = maps.Clone(all)
		}
		return c
	}
	for _, chain := range l.chains {
		got, there := have.rules[chain]
		if there && got == l.lines[chain] {
			continue
		}
		if c.chains = append(c.chains, chain); there {
			c.stale = append(c.stale, chain)
		}
		if there && placeOf(got) != placeOf(l.lines[chain]) {
			c.moved = append(c.moved, chain)
		}
	}
	for _, chain := range sortedKeys(have.rules) {
		if _, wanted := l.lines[chain]; !wanted {
			c.drop = append(c.drop, chain)
		}
	}
	c.stale = append(c.stale, c.drop...)
	for _, s := range l.sets {
		if s.dynamic {
			continue
		}
		w, h := want[s.name], have.sets[s.name]
		add, del := elements{}, elements{}
		for e, data := range w {
			if got, there := h[e]; !there || s.leads && got != data {
				add[e] = data
			}
		}
		for e, data := range h {
			if wanted, stays := w[e]; !stays || s.leads && wanted != data {
				del[e] = data
			}
		}
		c.add[s.name], c.del[s.name] = add, del
	}
	return c
}

// placeOf gives the hook and priority of a chain, from its content. Unlike its policy, they
// cannot be changed in place.
func placeOf(content string) string {
	first, _, _ := strings.Cut(content, "\n")
	place, _, based := strings.Cut(first, policyOf)
	if !based {
		return ""
	}
	return place
}

// commit sends a transaction.
func (f *filter) commit(c change, sets []setSpec) error {
	t := f.table()
	if c.remove {
		f.nft.DelTable(t)
	}
	if c.create {
		f.nft.AddTable(t)
		for _, spec := range sets {
			if _, err := f.addSet(spec); err != nil {
				return err
			}
		}
	}
	f.rules(t, c)
	for _, spec := range sets {
		set := spec.build(t)
		// Deletions first, to make room: a wider element may replace one that
		// is there.
		if err := spec.inChunks(c.del[spec.name], func(e []nftables.SetElement) error { return f.nft.SetDeleteElements(set, e) }); err != nil {
			return fmt.Errorf("delete from set %s: %w", spec.name, err)
		}
		if err := spec.inChunks(c.add[spec.name], func(e []nftables.SetElement) error { return f.nft.SetAddElements(set, e) }); err != nil {
			return fmt.Errorf("add to set %s: %w", spec.name, err)
		}
	}
	for _, name := range c.drop { // after the elements that lead there
		f.nft.DelChain(&nftables.Chain{Table: t, Name: name})
	}
	f.deadline()
	if err := fault.Write("nft batch", f.nft.Flush); err != nil {
		return errors.Join(fmt.Errorf("change table %s: %w", f.title(), err), f.reopen())
	}
	return nil
}

// rules writes the chains that are not as they shall be. A meter keeps the rate that it was
// made with. So all meters are emptied.
func (f *filter) rules(t *nftables.Table, c change) {
	for _, name := range c.stale {
		f.nft.FlushChain(&nftables.Chain{Table: t, Name: name})
	}
	for _, name := range c.moved {
		f.nft.DelChain(&nftables.Chain{Table: t, Name: name})
	}
	if len(c.chains) == 0 {
		return
	}
	for _, spec := range c.layout.sets {
		if c.layout.metered && !c.create && spec.dynamic && !spec.counter {
			f.nft.FlushSet(spec.build(t))
		}
	}
	for _, name := range c.chains {
		f.nft.AddChain(buildChain(t, name))
	}
	for _, r := range c.layout.rules {
		if slices.Contains(c.chains, r.chain) {
			f.nft.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: r.chain}, Exprs: r.exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
		}
	}
}

// remove deletes the table; one that is not there is fine.
func (f *filter) remove() error {
	f.nft.DelTable(f.table())
	f.deadline()
	err := fault.Write("nft delete table", f.nft.Flush)
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.ENOENT) {
		return f.reopen()
	}
	return errors.Join(fmt.Errorf("delete table %s: %w", f.title(), err), f.reopen())
}

// inChunks sends elements in messages that are not too long.
func (s setSpec) inChunks(all elements, send func([]nftables.SetElement) error) error {
	for part := range slices.Chunk(slices.Collect(maps.Keys(all)), chunk) {
		list := make([]nftables.SetElement, len(part))
		for i, e := range part {
			list[i].Key = []byte(e.key)
			if e.end != "" {
				list[i].KeyEnd = []byte(e.end)
			}
			if s.leads {
				list[i].VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: all[e]}
			} else {
				list[i].Comment = all[e]
			}
		}
		if err := send(list); err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
