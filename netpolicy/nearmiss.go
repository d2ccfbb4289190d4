package netpolicy

import (
	"fmt"
	"slices"
)

// nearMiss names a peer that fits the other end in all but its project, "" if there is none. The
// project that a peer has by default is written nowhere, so people look for the fault elsewhere.
func (e *explainer) nearMiss(p pair, h Hit, of *Endpoint) string {
	other := p.other(of)
	if other == nil || !other.Managed {
		return ""
	}
	for _, a := range e.allowed(h, of) {
		if a.direction != h.Direction || !slices.Contains(e.state(of).Policies[h.Direction], a.policy) {
			continue
		}
		for _, r := range a.rules {
			for _, peer := range r.selectors() {
				anywhere := peer
				anywhere.project, anywhere.text = "", ""
				if peer.project == "" || peer.Matches(other) || !anywhere.Matches(other) {
					continue
				}
				its := "no project"
				if other.Project != "" {
					its = "project " + other.Project
				}
				return fmt.Sprintf("; its peer with %s counts in project %s only (a peer without a project gets that of its own side), and %s is of %s: name that project in the peer, or project: \"*\"",
					anywhere, peer.project, other.Name, its)
			}
		}
	}
	return ""
}
