package guard

import (
	"maps"
	"net/netip"
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
	d.keep(w)
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

// observeSome reads what may be new of some ports. It says which it looked at, and false
// where something is new that concerns others.
func (d *Driver) observeSome(changed map[int]*Port, bridges []Bridge, look Look) (replanned, bool, error) {
	seen := replanned{ports: map[int]struct{}{}, neighbours: look.Neighbours}
	if err := d.observeNeighbours(look); err != nil {
		return seen, false, err
	}
	for index := range look.Links {
		_, recorded := d.kernel.before[index]
		if d.plan.ports[index] != nil || recorded {
			seen.ports[index] = struct{}{}
		}
	}
	if len(look.MACs) > 0 {
		for index, pp := range d.plan.ports {
			if slices.ContainsFunc(pp.macs, func(m MAC) bool { _, ok := look.MACs[m]; return ok }) {
				seen.ports[index] = struct{}{}
			}
		}
	}
	for index := range seen.ports {
		if err := d.observeAgain(index, changed[index], look); err != nil {
			return seen, false, err
		}
	}
	for index, port := range changed {
		if _, did := seen.ports[index]; !did && port != nil && port.Guarded {
			if err := d.observeAgain(index, port, look); err != nil {
				return seen, false, err
			}
		}
	}
	if look.Unheard {
		if same, err := d.observeUnheard(seen); err != nil || !same {
			return seen, false, err
		}
	}
	same, err := d.observeSomeBridges(bridges, look)
	return seen, same, err
}

// observeAgain reads one port, as it is wished for, or as it was if that is nil.
func (d *Driver) observeAgain(index int, port *Port, look Look) error {
	macs := slices.Collect(maps.Keys(d.kernel.pins[index]))
	if pp := d.plan.ports[index]; pp != nil {
		if macs = append(macs, pp.macs...); port == nil {
			port = &pp.Port
		}
	}
	if port == nil {
		port = &Port{}
	}
	if port.Guarded {
		macs = append(append(macs, port.MAC), port.Allow.MACs...)
	}
	return d.observePort(index, *port, macs, look)
}

// observeSomeBridges reads the bridges that the look names, and tells whether they are as
// they were.
func (d *Driver) observeSomeBridges(bridges []Bridge, look Look) (bool, error) {
	k := &d.kernel
	used := map[int]bool{}
	for _, b := range bridges {
		used[b.Index] = true
	}
	for t := range d.plan.totals {
		if t.what == ofBridge {
			used[t.number] = true
		}
	}
	macs, gateways, no6 := map[int]MAC{}, map[int][]netip.Addr{}, map[int]bool{}
	for index := range used {
		macs[index], gateways[index], no6[index] = k.bridges[index], k.gateways[index], k.no6[index]
	}
	if err := d.observeBridges(used, look); err != nil {
		return false, err
	}
	for index := range used {
		if macs[index] != k.bridges[index] || !slices.Equal(gateways[index], k.gateways[index]) || no6[index] != k.no6[index] {
			return false, nil
		}
	}
	return true, nil
}

// observeUnheard reads what the kernel tells nobody of, and tells whether it concerns no
// more than single ports.
func (d *Driver) observeUnheard(seen replanned) (bool, error) {
	for index := range d.plan.ports {
		was := d.kernel.programs[index]
		if err := d.observePrograms(index); err != nil {
			return false, err
		}
		if !slices.Equal(was, d.kernel.programs[index]) {
			seen.ports[index] = struct{}{}
		}
	}
	was := d.kernel.reassembly.now
	if err := d.observeReassembly(true); err != nil {
		return false, err
	}
	return maps.Equal(was, d.kernel.reassembly.now), nil
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
	w.limits = limitWork{add: map[string]elements{}, del: map[string]elements{}}
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
