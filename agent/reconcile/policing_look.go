package reconcile

import (
	"context"
	"slices"
	"strings"

	"netguard/agent/docker"
	"netguard/agent/endpoint"
)

// maxNames bounds the noted names of programs that changed rules. No check takes them while rules
// cannot be written, or while Docker has not answered.
const maxNames = 4

// soon makes verify due soon, because other programs may have changed rules. It notes their
// names, if they are known.
func (p *policing) soon(by []string) {
	for _, name := range by {
		if len(p.by) < maxNames && !slices.Contains(p.by, name) {
			p.by = append(p.by, name)
		}
	}
	p.doubt = true
	p.check.Wake()
}

// look does the cheap check of what the kernel does not report.
func (p *policing) look() {
	p.glance.Begin()
	p.glance.Done()
	if p.now().Before(p.contest.until()) {
		return
	}
	changed, err := p.plane.Glance()
	if changed || err != nil { // Verify reports the error
		p.check.By(p.now())
	}
}

// verify compares the kernel with what was written. If they differ, the rules are written again.
func (p *policing) verify(ctx context.Context) {
	p.check.Begin()
	drift, err := p.plane.Verify(ctx)
	if err != nil {
		p.late, p.gap = false, p.gap || p.doubt // the next write cannot tell what was rewritten
		p.fail(err)
		return
	}
	p.displaced = drift.Displaced
	if p.checked = p.networks; len(drift.Changes) == 0 {
		p.cover(p.checked)
	}
	now := p.now()
	switch {
	case len(drift.Changes) > 0 && drift.Displaced:
		p.log.Info("others wrote rules before netguard's, as Docker does for each network; putting netguard's first", "changes", drift.Changes, "by", names(p.by))
	case len(drift.Changes) > 0:
		if !p.contest.drifted(p.log, "the rules of policies", now, drift.Changes, p.by) {
			p.log.Warn("rules were changed by somebody else; restoring them", "changes", drift.Changes, "by", names(p.by))
		}
	case p.doubt && drift.Rewritten:
		// Rules may have been missing for a moment. Connections that began then must end.
		p.cutting.doubted = true
		p.cutting.reason()
	}
	if len(drift.Changes) == 0 {
		p.contest.calm(p.log, now)
	}
	p.by, p.doubt = nil, false
	p.rest()
	if len(drift.Changes) > 0 {
		p.dirty, p.holds, p.gap = true, false, true
		p.check.Now()
	}
	if !now.Before(p.bridges.contest.until()) {
		p.setBridges(true)
	}
}

// networks are Docker networks, by ID. A set is never changed, only replaced.
//
// When Docker makes a network, it adds rules that accept what the network's containers send.
// It puts them before all other rules, also before netguard's jumps. netguard moves its jumps to
// the first place again, and from then on they stay before the rules of that network. So an
// endpoint waits until its network is covered: until the rules were checked after Docker wrote.
type networks map[string]bool

// networksIn gives the networks for which Docker may have written rules.
func networksIn(v docker.View) networks {
	out := make(networks, len(v.Networks))
	for id := range v.Networks {
		out[id] = true
	}
	return out
}

// cover notes the networks whose packets meet netguard's rules first.
func (p *policing) cover(all networks) {
	for id := range all {
		p.news = p.news || !p.covered[id] // somebody may wait for it
	}
	p.covered = all
}

// uncovered tells whether policies are about an endpoint, but Docker's rules may accept its
// packets before netguard's rules see them.
func (p *PolicyState) uncovered(key endpoint.Key) bool {
	return !p.covered[key.Network] && p.Ruling.Governs(key)
}

// names lists programs for a log.
func names(by []string) string {
	if len(by) == 0 {
		return "the kernel does not say"
	}
	return strings.Join(by, ", ")
}
