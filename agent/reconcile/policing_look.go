package reconcile

import (
	"context"
	"strings"

	"netguard/agent/docker"
	"netguard/agent/endpoint"
)

// soon has the kernel looked at, because of what somebody did, if it is known who.
func (p *policing) soon(by []string) {
	p.by = append(p.by, by...)
	p.doubt = true
	p.check.Wake()
}

// look finds what is cheap to find of what nothing tells of.
func (p *policing) look() {
	p.glance.Begin()
	p.glance.Done()
	if p.now().Before(p.contest.until()) {
		return
	}
	changed, err := p.plane.Glance()
	if changed || err != nil { // an error is Verify's to tell
		p.check.By(p.now())
	}
}

// verify compares the kernel with what was written, and has it written again.
func (p *policing) verify(ctx context.Context) {
	p.check.Begin()
	drift, err := p.plane.Verify(ctx)
	if err != nil {
		p.late = false
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
		// For a moment they may have been away: what began then ends.
		p.cutting.doubted = true
		p.cutting.reason()
	}
	if len(drift.Changes) == 0 {
		p.contest.calm(p.log, now)
	}
	p.by, p.doubt = nil, false
	p.rest()
	if len(drift.Changes) > 0 {
		p.dirty, p.holds, p.cutting.doubted = true, false, true
		p.check.Now()
	}
	if !now.Before(p.bridges.contest.until()) {
		p.setBridges(true)
	}
}

// networks are some of Docker's, by ID. A set is never changed, only replaced.
//
// For each network that Docker makes it puts rules that accept what its containers send
// before all that is there, netguard's jumps among them. Once these were put first again
// they stay before that network's. So an endpoint waits until its network is covered: until
// the rules were looked at after Docker wrote its own.
type networks map[string]bool

// networksIn are those that Docker's rules may be there for.
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

// uncovered tells whether Docker's rules may accept packets of an endpoint that policies
// are about before netguard's see them.
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
