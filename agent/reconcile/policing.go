package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"netguard/agent/desired"
	"netguard/agent/pace"
	"netguard/netpolicy/iptables"
)

const (
	// PoliceEvery is how often the rules are compared with the kernel. The kernel reports no
	// change of iptables' legacy backend or of ipset.
	PoliceEvery = 10 * time.Second
	// glanceEvery is how often the cheap check of these is done.
	glanceEvery = 2 * time.Second
	// maxOvertaken is how many times in a row another program may write rules at the same
	// moment before that is an error.
	maxOvertaken = 3
	// policeTimeout bounds one round of forks.
	policeTimeout = 30 * time.Second
)

// policing brings the rules in the kernel to the ruling, and keeps them there. It is part of
// the loop's goroutine.
type policing struct {
	log   *slog.Logger
	plane PolicyPlane
	now   func() time.Time
	// monitor: refused packets are counted, and pass.
	monitor bool

	ruling *desired.Ruling // the wanted one
	known  *desired.Ruling // the last one that packets met
	dirty  bool            // ruling is not in the kernel, or not all of what was before is gone
	// holds says that packets meet ruling. ever says that they have met some ruling since the
	// start.
	holds, ever bool
	err         error // why the last try failed
	// late: ruling is in force, and err is about older rules that cannot be removed.
	late bool
	news bool // something changed that an endpoint may wait for

	check     pace.Pace // writes the ruling while dirty, and else compares the kernel with it
	glance    pace.Pace // of the cheap check
	overtaken int       // how many times in a row another program wrote rules at the same moment
	displaced bool      // the last check found only changes that Docker makes
	by        []string  // who changed the rules, since they were looked at
	doubt     bool      // the next check is due because another program wrote rules
	gap       bool      // rules were missing, or may have been, since packets last met all of them
	contest   contention

	// networks are all networks now. checked are the networks of the moment when the rules were
	// last read. covered are the networks whose packets meet netguard's rules first.
	networks, checked, covered networks

	bridges bridgeFilter
	cutting cutting
}

func newPolicing(log *slog.Logger, plane PolicyPlane, conns Connections, now func() time.Time) *policing {
	return &policing{log: log, plane: plane, now: now,
		check:   pace.Pace{Gather: verifySoon, Every: PoliceEvery, MinRetry: minFailing, MaxRetry: maxFailing, Clock: now},
		glance:  pace.Pace{Every: glanceEvery, Clock: now},
		bridges: newBridgeFilter(log, plane, now),
		cutting: newCutting(log, conns, now)}
}

// want sets the ruling to write. A new ruling is tried at once, even if an older one failed.
func (p *policing) want(r *desired.Ruling, there networks) {
	p.networks = there
	if p.ruling != r {
		p.ruling, p.dirty, p.holds = r, true, false
		p.check.Now()
	}
}

// apply brings the kernel to the ruling, if it is time to try.
func (p *policing) apply(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, policeTimeout)
	defer cancel()
	if p.dirty && p.check.Due() {
		p.write(ctx)
	}
	if p.bridges.due(p.dirty, p.holds) {
		p.setBridges(true)
	}
}

// keep does the checks that are due, and calls list if a list of connections is due. It tells
// whether a pass has to follow at once.
func (p *policing) keep(ctx context.Context, list func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, policeTimeout)
	defer cancel()
	if p.bridges.due(p.dirty, p.holds) {
		p.setBridges(true)
	}
	if p.glances() && p.glance.Due() {
		p.look()
	}
	if !p.dirty && p.check.Due() {
		p.verify(ctx)
	}
	if p.cutting.cancel == nil && p.cutting.pace.Due() {
		p.news = list() || p.news
	}
	news := p.news
	p.news = false
	return p.dirty && p.check.Due() || news
}

// next is when there is something to do.
func (p *policing) next() time.Time {
	next := pace.Soonest(p.check.Next(), p.cutting.due(), p.bridges.next(p.dirty, p.holds))
	if p.glances() {
		next = pace.Soonest(next, p.glance.Next())
	}
	return next
}

