package netpolicy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// labelPolicy is what one container's labels say.
type labelPolicy struct {
	isolates [2]bool
	rules    [2][]rule
	texts    [2]string // two that mean the same have one text
}

// labelReader reads labels, each text once.
type labelReader struct {
	texts map[labelText]*readLabel
}

type labelText struct {
	d             Direction
	project, text string
}

type readLabel struct {
	rules     []rule
	faults    Faults
	canonical string
}

// subject reads the labels of an endpoint.
func (r *labelReader) subject(e *Endpoint) *subject {
	s := &subject{inspected: &inspected{source: e, Endpoint: cleaned(*e)}}
	if s.Managed {
		s.label, s.faults = r.endpoint(&s.Endpoint)
	}
	return s
}

// forget forgets texts that no subject has, once there are many more texts than subjects.
func (r *labelReader) forget(subjects []*subject) {
	if len(r.texts) <= 100+4*len(subjects) {
		return
	}
	used := labelReader{}
	keep := func(w *Workload) {
		for _, d := range Directions {
			if key, ok := w.labelText(d); ok && r.texts[key] != nil {
				if used.texts == nil {
					used.texts = map[labelText]*readLabel{}
				}
				used.texts[key] = r.texts[key]
			}
		}
	}
	for _, s := range subjects {
		keep(&s.Workload)
		for i := range s.Shared {
			keep(&s.Shared[i])
		}
	}
	*r = used
}

func (w *Workload) labelText(d Direction) (labelText, bool) {
	text, ok := w.Labels[policyLabels[d]]
	return labelText{d, w.Project, text}, ok
}

// endpoint gives what the labels of all containers of an endpoint say, and the reasons to lock
// it.
func (r *labelReader) endpoint(e *Endpoint) (labelPolicy, []string) {
	found, faults := r.workload(&e.Workload)
	var locked []string
	for i := range e.Shared {
		other, more := r.workload(&e.Shared[i])
		faults = append(faults, more...)
		for _, d := range Directions {
			switch {
			case !other.isolates[d]:
			case !found.isolates[d]:
				found.isolates[d], found.rules[d], found.texts[d] = true, other.rules[d], other.texts[d]
			case found.texts[d] != other.texts[d]:
				locked = append(locked, fmt.Sprintf("containers that share a network namespace have different labels %s: give it to one of them", policyLabels[d]))
			}
		}
	}
	for _, f := range faults {
		locked = append(locked, f.Error())
	}
	if e.Unread != "" {
		locked = append(locked, e.Unread)
	}
	for i := range e.Shared {
		if why := e.Shared[i].Unread; why != "" {
			locked = append(locked, why)
		}
	}
	return found, locked
}

// workload reads the labels of one container. If there are faults, the policy is
// not to be used.
func (r *labelReader) workload(w *Workload) (labelPolicy, Faults) {
	var p labelPolicy
	faults := Strays(w.Labels)
	for _, d := range Directions {
		key, ok := w.labelText(d)
		if !ok {
			continue
		}
		l := r.texts[key]
		if l == nil {
			l = &readLabel{}
			l.rules, l.faults = parseLabel(policyLabels[d], key.text, d, w.Project)
			l.canonical = canonical(l.rules)
			if r.texts == nil {
				r.texts = map[labelText]*readLabel{}
			}
			r.texts[key] = l
		}
		p.isolates[d], p.rules[d], p.texts[d] = true, l.rules, l.canonical
		faults = append(faults, l.faults...)
	}
	return p, faults
}

// labels are the policies in the labels of all endpoints.
type labels struct {
	// rules are the rules by their text, as the first endpoint with that text has them.
	rules [2]map[string][]rule
	// over are the texts beyond maxLabelsCost.
	over [2]map[string]bool
}

// labelsOf gives the label policies of all subjects. Labels that mean the same are one policy. So
// the number of rules does not grow with the number of containers.
func labelsOf(subjects []*subject) labels {
	var costs [2]map[string]int // by what a label comes to
	for _, s := range subjects {
		for _, d := range Directions {
			if s.label.isolates[d] && len(s.faults) == 0 {
				if costs[d] == nil {
					costs[d] = map[string]int{}
				}
				if _, known := costs[d][s.label.texts[d]]; !known {
					costs[d][s.label.texts[d]] = cost(s.label.rules[d])
				}
			}
		}
	}
	l := labels{over: beyond(costs)}
	for _, s := range subjects {
		isOver := func(d Direction) bool { return s.label.isolates[d] && l.over[d][s.label.texts[d]] }
		if len(s.faults) > 0 || isOver(Ingress) || isOver(Egress) {
			continue
		}
		for _, d := range Directions {
			if !s.label.isolates[d] {
				continue
			}
			if l.rules[d] == nil {
				l.rules[d] = map[string][]rule{}
			}
			if _, known := l.rules[d][s.label.texts[d]]; !known {
				l.rules[d][s.label.texts[d]] = s.label.rules[d]
			}
		}
	}
	return l
}

// same tells whether two lists of labels share their rules in memory. Equal texts are not enough,
// because their rules may name the same addresses by other CIDRs.
func (l labels) same(o labels) bool {
	for _, d := range Directions {
		if !maps.EqualFunc(l.rules[d], o.rules[d], Shared[rule]) || !maps.Equal(l.over[d], o.over[d]) {
			return false
		}
	}
	return true
}

// beyond gives the labels for which there is no room. Labels of containers must not fill the
// kernel's tables for all. Short labels get room first, so nobody crowds others out by a long
// one.
func beyond(costs [2]map[string]int) [2]map[string]bool {
	type label struct {
		cost int
		d    Direction
		text string
	}
	var all []label
	sum := 0
	for d, texts := range costs {
		for text, n := range texts {
			all = append(all, label{n, Direction(d), text})
			sum += max(n, 1)
		}
	}
	if sum <= maxLabelsCost {
		return [2]map[string]bool{}
	}
	slices.SortFunc(all, func(a, b label) int {
		return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(a.d, b.d), cmp.Compare(a.text, b.text))
	})
	var over [2]map[string]bool
	sum = 0
	for _, l := range all {
		if sum += max(l.cost, 1); sum > maxLabelsCost {
			if over[l.d] == nil {
				over[l.d] = map[string]bool{}
			}
			over[l.d][l.text] = true
		}
	}
	return over
}
