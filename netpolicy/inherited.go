package netpolicy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Labels that a container has from its image are the word of the image's author. They close: a
// policy selects by them, and a deny counts them. They open nothing:
//
//   - a peer of an allow does not count them;
//   - a policy that selects a container by them closes it and lists what passes, but
//     adds nothing to what policies allow that select the container without them.
//
// So a container is never allowed more with the labels of its image than without.

// Uncounted is a label that a policy's allow names, and that does not count there.
type Uncounted struct {
	Container    string   // whose label it is
	Label, Value string   // Value is clipped
	Policies     []string // that would have counted it
	Why          string   // why nobody knows whose it is; "": the image has it
}

// maxUncounted bounds the notes about one endpoint.
const maxUncounted = 20

// mention is a selector in what a policy of a file allows.
type mention struct {
	order  int
	sel    *Selector
	policy string
}

// mention notes the labels of a subject that a policy of a file names in a peer of an allow, and
// that do not count there. The notes stand in the state of that subject.
func (f *frame) mention(s *subject) {
	var all []mention
	for _, g := range s.withheld {
		all = append(all, f.groups[g].mentions...)
	}
	slices.SortFunc(all, func(a, b mention) int { return cmp.Compare(a.order, b.order) })
	for _, m := range all {
		s.state.uncount(m.sel.uncounted(&s.Endpoint), m.policy)
	}
}

// noteLabels notes the labels that the policy label of a container names in its peers, and that
// do not count there. The notes stand in the state of the container with the policy label. Nobody
// else is concerned.
func (f *frame) noteLabels(subjects []*subject, states []*State) {
	var withheld []*subject
	for _, s := range subjects {
		if len(s.withheld) > 0 {
			withheld = append(withheld, s)
		}
	}
	if len(withheld) == 0 {
		return
	}
	own := map[int]bool{} // states that were copied already
	for _, d := range Directions {
		owners := map[int][]int{} // by group
		for i, s := range subjects {
			if s.labels[d] != none {
				owners[s.labels[d]] = append(owners[s.labels[d]], i)
			}
		}
		for _, r := range f.rules[labelStage(d)] {
			// Once for all containers that have the label: they may be many, and so
			// may be its peers.
			var found []func(*State)
			for _, rule := range r.rules {
				for _, p := range rule.peers {
					if p.kind != peerContainers || !p.sel.labelled() {
						continue
					}
					for _, s := range withheld {
						if len(found) < maxUncounted && slices.Contains(s.withheld, p.group.number) {
							found = append(found, func(state *State) { state.uncount(p.sel.uncounted(&s.Endpoint), r.policy) })
						}
					}
				}
			}
			for _, i := range owners[r.number] {
				if len(found) > 0 && !own[i] {
					own[i] = true
					state := *states[i]
					states[i], state.Uncounted = &state, slices.Clone(state.Uncounted)
					for j := range states[i].Uncounted {
						u := &states[i].Uncounted[j]
						u.Policies = slices.Clip(u.Policies)
					}
				}
				for _, note := range found {
					note(states[i])
				}
			}
		}
	}
}

// uncount notes that a policy would count labels.
func (s *State) uncount(labels []Uncounted, policy string) {
	for _, u := range labels {
		i := slices.IndexFunc(s.Uncounted, func(o Uncounted) bool { return o.Container == u.Container && o.Label == u.Label })
		if i < 0 {
			if len(s.Uncounted) == maxUncounted {
				return
			}
			i = len(s.Uncounted)
			s.Uncounted = append(s.Uncounted, u)
		}
		if known := &s.Uncounted[i].Policies; !slices.Contains(*known, policy) {
			*known = append(*known, policy)
		}
	}
}

// uncounted gives the labels by which a selector would fit an endpoint, and that do not
// count where something opens.
func (s Selector) uncounted(e *Endpoint) []Uncounted {
	var all []Uncounted
	for _, w := range append([]Workload{e.Workload}, e.Shared...) {
		if !s.fits(&w) {
			continue
		}
		for _, label := range s.named() {
			if !w.counts(label) {
				all = append(all, Uncounted{Container: w.Name, Label: label, Value: clip(w.value(label)), Why: w.Unproven})
			}
		}
	}
	return all
}

