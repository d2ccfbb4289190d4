package guard

import (
	"errors"
	"fmt"
	"maps"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"

	"netguard/internal/fault"
)

// The third table, of the family arp, keeps ARP of unknown ports from the host, as the
// second one keeps IP from it; see unknown_port.go. It is there while admission is closed.
// Nothing is counted in it, so that it is written as a whole.

const arpFamily = nftables.TableFamilyARP

// arpPlan is what the third table shall hold: nothing, without rules.
type arpPlan struct {
	rules   []rule
	bridges elements
}

func (p *plan) arp() arpPlan {
	if !p.closed {
		return arpPlan{}
	}
	b := &builder{}
	b.hostRules(drop)
	return arpPlan{b.rules, p.hostBridges()}
}

// lines are what is compared with the kernel, by chain.
func (p arpPlan) lines() map[string]string {
	return chainContents(p.rules, func(chain string) []string { return headOf(buildARPChain(nil, chain)) })
}

func buildARPChain(t *nftables.Table, name string) *nftables.Chain {
	return &nftables.Chain{Table: t, Name: name, Type: nftables.ChainTypeFilter, Hooknum: arpInput,
		Priority: nftables.ChainPriorityRef(unknownPriority), Policy: new(nftables.ChainPolicyAccept)}
}

// arpInput is NF_ARP_IN.
var arpInput = nftables.ChainHookRef(0)

// arpWork is what is to be done to the third table: one transaction.
type arpWork struct {
	write, remove bool
	plan          arpPlan
}

func (w arpWork) count() int {
	if w.write || w.remove {
		return 1
	}
	return 0
}

// describe adds what is to be done to what is said of each port.
func (w arpWork) describe(out map[int][]string) {
	switch {
	case w.write:
		out[0] = append(out[0], "ARP of unknown ports: the table arp "+TableName+" is missing or not as it was written")
	case w.remove:
		out[0] = append(out[0], "ARP of unknown ports: the table arp "+TableName+" is left over")
	}
}

// diffARP compares. It is pure.
func diffARP(p arpPlan, have *tableState) arpWork {
	if have == nil {
		return arpWork{}
	}
	if len(p.rules) == 0 {
		return arpWork{remove: have.present}
	}
	same := have.present && have.live && maps.Equal(have.rules, p.lines()) && len(have.sets) == 1 && maps.Equal(have.sets[setHostBridges], p.bridges)
	return arpWork{write: !same, remove: !same && have.present, plan: p}
}

// commitARP sends the transaction.
func (f *filter) commitARP(w arpWork) error {
	t := f.table()
	if w.remove {
		f.nft.DelTable(t)
	}
	if w.write {
		f.nft.AddTable(t)
		spec := hostBridges()
		set, err := f.addSet(spec)
		if err != nil {
			return err
		}
		if err := inChunks(w.plan.bridges, func(e []nftables.SetElement) error { return f.nft.SetAddElements(set, e) }); err != nil {
			return fmt.Errorf("add to set %s: %w", spec.name, err)
		}
		for _, chain := range sortedKeys(w.plan.lines()) {
			f.nft.AddChain(buildARPChain(t, chain))
		}
		for _, r := range w.plan.rules {
			f.nft.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: r.chain}, Exprs: r.exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
		}
	}
	f.deadline()
	if err := fault.Write("nft batch", f.nft.Flush); err != nil {
		return errors.Join(fmt.Errorf("change table %s: %w", f.title(), err), f.reopen())
	}
	return nil
}

// refuseARP brings the third table to the plan.
func (d *Driver) refuseARP(w arpWork) error {
	if err := d.arp.commitARP(w); err != nil {
		return errors.Join(fmt.Errorf("refuse ARP of unknown ports: %w", err), d.readTables())
	}
	return d.committed(true, nil, nil, nil, func() {
		if w.write && d.kernel.arp.generation == d.generation {
			d.arp.learn(w.plan.lines(), d.kernel.arp)
		}
	})
}

// probeARP loads the third table.
func (f *Features) probeARP() {
	filter, err := openFilter(arpFamily, probeName)
	if err == nil {
		defer filter.close()
		p := &plan{closed: true, bridges: []int{1}}
		if err = filter.commitARP(diffARP(p.arp(), &tableState{})); err == nil {
			err = filter.remove()
		}
	}
	if err != nil {
		f.Missing = append(f.Missing, fmt.Sprintf("nftables of the ARP family (CONFIG_NF_TABLES_ARP; %v): the host hears some ARP of containers that start while no agent runs", err))
		return
	}
	f.ARP = true
}
