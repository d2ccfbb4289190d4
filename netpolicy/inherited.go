package netpolicy

import (
	"fmt"
	"slices"
	"strings"
)

// Labels that a container has of its image are its author's word. They close: a policy
// selects by them, and a deny counts them. They open nothing:
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

// maxUncounted bounds what is noted of one endpoint.
const maxUncounted = 20

// narrow gives the rules of each policy to whom they may allow something: to those that
// it selects without labels of images, and to those that no other policy selects so.
func (p *prepared) narrow() {
	for _, d := range Directions {
		stage := fileStage(d)
		proven := make([]bool, len(p.endpoints))
		for _, r := range p.rules[stage] {
			for _, i := range r.in {
				proven[i] = proven[i] || r.opens[i]
			}
		}
		seen := map[string]group{}
		for j := range p.rules[stage] {
			r := &p.rules[stage][j]
			if !r.byLabel {
				continue // has and opens are the same, whoever comes
			}
			g, ok := seen[r.key]
			if !ok {
				g = group{key: r.key + " " + d.String(), about: r.about, has: r.has, in: r.in, opens: make([]bool, len(p.endpoints)), byLabel: true}
				for _, i := range g.in {
					g.opens[i] = r.opens[i] || !proven[i]
				}
				seen[r.key] = g
				p.groups[g.key] = g
			}
			for _, i := range g.in {
				if !g.opens[i] && len(r.rules) > 0 {
					p.uncounted(i, i, r.sel, r.policy)
				}
			}
			r.group = g
		}
	}
}

// noteUncounted notes the labels that peers of an allow name and that do not count:
// those of an operator's policy at the container that has them, those of a container's
// own label at the container whose label it is, which is the only one concerned.
func (p *prepared) noteUncounted(policies []Policy) {
	for _, policy := range policies {
		for _, d := range Directions {
			p.peersUncounted(policy.rules[d], func(peer int, s Selector) { p.uncounted(peer, peer, s, policy.name) })
		}
	}
	for _, d := range Directions {
		for _, r := range p.rules[labelStage(d)] {
			// Once for all containers that have the label: they may be many, and so
			// may be its peers.
			type named struct {
				peer int
				sel  Selector
			}
			var found []named
			p.peersUncounted(r.rules, func(peer int, s Selector) {
				if len(found) < maxUncounted {
					found = append(found, named{peer, s})
				}
			})
			for owner, has := range r.has {
				if !has {
					continue
				}
				for _, f := range found {
					p.uncounted(owner, f.peer, f.sel, r.policy)
				}
			}
		}
	}
}

func (p *prepared) peersUncounted(rules []rule, note func(peer int, s Selector)) {
	for _, r := range rules {
		for _, s := range r.selectors() {
			if len(s.named()) == 0 {
				continue
			}
			g := p.selector(s)
			for _, i := range g.in {
				if !g.opens[i] {
					note(i, s)
				}
			}
		}
	}
}

// uncounted notes at an endpoint that a policy would count labels of another, or of
// itself.
func (p *prepared) uncounted(at, of int, s Selector, policy string) {
	state := &p.states[at]
	for _, u := range s.uncounted(&p.endpoints[of]) {
		i := slices.IndexFunc(state.Uncounted, func(o Uncounted) bool { return o.Container == u.Container && o.Label == u.Label })
		if i < 0 {
			if len(state.Uncounted) == maxUncounted {
				return
			}
			i = len(state.Uncounted)
			state.Uncounted = append(state.Uncounted, u)
		}
		if known := &state.Uncounted[i].Policies; !slices.Contains(*known, policy) {
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

// Notice says of a container's labels that they do not count.
type Notice struct{ Container, Text string }

// Notices tell people of uncounted labels, those of one container for the same policies
// together: `label "role"="backup" of tool does not count for what policy db allows: …`.
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

func allowedOf(policies []Policy) []allowed {
	var all []allowed
	for _, p := range policies {
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
	all := e.rs.allows
	if h.Stage == labelStage(h.Direction) {
		label, _ := newLabelReader().endpoint(of)
		all = []allowed{{"label " + policyLabels[h.Direction], h.Direction, Selector{}, label.rules[h.Direction]}}
	}
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