func (w *Workload) value(label string) string {
	switch label {
	case LabelProject:
		return w.Project
	case LabelService:
		return w.Service
	}
	return w.Labels[label]
}

// Notice tells people that labels of a container do not count.
type Notice struct{ Container, Text string }

// Notices gives the notices about uncounted labels. Labels of one container for the same policies
// are in one notice: `label "role"="backup" of tool does not count for what policy db allows: …`.
func Notices(found []Uncounted) []Notice {
	type about struct{ container, policies, why string }
	labels := map[about][]string{}
	var order []about
	for _, u := range found {
		a := about{u.Container, policiesText(u.Policies), u.Why}
		if labels[a] == nil {
			order = append(order, a)
		}
		labels[a] = append(labels[a], fmt.Sprintf("%q=%q", clip(u.Label), u.Value))
	}
	var all []Notice
	for _, a := range order {
		what, verb := "label", "does"
		if len(labels[a]) > 1 {
			what, verb = "labels", "do"
		}
		why := a.why
		if why == "" {
			why = "the image has the same, and an image opens nothing"
		}
		all = append(all, Notice{a.container, fmt.Sprintf("%s %s of %s %s not count for what %s allows: %s",
			what, strings.Join(labels[a], ", "), a.container, verb, a.policies, why)})
	}
	return all
}

// allowed is what a policy allows in a direction, for explanations.
type allowed struct {
	policy    string
	direction Direction
	sel       Selector
	rules     []rule
}

// allowed gives what the policies of a hit's stage allow: those of files, or what the label of
// an endpoint says.
func (e *explainer) allowed(h Hit, of *Endpoint) []allowed {
	if h.Stage == labelStage(h.Direction) {
		label, _ := new(labelReader).endpoint(of)
		return []allowed{{"label " + policyLabels[h.Direction], h.Direction, Selector{}, label.rules[h.Direction]}}
	}
	var all []allowed
	for _, p := range e.rs.policies {
		for _, d := range Directions {
			if p.isolates[d] && len(p.rules[d]) > 0 {
				all = append(all, allowed{p.name, d, p.sel, p.rules[d]})
			}
		}
	}
	return all
}

// inherited tells of rules that would allow a packet if labels of images counted, ""
// if there are none.
func (e *explainer) inherited(p pair, h Hit, of *Endpoint, s *Service) string {
	all := e.allowed(h, of)
	other := p.other(of)
	if behind := e.behind(p, s); behind != nil {
		s = nil // its port is another one
		if other == nil {
			other = behind
		}
	}
	var found []Uncounted
	tell := func(more []Uncounted, policy string) {
		for _, u := range more {
			u.Policies = []string{policy}
			if len(found) < maxUncounted && !slices.ContainsFunc(found, func(o Uncounted) bool { return o.Container == u.Container && o.Label == u.Label }) {
				found = append(found, u)
			}
		}
	}
	for _, a := range all {
		if a.direction != h.Direction || !a.sel.Matches(of) {
			continue
		}
		for _, r := range a.rules {
			if s != nil && !r.ports.about(*s) {
				continue
			}
			for _, peer := range r.selectors() {
				if other != nil && other.Managed && peer.Matches(other) && !peer.Opens(other) {
					tell(peer.uncounted(other), a.policy)
				}
			}
		}
		if !a.sel.Opens(of) && slices.ContainsFunc(all, func(o allowed) bool { return o.direction == a.direction && o.sel.Opens(of) }) {
			tell(a.sel.uncounted(of), a.policy)
		}
	}
	text := ""
	for _, n := range Notices(found) {
		text += "; " + n.Text
	}
	return text
}

// about tells whether ports may be those of a service.
func (p ports) about(s Service) bool {
	if s.Proto.HasPorts() {
		return p.contain(s.Proto, s.Port)
	}
	return p == nil || slices.ContainsFunc(p, func(o portSpec) bool { return !o.proto.HasPorts() && !s.Proto.HasPorts() && s.Proto != otherProtocol })
}