// glances tells whether the cheap check is done: what it compares with is in the kernel, though
// older rules may be there too.
func (p *policing) glances() bool { return !p.dirty || p.holds }

// write brings the kernel to the ruling.
func (p *policing) write(ctx context.Context) {
	p.check.Begin()
	displaced := p.displaced
	p.displaced = false
	report, err := p.plane.Apply(ctx, p.ruling.Wish)
	if errors.Is(err, iptables.ErrOvertaken) && p.overtaken < maxOvertaken {
		p.log.Info("others write rules at this moment; looking again", "error", err)
		p.overtaken++
		p.check.Done()
		p.check.Wake()
		return
	}
	p.overtaken, p.holds, p.ever = 0, report.InForce, p.ever || report.InForce
	if displaced && len(report.Drift) > 0 { // since the last check, which found only Docker's changes
		p.log.Warn("rules were changed by somebody else; restored", "changes", report.Drift)
	}
	p.late = err != nil && report.InForce
	if report.InForce {
		if report.Looked {
			p.checked = p.networks
		}
		p.cover(p.checked)
		p.inForce(report)
	}
	if err != nil {
		p.fail(err)
		return
	}
	p.dirty, p.err = false, nil
	p.rest()
}

// rest sets when the next check is due. It is due soon if there was a reason meanwhile: Apply
// does not read the rules if it only changes members of sets.
func (p *policing) rest() {
	now := p.now()
	p.check.Done()
	p.glance.Begin()
	p.glance.Done()
	if p.contest.on() {
		p.check.Hold(p.contest.until())
		p.check.By(p.contest.next(now, now.Add(PoliceEvery)))
	}
	if p.bridges.contest.on() {
		p.check.By(p.bridges.contest.next(now, now.Add(PoliceEvery)))
	}
	if p.doubt {
		p.check.Wake()
	}
}

// inForce does what is due once packets meet the ruling. It does not wait until older rules
// are removed: a foreign rule may keep them there for ever.
func (p *policing) inForce(report iptables.Report) {
	if report.Generation {
		text := "policies are in force"
		if p.monitor {
			text = "policies are watched: what they would refuse is counted and passes"
		}
		p.log.Info(text, "generation", p.ruling.Rules.Generation, "forks", report.Forks)
	}
	// This is also needed when only members were added: the former container with an address
	// may have left connections. And it is needed at the start: an earlier agent may have been
	// killed after it wrote the rules and before it cut connections.
	if report.Changed() || p.known == nil || p.gap {
		p.cutting.reason()
	}
	// Connections that began in a gap must end, even if another program closed the gap before
	// this write, so that there was nothing left to change.
	p.cutting.doubted, p.gap = p.cutting.doubted || p.gap, false
	p.known = p.ruling
	p.setBridges(false)
}

// anew makes everything be written again, after it was removed from the kernel.
func (p *policing) anew() {
	p.ruling, p.known, p.bridges.set = nil, nil, nil
	p.holds, p.late = false, false
}

func (p *policing) fail(err error) {
	if another(p.err, err) {
		p.news = true
		text := "policies cannot be put in force; what was before stays, trying again"
		if p.late {
			text = "policies are in force, and what was before them cannot all be taken away; trying again"
		}
		p.log.Error(text, "error", err)
	}
	p.err, p.dirty = err, true
	if p.check.Failed(); p.late { // until it succeeds, nothing else checks the kernel
		p.check.Hasten(minFailing, PoliceEvery)
	}
}

// setBridges makes bridges hand their frames to the rules where policies need that. With again
// it sets them even if they were set before. Rules come before bridges, so that the first
// frame already meets the rules.
func (p *policing) setBridges(again bool) {
	began, news := p.bridges.apply(p.ruling.Bridges, again)
	if began && p.known != nil {
		p.cutting.reason()
	}
	p.news = p.news || news
}

// another tells whether an error differs from the last one, or is over. It compares texts,
// because each try makes a new error value.
func another(was, is error) bool {
	return (was == nil) != (is == nil) || is != nil && is.Error() != was.Error()
}
