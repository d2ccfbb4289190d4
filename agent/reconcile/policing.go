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
	// PoliceEvery is how often the rules are compared with the kernel. Nothing
	// tells of a change of iptables' legacy backend or of ipset.
	PoliceEvery = 10 * time.Second
	// glanceEvery is how often what is cheap to see of it is looked at.
	glanceEvery = 2 * time.Second
	// maxOvertaken is how often somebody else may write rules in the same moment
	// before that is an error.
	maxOvertaken = 3
	// policeTimeout bounds one round of forks.
	policeTimeout = 30 * time.Second
)

// policing brings the rules to what policies come to, and keeps them so. It is part of the
// loop's goroutine.
type policing struct {
	log   *slog.Logger
	plane PolicyPlane
	now   func() time.Time
	// monitor: what is refused is counted and passes.
	monitor bool

	ruling *desired.Ruling // that is wanted
	known  *desired.Ruling // the last that packets met
	dirty  bool            // ruling is not in the kernel, or not all of what was before is gone
	// holds says that ruling is what packets meet; ever that one was, since the start.
	holds, ever bool
	err         error // why not
	// late: err is about what was before and cannot be taken away.
	late bool
	news bool // something became another that somebody may wait for

	check     pace.Pace // writes the ruling while dirty, and else compares the kernel with it
	glance    pace.Pace // at what is cheap to see
	overtaken int       // how often in a row somebody else wrote rules in the same moment
	displaced bool      // the last look found no more than what Docker does
	by        []string  // who changed the rules, since they were looked at
	doubt     bool      // the next look is because of somebody else's doing
	contest   contention

	// networks are those that there are; checked are those that there were at the last look
	// at the rules; covered are those whose packets meet netguard's rules first.
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

// want sets the ruling that is to be written. A new one is tried at once, whatever failed
// before.
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

// keep looks at the kernel, and has list begin with connections, which no container waits for. It
// tells whether a pass has to follow at once.
func (p *policing) keep(ctx context.Context, list func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, policeTimeout)
	defer cancel()
	if p.bridges.due(p.dirty, p.holds) {
		p.setBridges(true)
	}
	if !p.dirty && p.glance.Due() {
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
	if !p.dirty {
		next = pace.Soonest(next, p.glance.Next())
	}
	return next
}

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
	if displaced && len(report.Drift) > 0 { // since the last look, which saw Docker's doing
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

// rest has the next look at the kernel when it is due: soon, if somebody gave reason for it
// meanwhile, for Apply does not look where it only changes members.
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

// inForce does what is due when the ruling is what packets meet, whether or not what
// was before could be taken away: somebody else's rule may keep that for good.
func (p *policing) inForce(report iptables.Report) {
	if report.Generation {
		text := "policies are in force"
		if p.monitor {
			text = "policies are watched: what they would refuse is counted and passes"
		}
		p.log.Info(text, "generation", p.ruling.Rules.Generation, "forks", report.Forks)
	}
	// Also when only members were added: an address may be new to a container
	// whose predecessor left connections. And at the start: an earlier agent may have
	// been killed between the rules and the connections.
	if report.Changed() || p.known == nil {
		p.cutting.reason()
	}
	p.known = p.ruling
	p.setBridges(false)
}

// anew has it all written again, after it was taken out of the kernel.
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
	if p.check.Failed(); p.late { // it is the only look at the kernel meanwhile
		p.check.Hasten(minFailing, PoliceEvery)
	}
}

// setBridges has the bridges hand over what policies are about, though they were set
// before where again says so. First the rules, then the bridges: what is handed over meets
// the rules at once.
func (p *policing) setBridges(again bool) {
	began, news := p.bridges.apply(p.ruling.Bridges, again)
	if began && p.known != nil {
		p.cutting.reason()
	}
	p.news = p.news || news
}

// another tells whether what is wrong is another thing than before, or nothing any
// more: each try makes an error of its own.
func another(was, is error) bool {
	return (was == nil) != (is == nil) || is != nil && is.Error() != was.Error()
}
