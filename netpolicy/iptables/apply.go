package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"netguard/internal/plain"
	"netguard/netpolicy"
)

// Apply brings the kernel to a wish. Where only members of sets changed since the last wish,
// it forks nothing, and trusts that the rules are as it left them. Verify tells whether they
// are.
//
// After a transaction that failed, the rules of before are in force as a whole, in both
// families. Some members may have changed then, first those that close. After an error the
// next Apply reads the kernel again.
func (d *Driver) Apply(ctx context.Context, w Wish) (Report, error) {
	var r Report
	forked, wrote := d.forked, d.wrote
	err := d.apply(ctx, w, &r)
	r.Forks, r.Messages = d.forked-forked, d.wrote-wrote
	if err != nil {
		d.kernel, d.settled, d.generation = nil, false, ""
		return r, fmt.Errorf("apply rules: %w", err)
	}
	return r, nil
}

func (d *Driver) apply(ctx context.Context, w Wish, r *Report) error {
	was := d.generation
	if err := d.take(w); err != nil {
		return err
	}
	look := d.kernel == nil
	r.Looked = look || !d.settled
	k := d.kernel
	var err error
	switch {
	case look:
		k, err = d.read(ctx)
	case !d.settled: // other programs may have written since
		err = d.readTables(ctx, k)
	}
	if err != nil {
		return err
	}
	p, err := d.plan(k, !d.settled)
	if err != nil {
		return err
	}
	switch {
	case was != d.generation:
	case look:
		r.Drift = p.describe(k)
	case d.displaced && !p.jumpsAlone(k):
		// Verify found only jumps that Docker displaced. The rest changed after it.
		r.Drift = p.describeTables(k)
	}
	d.displaced = false
	d.due.note(p)
	if look {
		d.uncounted()
	}
	d.leave(p)
	d.kernel, d.glanced = nil, nil // until it is done
	err = d.execute(ctx, k, p, r)
	if !r.InForce {
		return err
	}
	d.remember(k, p)
	if err == nil {
		d.kernel, d.settled = k, true
	}
	d.glanced = k
	return errors.Join(err, d.forget()) // what is left of before is no reason to keep notes
}

// execute does what a plan says.
func (d *Driver) execute(ctx context.Context, k *kernel, p *plan, r *Report) (err error) {
	done := &progress{}
	defer func() {
		if err != nil && !r.InForce {
			err = errors.Join(err, d.undo(k, done))
		}
	}()
	for _, s := range p.create {
		if err := d.sets.create(s); err != nil {
			return err
		}
		done.created = append(done.created, s)
		r.Created++
	}
	if err := d.changeSets(p, r, func(c change) bool { return !c.late || !p.rules() }); err != nil {
		return err
	}
	if p.rules() {
		if err := d.build(ctx, k, p, done, r); err != nil {
			return err
		}
		late, err := d.swap(ctx, k, p, done, r)
		if err != nil {
			return err
		}
		if err := d.changeSets(p, r, func(c change) bool { return c.late }); err != nil {
			return errors.Join(late, err)
		}
		err = d.readBack(ctx, k, p)
		r.InForce = err == nil
		if err := errors.Join(late, err); err != nil {
			return err
		}
	}
	r.InForce = true
	r.Destroyed, err = d.release(ctx, p.destroy)
	return err
}

// changeSets makes the due changes, in the order of the plan.
func (d *Driver) changeSets(p *plan, r *Report, due func(change) bool) error {
	for _, c := range p.changes {
		if !due(c) {
			continue
		}
		if err := d.sets.change(c.setSpec, c.Delete, elements(c)); err != nil {
			return fmt.Errorf("%w (%q)", err, plain.Clip(c.about, 80))
		}
		if c.Delete {
			r.Deleted += len(c.Members)
		} else {
			r.Added += len(c.Members)
		}
	}
	return nil
}

func elements(c change) []element {
	list := make([]element, len(c.Members))
	for i, m := range c.Members {
		list[i].Member = m
	}
	return list
}

