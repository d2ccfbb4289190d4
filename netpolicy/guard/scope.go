package guard

import (
	"maps"
	"slices"

	"netguard/internal/changed"
)

// Most wishes differ from the last one in a port or two. So each Apply has a scope: observe
// adds what it read, replan adds what changed in the plan, and diff compares only that. A
// scope may also be everything.

// scope is what may differ between the plan and the kernel.
type scope struct {
	all        bool
	ports      map[int]struct{}
	neighbours map[Neighbour]struct{}
	elements   map[want]struct{} // of the table of the bridge
	limits     map[want]struct{} // of the table of limits
}

func newScope() scope {
	return scope{ports: map[int]struct{}{}, neighbours: map[Neighbour]struct{}{}, elements: map[want]struct{}{}, limits: map[want]struct{}{}}
}

// everything is the scope of all ports and neighbours that the plan or the kernel has.
func everything(p *plan, k *kernelState) scope {
	s := newScope()
	s.all = true
	for index := range p.ports {
		s.ports[index] = struct{}{}
	}
	for index := range k.before {
		s.ports[index] = struct{}{}
	}
	for index := range k.programs {
		s.ports[index] = struct{}{}
	}
	for n := range p.neighbours {
		s.neighbours[n] = struct{}{}
	}
	for n := range k.neighbours {
		s.neighbours[n] = struct{}{}
	}
	return s
}

// add adds the ports and neighbours that observe read.
func (s *scope) add(seen scope) {
	maps.Copy(s.ports, seen.ports)
	maps.Copy(s.neighbours, seen.neighbours)
}

// changed gives the ports that differ from the last wish, nil for ports that the wish no
// longer has. It gives false where all ports must be compared.
func (d *Driver) changed(w Wish) (map[int]*Port, bool) {
	if d.plan == nil || !d.settled || d.unsure || d.twice || !d.wish.equalHost(w) {
		return nil, false
	}
	gone, came := changed.Between(d.wish.Ports, w.Ports)
	out := make(map[int]*Port, len(gone)+len(came))
	for _, p := range gone {
		out[p.Index] = nil
	}
	for _, p := range came {
		before, left := out[p.Index]
		if _, planned := d.plan.ports[p.Index]; before != nil || planned && !left {
			return nil, false // the wish names a port twice
		}
		out[p.Index] = p
	}
	return out, true
}

// replan brings the plan to the wish, and gives a scope with what was seen and what changed in
// the plan. It works the changed ports into the plan where only some ports are concerned.
func (d *Driver) replan(w Wish, changed map[int]*Port, some bool, seen scope) (scope, error) {
	if some && !seen.all {
		for index, p := range changed {
			if p != nil {
				changed[index] = p.with(&d.kernel)
			}
		}
		if s, ok := d.plan.replan(changed, d.features); ok {
			if _, there := d.plan.sets[setOthers]; there && !slices.Equal(d.wish.Others, w.Others) {
				d.plan.exchange(setOthers, others(w.Others), s.elements)
			}
			s.add(seen)
			d.plan.programs(d.program, &d.kernel, s)
			return s, nil
		}
	}
	if d.layout.id == "" || d.layout.options != w.Options {
		l, err := newLayout(w.Options, d.features)
		if err != nil {
			return scope{}, err
		}
		d.layout = l
	}
	d.plan = d.newPlan(w)
	return scope{all: true}, nil
}

// diffElements compares some elements of the tables.
func diffElements(w *work, p *plan, k *kernelState, f Features, some scope) {
	w.admit, w.limits = newChange(), newChange()
	w.release = newChange()
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
	for e := range some.limits {
		chain, wanted := p.connections.sets[e.set][e.element]
		if k.limits == nil {
			continue
		}
		was, there := k.limits.sets[e.set][e.element]
		if there && (!wanted || was != chain) {
			into(w.limits.del, e, was)
		}
		if wanted && (!there || was != chain) {
			into(w.limits.add, e, chain)
		}
	}
}

func newChange() change { return change{add: map[string]elements{}, del: map[string]elements{}} }
