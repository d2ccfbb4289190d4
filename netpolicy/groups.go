package netpolicy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// group is some of the endpoints, under a text that says which, so that the same
// text is the same set in every generation.
type group struct {
	key   string
	about string
	has   []bool // by endpoint: for whom it closes
	opens []bool // by endpoint: for whom it allows, which is never more
	// in are the endpoints that has names, sorted; nil where they were not gathered.
	in []int
	// sel is what it was made of, nil where it was not made of a selector alone.
	sel *Selector
	// byLabel says that labels decide who is in it.
	byLabel bool
}

// members gives the endpoints that are meant in a deny, or in an allow.
func (g group) members(denies bool) []bool {
	if denies {
		return g.has
	}
	return g.opens
}

// stageRules are what one policy says in one direction, with whom it is about.
type stageRules struct {
	group
	sel    Selector // of a policy in a file
	policy string
	rules  []rule
}

// prepared is the input, looked at once for both families.
type prepared struct {
	endpoints []Endpoint
	own       owners
	states    []State
	// isolated tells by stage which endpoints it closes.
	isolated map[Stage][]bool
	rules    map[Stage][]stageRules
	denies   []stageDeny
	places   bool
	groups   map[string]group // by key
	index    candidates
}

type stageDeny struct {
	group
	policy string
	deny
}

// fileStage and labelStage give the stages of a direction.
func fileStage(d Direction) Stage { return [...]Stage{Ingress: FileIngress, Egress: FileEgress}[d] }

func labelStage(d Direction) Stage { return [...]Stage{Ingress: LabelIngress, Egress: LabelEgress}[d] }

func prepare(w World, read *labelReader) *prepared {
	n := len(w.Endpoints)
	endpoints := clean(w.Endpoints)
	p := &prepared{
		endpoints: endpoints,
		states:    make([]State, n),
		isolated: map[Stage][]bool{
			FileEgress: make([]bool, n), LabelEgress: make([]bool, n),
			FileIngress: make([]bool, n), LabelIngress: make([]bool, n),
		},
		rules:  map[Stage][]stageRules{},
		groups: map[string]group{},
		index:  candidatesOf(endpoints),
		places: w.Places,
	}
	for i, e := range endpoints {
		p.states[i] = State{Container: e.Name, ID: e.ID, Network: e.Network}
	}
	for _, policy := range w.Policies {
		p.add(policy)
	}
	p.narrow()
	p.readLabels(read)
	p.noteUncounted(w.Policies)
	for _, b := range w.Broken {
		for i, in := range p.selector(b.Select).has {
			if in {
				p.lock(i, b.String())
			}
		}
	}
	p.contest(w.Held)
	p.own = ownersOf(p.endpoints)
	return p
}

func (p *prepared) add(policy Policy) {
	g := p.selector(policy.sel)
	for _, d := range Directions {
		if !policy.isolates[d] {
			continue
		}
		for _, i := range g.in {
			p.isolated[fileStage(d)][i] = true
			if !slices.Contains(p.states[i].Policies[d], policy.name) { // a copy of a file, or one that moved
				p.states[i].Policies[d] = append(p.states[i].Policies[d], policy.name)
			}
		}
		p.rules[fileStage(d)] = append(p.rules[fileStage(d)], stageRules{g, policy.sel, policy.name, policy.rules[d]})
	}
	for _, d := range policy.deny {
		p.denies = append(p.denies, stageDeny{g, policy.name, d})
	}
}

// selector gives the managed endpoints that a selector fits.
func (p *prepared) selector(s Selector) group {
	key := "selector " + s.String()
	if g, ok := p.groups[key]; ok {
		return g
	}
	n := len(p.endpoints)
	g := group{key: key, about: "containers with " + s.String(), has: make([]bool, n), in: []int{}, byLabel: len(s.named()) > 0, sel: &s}
	if g.opens = g.has; g.byLabel {
		g.opens = make([]bool, n)
	}
	if s.String() == (Selector{}).String() {
		g.about = s.String()
	}
	p.index.each(s, len(p.endpoints), func(i int) {
		e := &p.endpoints[i]
		if !e.Managed || !s.Matches(e) {
			return
		}
		g.has[i], g.in = true, append(g.in, i)
		if g.byLabel {
			g.opens[i] = s.Opens(e)
		}
	})
	p.groups[key] = g
	return g
}

