package guard

import (
	"maps"
	"slices"
)

// Most wishes differ from the one before in a port or two. applySome compares those with
// the kernel, and what somebody was told to look at, and leaves the rest as it is known to
// be. Where more could be concerned, everything is compared as at the first time.

// applySome gives false where all ports are to be compared; what it found changed by
// somebody else is in the second result in any case.
func (d *Driver) applySome(w Wish, look Look) (Report, []string, bool, error) {
	if look.Full || d.plan == nil || !d.settled || d.unhealed || d.twice || !d.wish.equalHost(w) {
		return Report{}, nil, false, nil
	}
	changed, ok := d.changed(w.Ports)
	if !ok {
		return Report{}, nil, false, nil
	}
	if d.features.Filter {
		if same, err := d.same(); err != nil || !same {
			return Report{}, nil, false, err
		}
	}
	d.settled = false // until all of it is done
	seen, ok, err := d.observeSome(changed, w.Bridges, look)
	if err != nil || !ok {
		return Report{}, nil, false, err
	}
	drift := sentences(d.diffSome(seen))
	differs, ok := d.plan.replan(changed, d.features)
	if !ok {
		return Report{}, drift, false, nil
	}
	if _, there := d.plan.sets[setOthers]; there && !slices.Equal(d.wish.Others, w.Others) {
		d.plan.exchange(setOthers, others(w.Others), differs.elements)
	}
	if len(differs.ports)+len(seen.ports) > 0 {
		d.plan.programs(d.program, &d.kernel, differs.elements)
	}
	d.failed = map[int][]error{}
	d.expectSome(differs.ports)
	differs.add(seen)
	left := d.diffSome(differs)
	changes := left.count()
	if changes > 0 {
		if left, err = d.carryOutSome(w, left, differs); err != nil || len(d.failed) > 0 {
			return Report{}, drift, false, err
		}
	}
	d.settled = left.count() == 0
	if len(changed) > 0 || !slices.Equal(d.wish.Others, w.Others) || len(d.wish.Ports) != len(w.Ports) {
		d.keep(w)
	}
	d.introduce(left)
	r := d.reportSome(differs.ports, left)
	r.Changes, r.Drift = changes, drift
	return r, drift, true, nil
}

// carryOutSome does what is to be done, as applyAll does. A failure is left to that.
func (d *Driver) carryOutSome(w Wish, todo work, differs replanned) (work, error) {
	_, attached, err := d.watchPorts(w, todo, d.layout)
	if err != nil || len(d.failed) > 0 {
		return todo, err
	}
	if todo.limits.count() > 0 {
		if err := d.limit(todo.limits); err != nil {
			d.note(0, err)
			return todo, nil
		}
	}
	if attached {
		d.plan.programs(d.program, &d.kernel, differs.elements)
	}
	if todo = d.diffSome(differs); todo.count() > 0 {
		if err := d.carryOut(todo); err != nil || len(d.failed) > 0 {
			return todo, err
		}
		touched := todo.touched()
		for index := range touched {
			if err := d.observeAgain(index, nil, Look{Links: touched}); err != nil {
				return todo, err
			}
		}
	}
	return d.diffSome(differs), nil
}

// changed gives the ports that are wished for otherwise than the last time, nil for those
// that are not any more. It gives false for a wish that names one twice.
func (d *Driver) changed(now []Port) (map[int]*Port, bool) {
	was := d.wish.Ports
	for len(was) > 0 && len(now) > 0 && was[0].equal(now[0]) {
		was, now = was[1:], now[1:]
	}
	for len(was) > 0 && len(now) > 0 && was[len(was)-1].equal(now[len(now)-1]) {
		was, now = was[:len(was)-1], now[:len(now)-1]
	}
	before := make(map[int]*Port, len(was))
	for i := range was {
		before[was[i].Index] = &was[i]
	}
	out := map[int]*Port{}
	met := make(map[int]bool, len(now))
	for i := range now {
		index := now[i].Index
		if _, planned := d.plan.ports[index]; met[index] || planned && before[index] == nil {
			return nil, false
		}
		met[index] = true
		if old := before[index]; old == nil || !old.equal(now[i]) {
			port := now[i]
			port.with(&d.kernel)
			out[index] = &port
		}
	}
	for index := range before {
		if !met[index] {
			out[index] = nil
		}
	}
	return out, true
}

// add adds what is to be compared as well.
func (r *replanned) add(other replanned) {
	maps.Copy(r.ports, other.ports)
	maps.Copy(r.neighbours, other.neighbours)
}

// diffSome is diff for some ports, neighbours and elements.
func (d *Driver) diffSome(some replanned) work {
	p, k, f := d.plan, &d.kernel, d.features
	w := work{admit: change{add: map[string]elements{}, del: map[string]elements{}}, release: change{del: map[string]elements{}}}
	into := func(c map[string]elements, e want, comment string) {
		if c[e.set] == nil {
			c[e.set] = elements{}
		}
		c[e.set][e.element] = comment
	}
	for e := range some.elements {
		_, wanted := p.sets[e.set][e.element]
		comment, there := k.table.sets[e.set][e.element]
		switch {
		case !f.Filter:
		case wanted && !there:
			into(w.admit.add, e, k.comment(e.set, e.element))
		case !wanted && there && lasts(e.set):
			into(w.release.del, e, comment)
		case !wanted && there:
			into(w.admit.del, e, comment)
		}
	}
	w.limits = change{add: map[string]elements{}, del: map[string]elements{}}
	for e := range some.limits {
		chain, wanted := p.connections.sets[e.set][e.element]
		was, there := "", false
		if k.limits == nil {
			continue
		}
		if was, there = k.limits.sets[e.set][e.element]; there && (!wanted || was != chain) {
			into(w.limits.del, e, was)
		}
		if wanted && (!there || was != chain) {
			into(w.limits.add, e, chain)
		}
	}
	for _, index := range sortedKeys(some.ports) {
		diffPort(&w, p, index, k, f)
		diffReleased(&w, p, index, k, f)
		diffAttach(&w, p, k, index)
		diffDetach(&w, p, k, index)
	}
	for key := range some.neighbours {
		diffNeighbour(&w, p, key, k)
	}
	diffLearned(&w, p, k)
	w.sort()
	return w
}