// build writes the chains of a new generation while nothing leads to them. Most errors happen
// here, where they do no harm. It writes both families at once, unless the programs would wait
// for each other: those of the legacy backend have one lock, and some look at it once a second.
func (d *Driver) build(ctx context.Context, k *kernel, p *plan, done *progress, r *Report) error {
	var ends []func() error
	for _, i := range d.families {
		t := p.tables[i]
		chains := t.build
		if !t.empty() {
			mark, err := k.active.toMark(i, k.tables[i])
			if err != nil {
				ends = append(ends, func() error { return err })
				break
			}
			chains = append(mark, chains...)
		}
		if len(chains) == 0 {
			continue
		}
		end := k.active.beginWrite(ctx, i, transaction(chains, nil))
		finish := func() error {
			if err := end(); err != nil {
				return err
			}
			r.Rules = true
			for _, c := range chains {
				if !k.tables[i].has(c.name) && !slices.Contains(marks, c.name) {
					done.built[i] = append(done.built[i], c.name)
					r.Generation = true
				}
			}
			return nil
		}
		if k.active.kind != Legacy {
			ends = append(ends, finish)
		} else if err := finish(); err != nil {
			return err
		}
	}
	var faults []error
	for _, end := range ends {
		faults = append(faults, end())
	}
	return errors.Join(faults...)
}

// swap leads packets to the new chains, and removes the ones that packets no longer meet. late
// is the error of the removal alone.
func (d *Driver) swap(ctx context.Context, k *kernel, p *plan, done *progress, r *Report) (late, err error) {
	for _, i := range d.families {
		t := p.tables[i]
		lines := removalOf(t.collect)
		if len(t.swap)+len(lines) > 0 {
			r.Rules = true
			err := k.active.write(ctx, i, transaction(t.swap, lines))
			if err != nil && len(lines) > 0 && !errors.Is(err, ErrLocked) {
				// A foreign rule may lead to an old chain. It must not keep the
				// new chains out, now or later.
				late = errors.Join(late, fmt.Errorf("remove old chains of netguard's (a rule of somebody else's that leads to one keeps it: delete that rule): %w", err))
				err = nil
				if len(t.swap) > 0 {
					err = k.active.write(ctx, i, transaction(t.swap, nil))
				}
			}
			if err != nil {
				return late, err
			}
		}
		done.inForce[i] = true
		for _, a := range t.anchors {
			r.Rules = true
			if err := k.active.setAnchor(i, a); err != nil {
				return late, fmt.Errorf("%s: %w", familyNames[i], err)
			}
			if moves := a.moves(); len(moves) > 0 {
				if err := k.active.write(ctx, i, transaction(nil, moves)); err != nil {
					return late, err
				}
			}
		}
	}
	for _, s := range p.stale {
		r.Rules = true
		if err := d.clear(ctx, s.backend, s.family, s.table); err != nil {
			late = errors.Join(late, fmt.Errorf("clear the other backend: %w", err))
		}
	}
	return late, nil
}

// readBack reads the tables after writing, and refuses a chain with another number of rules. Then
// iptables' wording of the rules becomes the agreed one.
func (d *Driver) readBack(ctx context.Context, k *kernel, p *plan) error {
	if err := d.readTables(ctx, k); err != nil {
		return err
	}
	for _, i := range d.families {
		t := k.tables[i]
		wrote := map[string]bool{}
		for _, c := range slices.Concat(p.tables[i].build, p.tables[i].swap) {
			list := t.rules[c.name]
			wrote[c.name] = true
			if !t.has(c.name) || len(list) != len(c.rules) {
				return fmt.Errorf("read back %s chain %s: %d rules were written and %d are there: is something else changing netguard's chains?",
					familyNames[i], c.name, len(c.rules), len(list))
			}
		}
		if left := t.anchorings(); len(left) > 0 {
			return fmt.Errorf("read back %s rules: %s: %w", familyNames[i], left[0], ErrOvertaken)
		}
		other := planTable(t, d.layouts[i], d.agreed[i])
		foreign := func(c chain) bool { return !wrote[c.name] }
		if len(other.collect) == 0 && !slices.ContainsFunc(slices.Concat(other.build, other.swap), foreign) {
			d.agreed[i] = t
		}
	}
	return nil
}

// remember notes the members that the sets have now.
func (d *Driver) remember(k *kernel, p *plan) {
	for _, s := range p.create {
		k.sets[s.name] = &heldSet{setHeader: setHeader{name: s.name, typ: s.typ, family: family(s.ipv6),
			counters: s.counters, timeout: s.timeout != 0}}
	}
	for _, name := range p.destroy {
		delete(k.sets, name)
	}
	for _, i := range d.families {
		f := d.wish.Rules.Families()[i]
		for _, sets := range [][]netpolicy.Set{f.Sets, d.counted(i)} {
			for s := range sets {
				k.sets[sets[s].Name].hold(sets[s].Members)
			}
		}
	}
}