// lock closes an endpoint both ways: the label stages close it, and have no rule
// for it.
func (p *prepared) lock(i int, why string) {
	if !slices.Contains(p.states[i].Locked, why) {
		p.states[i].Locked = append(p.states[i].Locked, why)
	}
	for _, d := range Directions {
		p.isolated[labelStage(d)][i] = true
		for _, r := range p.rules[labelStage(d)] {
			r.has[i] = false
		}
	}
}

// readLabels makes the label stages. Containers whose labels mean the same are
// one group, so that rules grow with what labels say and not with containers.
func (p *prepared) readLabels(read *labelReader) {
	n := len(p.endpoints)
	found, locked := make([]labelPolicy, n), make([][]string, n)
	var costs [2]map[string]int // by what a label comes to
	for i := range p.endpoints {
		if !p.endpoints[i].Managed {
			continue
		}
		found[i], locked[i] = read.endpoint(&p.endpoints[i])
		for _, d := range Directions {
			if found[i].isolates[d] && len(locked[i]) == 0 {
				if costs[d] == nil {
					costs[d] = map[string]int{}
				}
				costs[d][canonical(found[i].rules[d])] = cost(found[i].rules[d])
			}
		}
	}
	over := beyond(costs)
	var byText [2]map[string]int // index in rules of the stage
	for i := range p.endpoints {
		for _, d := range Directions {
			if found[i].isolates[d] && len(locked[i]) == 0 && over[d][canonical(found[i].rules[d])] {
				locked[i] = append(locked[i], fmt.Sprintf("the labels %s and %s of all containers become more than %d rules, and this one is among the longest: put the policy in a file",
					labelIngress, labelEgress, maxLabelsCost))
			}
		}
		for _, d := range Directions {
			if !found[i].isolates[d] || len(locked[i]) > 0 {
				continue
			}
			stage := labelStage(d)
			p.isolated[stage][i] = true
			p.states[i].Policies[d] = append(p.states[i].Policies[d], "label "+policyLabels[d])
			text := canonical(found[i].rules[d])
			at, ok := byText[d][text]
			if !ok {
				if byText[d] == nil {
					byText[d] = map[string]int{}
				}
				at = len(p.rules[stage])
				byText[d][text] = at
				has := make([]bool, n)
				g := group{key: "label " + d.String() + " " + text, about: "containers with one label " + policyLabels[d], has: has, opens: has}
				p.rules[stage] = append(p.rules[stage], stageRules{group: g, policy: "label " + policyLabels[d], rules: found[i].rules[d]})
			}
			p.rules[stage][at].has[i] = true
		}
		for _, why := range locked[i] {
			p.lock(i, why)
		}
	}
	for _, d := range Directions { // an order that containers have no part in
		slices.SortFunc(p.rules[labelStage(d)], func(a, b stageRules) int { return strings.Compare(a.key, b.key) })
		for _, r := range p.rules[labelStage(d)] {
			p.groups[r.key] = r.group
		}
	}
}

// beyond gives the labels for which there is no room: what containers say must not
// fill the kernel's tables for all. The short ones come first, so that nobody
// crowds others out by much text.
func beyond(costs [2]map[string]int) [2]map[string]bool {
	type label struct {
		cost int
		d    Direction
		text string
	}
	var all []label
	for d, texts := range costs {
		for text, n := range texts {
			all = append(all, label{n, Direction(d), text})
		}
	}
	slices.SortFunc(all, func(a, b label) int {
		return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(a.d, b.d), cmp.Compare(a.text, b.text))
	})
	var over [2]map[string]bool
	sum := 0
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
