package netpolicy

import (
	"fmt"
	"slices"
)

// subject is an endpoint as rules see it. It does not change.
type subject struct {
	*inspected

	// What follows from the rules of a frame.
	frame *frame
	// has are the groups that it is in for rules that close, opens those that it is in for rules
	// that allow: a part of has. Both are sorted.
	has, opens []int
	// withheld are the groups of selectors that fit only by labels of the image, and so open
	// nothing.
	withheld []int
	isolated [stages]bool
	labels   [2]int // the group of its label, by direction, or none; a lock leaves it
	state    State

	lost []Contested // extra addresses that it does not get
	base *subject    // itself before it lost them
}

// inspected is an endpoint with what its labels say.
type inspected struct {
	Endpoint           // with usable addresses only, and without the lost extra ones
	source   *Endpoint // as it came
	label    labelPolicy
	faults   []string // of labels; it is closed then
}

const none = -1

func (s *subject) in(groups []int, g int) bool {
	_, ok := slices.BinarySearch(groups, g)
	return ok
}

// judge gives a subject as the rules of the frame see it.
func (f *frame) judge(old *subject) *subject {
	s := &subject{inspected: old.inspected, frame: f, labels: [2]int{none, none}}
	s.state = State{Container: s.Name, ID: s.ID, Network: s.Network}
	if !s.Managed {
		return s
	}
	var selected []int // policies, in their order
	f.selectors.each(&s.Endpoint, func(g *group) {
		s.has = append(s.has, g.number)
		selected = append(selected, g.policies...)
		if g.sel.Opens(&s.Endpoint) {
			s.opens = append(s.opens, g.number)
		} else {
			s.withheld = append(s.withheld, g.number)
		}
	})
	for _, list := range [][]int{s.has, s.opens, s.withheld, selected} {
		slices.Sort(list)
	}
	f.isolate(s, selected)
	f.mention(s)
	f.label(s)
	for _, b := range f.broken {
		if b.Select.Matches(&s.Endpoint) {
			s.lock(b.String())
		}
	}
	slices.Sort(s.has)
	slices.Sort(s.opens)
	return s
}

// isolate notes which policies of files close a subject, and the groups in which their rules open
// something for it.
func (f *frame) isolate(s *subject, selected []int) {
	var proven [2]bool // a policy selects it without labels of its image
	for _, p := range selected {
		policy := &f.policies[p]
		for _, d := range Directions {
			if !policy.isolates[d] {
				continue
			}
			s.isolated[fileStage(d)] = true
			proven[d] = proven[d] || !slices.Contains(s.withheld, f.selected[p])
			if !slices.Contains(s.state.Policies[d], policy.name) { // a copied file has the same names
				s.state.Policies[d] = append(s.state.Policies[d], policy.name)
			}
		}
	}
	for _, d := range Directions {
		for _, p := range selected {
			policy, g := &f.policies[p], f.narrowed[d][p]
			if !policy.isolates[d] || g == f.selected[p] {
				continue // its selector is not apart: one group for both
			}
			if !slices.Contains(s.has, g) {
				s.has = append(s.has, g)
			}
			if withheld := slices.Contains(s.withheld, f.selected[p]); !withheld || !proven[d] {
				if !slices.Contains(s.opens, g) {
					s.opens = append(s.opens, g)
				}
			} else if len(policy.rules[d]) > 0 {
				s.state.uncount(policy.sel.uncounted(&s.Endpoint), policy.name)
			}
		}
	}
}

// label applies the policy labels of a subject: they close it, and open what they list.
func (f *frame) label(s *subject) {
	locked := slices.Clip(s.faults)
	for _, d := range Directions {
		if s.label.isolates[d] && len(locked) == 0 && f.labels.over[d][s.label.texts[d]] {
			locked = append(locked, fmt.Sprintf("the labels %s and %s of all containers become more than %d rules, and this one is among the longest: put the policy in a file",
				labelIngress, labelEgress, maxLabelsCost))
		}
	}
	for _, d := range Directions {
		if !s.label.isolates[d] || len(locked) > 0 {
			continue
		}
		s.isolated[labelStage(d)] = true
		s.state.Policies[d] = append(s.state.Policies[d], "label "+policyLabels[d])
		s.labels[d] = f.labelled[d][s.label.texts[d]]
		s.has, s.opens = append(s.has, s.labels[d]), append(s.opens, s.labels[d])
	}
	for _, why := range locked {
		s.lock(why)
	}
}

// lock closes a subject both ways: the label stages close it, and have no rule for it.
func (s *subject) lock(why string) {
	if !slices.Contains(s.state.Locked, why) {
		s.state.Locked = append(s.state.Locked, why)
	}
	for _, d := range Directions {
		s.isolated[labelStage(d)] = true
		mine := func(g int) bool { return g == s.labels[d] }
		s.has, s.opens = slices.DeleteFunc(s.has, mine), slices.DeleteFunc(s.opens, mine)
	}
}

// alike tells whether no rule tells two subjects apart.
func alike(a, b *subject) bool {
	return a.isolated == b.isolated && slices.Equal(a.has, b.has) && slices.Equal(a.opens, b.opens)
}
