package guard

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"netguard/internal/fault"
)

// limitFamily is that of the table of limits: it sees IPv4 and IPv6, forwarded and
// to the host.
const limitFamily = nftables.TableFamilyINet

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// limitWork is what is to be done to the table of limits: one transaction. What the
// kernel has counted stays, but where the table is made anew.
type limitWork struct {
	create, remove bool     // the table
	chains         []string // to be written
	drop           []string // chains that nobody needs
	add, del       map[string]elements
	rules          []rule
	lines          map[string]string // of all chains, by chain
}

func (w limitWork) count() int {
	n := len(w.chains) + len(w.drop) + size(w.add) + size(w.del)
	if w.create || w.remove {
		n++
	}
	return n
}

// describe adds what is to be done to what is said of each port.
func (w limitWork) describe(out map[int][]string) {
	switch {
	case w.create:
		out[0] = append(out[0], "limits of connections: the table inet "+TableName+" is missing or not netguard's")
		return
	case w.remove:
		out[0] = append(out[0], "limits of connections: the table inet "+TableName+" is left over")
		return
	}
	for _, c := range w.chains {
		out[0] = append(out[0], "limits of connections: write chain "+c)
	}
	for _, c := range w.drop {
		out[0] = append(out[0], "limits of connections: remove chain "+c)
	}
	for verb, sets := range map[string]map[string]elements{"add to": w.add, "delete from": w.del} {
		for _, set := range sortedKeys(sets) {
			for range sets[set] {
				out[0] = append(out[0], fmt.Sprintf("limits of connections: %s set %s", verb, set))
			}
		}
	}
}

// diffLimits compares. It is pure.
func diffLimits(p limitPlan, have *tableState) limitWork {
	if have == nil || p.sets == nil {
		return limitWork{remove: have != nil && have.present}
	}
	w := limitWork{rules: p.rules, lines: p.lines(), add: map[string]elements{}, del: map[string]elements{}}
	intact := have.present && have.live
	for _, s := range limitSets() {
		_, ok := have.sets[s.name]
		intact = intact && ok
	}
	for _, hook := range []string{"forward", "input"} {
		// Where a chain hangs cannot be changed.
		want, _, _ := strings.Cut(w.lines[hook], "\n")
		got, _, _ := strings.Cut(have.rules[hook], "\n")
		intact = intact && want == got
	}
	if _, there := have.rules[unknownChain]; there && w.lines[unknownChain] != "" {
		want, _, _ := strings.Cut(w.lines[unknownChain], "\n")
		got, _, _ := strings.Cut(have.rules[unknownChain], "\n")
		intact = intact && want == got
	}
	if !intact {
		w.create, w.remove = true, have.present
		w.chains, w.add = sortedKeys(w.lines), p.sets
		return w
	}
	for _, c := range sortedKeys(w.lines) {
		if got, ok := have.rules[c]; !ok || got != w.lines[c] {
			w.chains = append(w.chains, c)
		}
	}
	for _, c := range sortedKeys(have.rules) {
		if _, ok := w.lines[c]; !ok {
			w.drop = append(w.drop, c)
		}
	}
	for set, want := range p.sets {
		w.add[set], w.del[set] = elements{}, elements{}
		for e, data := range want {
			if got, ok := have.sets[set][e]; !ok || got != data {
				w.add[set][e] = data
			}
		}
		for e, data := range have.sets[set] {
			if wanted, ok := want[e]; !ok || wanted != data {
				w.del[set][e] = data
			}
		}
	}
	return w
}

