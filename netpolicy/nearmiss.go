package netpolicy

import (
	"fmt"
	"slices"
)

// bounded is a peer that fits containers of one project alone: a rule names the project,
// or it is the policy's or the container's own because the rule names none.
type bounded struct {
	policy    string
	direction Direction
	sel       Selector
}

// boundedPeers gives the peers of policies that are bound to a project.
func boundedPeers(policies []Policy) []bounded {
	var all []bounded
	for _, p := range policies {
		for _, d := range Directions {
			all = append(all, boundedRules(p.name, d, p.rules[d])...)
		}
	}
	return all
}

func boundedRules(policy string, d Direction, rules []rule) []bounded {
	var all []bounded
	for _, r := range rules {
		for _, sel := range r.selectors() {
			if sel.project != "" {
				all = append(all, bounded{policy, d, sel})
			}
		}
	}
	return all
}

// nearMiss tells of a peer that would fit the other end but for its project, "" if
// there is none. Labels and policies do not show the project that a peer has by default,
// so that people look for the fault elsewhere.
func (e *explainer) nearMiss(p pair, h Hit, of *Endpoint) string {
	other := p.other(of)
	if other == nil || !other.Managed {
		return ""
	}
	all := e.rs.bounded
	if h.Stage == labelStage(h.Direction) {
		label, _ := new(labelReader).endpoint(of)
		all = boundedRules("label "+policyLabels[h.Direction], h.Direction, label.rules[h.Direction])
	}
	for _, b := range all {
		anywhere := b.sel
		anywhere.project = ""
		if b.direction != h.Direction || !slices.Contains(e.state(of).Policies[h.Direction], b.policy) || b.sel.Matches(other) || !anywhere.Matches(other) {
			continue
		}
		its := "no project"
		if other.Project != "" {
			its = "project " + other.Project
		}
		return fmt.Sprintf("; its peer with %s counts in project %s only (a peer without a project gets that of its own side), and %s is of %s: name that project in the peer, or project: \"*\"",
			anywhere, b.sel.project, other.Name, its)
	}
	return ""
}
