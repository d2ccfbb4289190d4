package netpolicy

import (
	"fmt"
	"maps"
	"slices"
)

// labelReader reads labels, each text once, and those of a container again only when they
// change.
type labelReader struct {
	texts      map[string]readLabel
	containers map[string]*readContainer // by ID
	round      uint64
}

// readContainer is what the labels of a container came to.
type readContainer struct {
	labels  map[string]string
	project string
	policy  labelPolicy
	faults  Faults
	round   uint64 // the last one in which somebody asked
}

func newLabelReader() *labelReader {
	return &labelReader{texts: map[string]readLabel{}, containers: map[string]*readContainer{}}
}

// next begins another round. What nobody asked for in the last one is forgotten.
func (r *labelReader) next() {
	texts := false
	for id, c := range r.containers {
		if c.round != r.round {
			delete(r.containers, id)
			texts = true
		}
	}
	if texts {
		clear(r.texts) // they are read again when they are asked for
	}
	r.round++
}

type readLabel struct {
	rules  []rule
	faults Faults
}

// endpoint gives what the labels of all containers of an endpoint say, and why
// it is to be locked.
func (r *labelReader) endpoint(e *Endpoint) (labelPolicy, []string) {
	found, faults := r.workload(&e.Workload)
	var locked []string
	for i := range e.Shared {
		other, more := r.workload(&e.Shared[i])
		faults = append(slices.Clip(faults), more...)
		for _, d := range Directions {
			switch {
			case !other.isolates[d]:
			case !found.isolates[d]:
				found.isolates[d], found.rules[d] = true, other.rules[d]
			case canonical(found.rules[d]) != canonical(other.rules[d]):
				locked = append(locked, fmt.Sprintf("containers that share a network namespace have different labels %s: give it to one of them", policyLabels[d]))
			}
		}
	}
	for _, f := range faults {
		locked = append(locked, f.Error())
	}
	return found, locked
}

// workload reads the labels of one container. If there are faults, the policy is
// not to be used.
func (r *labelReader) workload(w *Workload) (labelPolicy, Faults) {
	c := r.containers[w.ID]
	if c == nil || w.ID == "" || c.project != w.Project || !maps.Equal(c.labels, w.Labels) {
		c = &readContainer{labels: w.Labels, project: w.Project}
		c.policy, c.faults = r.read(w)
		r.containers[w.ID] = c
	}
	c.round = r.round
	return c.policy, c.faults
}

func (r *labelReader) read(w *Workload) (labelPolicy, Faults) {
	var p labelPolicy
	faults := Strays(w.Labels)
	for _, d := range Directions {
		text, ok := w.Labels[policyLabels[d]]
		if !ok {
			continue
		}
		key := d.String() + "\x00" + w.Project + "\x00" + text
		l, ok := r.texts[key]
		if !ok {
			l.rules, l.faults = parseLabel(policyLabels[d], text, d, w.Project)
			r.texts[key] = l
		}
		p.isolates[d], p.rules[d] = true, l.rules
		faults = append(faults, l.faults...)
	}
	return p, faults
}