// commitLimits sends the transaction.
func (f *filter) commitLimits(w limitWork, have *tableState) error {
	t := f.table()
	if w.remove {
		f.nft.DelTable(t)
	}
	specs := limitSets()
	if w.create {
		f.nft.AddTable(t)
		for _, s := range specs {
			if _, err := f.addSet(s); err != nil {
				return err
			}
		}
	}
	for _, name := range w.chains {
		_, there := have.rules[name]
		if there && !w.create {
			f.nft.FlushChain(buildLimitChain(t, name))
		} else {
			f.nft.AddChain(buildLimitChain(t, name))
		}
	}
	for _, r := range w.rules {
		if slices.Contains(w.chains, r.chain) {
			f.nft.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: r.chain}, Exprs: r.exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
		}
	}
	for _, s := range specs {
		set := s.build(t)
		if err := eachChunk(s, w.del[s.name], func(e []nftables.SetElement) error { return f.nft.SetDeleteElements(set, e) }); err != nil {
			return fmt.Errorf("delete from set %s: %w", s.name, err)
		}
		if err := eachChunk(s, w.add[s.name], func(e []nftables.SetElement) error { return f.nft.SetAddElements(set, e) }); err != nil {
			return fmt.Errorf("add to set %s: %w", s.name, err)
		}
	}
	for _, name := range w.drop {
		c := &nftables.Chain{Table: t, Name: name}
		f.nft.FlushChain(c)
		f.nft.DelChain(c)
	}
	f.deadline()
	if err := fault.Write("nft batch", f.nft.Flush); err != nil {
		return errors.Join(fmt.Errorf("change table %s: %w", f.title(), err), f.reopen())
	}
	return nil
}

// eachChunk sends the elements of a map in messages that are not too long.
func eachChunk(s setSpec, all elements, send func([]nftables.SetElement) error) error {
	for part := range slices.Chunk(slices.Collect(maps.Keys(all)), chunk) {
		list := make([]nftables.SetElement, len(part))
		for i, e := range part {
			list[i].Key = []byte(e.key)
			if s.leads {
				list[i].VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: all[e]}
			}
		}
		if err := send(list); err != nil {
			return err
		}
	}
	return nil
}

// refused reads how many packets of each address were refused.
func (f *filter) refused() (map[netip.Addr]uint64, error) {
	out := map[netip.Addr]uint64{}
	for _, family := range ipFamilies {
		err := f.elements(family.refused, func(e dumped) {
			if a, ok := netip.AddrFromSlice([]byte(e.key)); ok {
				out[a] = e.packets
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// limit brings the table of limits to the plan.
func (d *Driver) limit(w limitWork) error {
	if err := d.limiter.commitLimits(w, d.kernel.limits); err != nil {
		return errors.Join(fmt.Errorf("limit connections: %w", err), d.readTables())
	}
	more := w.create || w.remove || len(w.chains)+len(w.drop) > 0
	return d.committed(more, d.kernel.limits, w.add, w.del, func() {
		if d.kernel.limits.generation == d.generation {
			d.limiter.learn(written(w.lines, w.chains), d.kernel.limits)
		}
	})
}

// hold keeps some ports that were not open yet from being admitted, and says why.
func (d *Driver) hold(w Wish, err error, some func(*Port) bool) Wish {
	w.Ports = slices.Clone(w.Ports)
	for i := range w.Ports {
		p := &w.Ports[i]
		if _, open := d.kernel.table.sets[setKnown][element{key: portKey(p.Index)}]; !open && p.Guarded && p.Admitted && some(p) {
			p.Admitted = false
			d.failed[p.Index] = append(d.failed[p.Index], err)
		}
	}
	return w
}

// forgotten are the counters of addresses that are nobody's any more, by set.
func (d *Driver) forgotten() (map[string]elements, error) {
	stale := map[string]elements{}
	if !d.features.Limits || !d.kernel.limits.present {
		return stale, nil
	}
	counts, err := d.limiter.refused()
	owners := d.plan.connections.owners
	for a := range counts {
		if _, ok := owners[a]; ok {
			continue
		}
		set := set4or6(a, setRefused4, setRefused6)
		if stale[set] == nil {
			stale[set] = elements{}
		}
		stale[set][element{key: string(a.AsSlice())}] = ""
	}
	return stale, err
}
