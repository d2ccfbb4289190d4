package iptables

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// Drift is what Verify found.
type Drift struct {
	// Changes are what is not as it was last applied, a sentence each. None means that
	// all is in place.
	Changes []string
	// Displaced says that the changes are only what Docker does: it writes its rules anew each
	// time that it makes a network.
	Displaced bool
	// Rewritten says that some program wrote rules in a table since the table was last seen as
	// applied. Foreign rules count too.
	Rewritten bool
}

// Verify reads the kernel and tells what is not as it was last applied. The next Apply
// repairs it.
func (d *Driver) Verify(ctx context.Context) (Drift, error) {
	var found Drift
	if d.wish == nil {
		return found, fmt.Errorf("verify rules: %w", ErrNothingApplied)
	}
	d.kernel, d.glanced, d.settled = nil, nil, false
	k, err := d.read(ctx)
	if err != nil {
		return found, fmt.Errorf("verify rules: %w", err)
	}
	for _, i := range d.families {
		found.Rewritten = found.Rewritten || k.tables[i] != d.agreed[i]
	}
	p, err := d.plan(k, true)
	if err != nil {
		return found, fmt.Errorf("verify rules: %w", err)
	}
	d.kernel, d.settled, d.displaced = k, !p.rules() && len(p.create)+len(p.destroy) == 0, p.displaced(k)
	d.glanced = k
	found.Displaced, found.Changes = d.displaced, p.describe(k)
	if len(found.Changes) > 0 {
		d.uncounted()
	}
	return found, nil
}

// plan compares the kernel with the wish. Without rules it compares only the members of
// sets: the rules are settled then, and all sets exist.
func (d *Driver) plan(k *kernel, rules bool) (*plan, error) {
	p := &plan{}
	if !rules {
		for _, i := range d.families {
			p.planMembers(k, d.wish.Rules.Families()[i], d.counted(i))
		}
		return p, nil
	}
	wanted := map[string]bool{bridgeSet(false).name: true, bridgeSet(true).name: true}
	for _, i := range d.families {
		f := d.wish.Rules.Families()[i]
		if err := p.planSets(k, f, d.counted(i), []setSpec{cutSet(f.IPv6, d.cutSeconds()), beganSet(f.IPv6)}, wanted); err != nil {
			return nil, err
		}
		if d.agreed[i] != k.tables[i] {
			p.tables[i] = planTable(k.tables[i], d.layouts[i], d.agreed[i])
		}
		if p.tables[i].empty() {
			d.agreed[i] = k.tables[i]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.sets)) {
		if !wanted[name] {
			p.destroy = append(p.destroy, name)
		}
	}
	p.stale = k.stale
	return p, nil
}
