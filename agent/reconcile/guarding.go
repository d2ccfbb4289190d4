package reconcile

import (
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"netguard/agent/config"
	"netguard/agent/control"
	"netguard/agent/desired"
	"netguard/agent/link"
	"netguard/agent/pace"
	"netguard/internal/changed"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
)

const (
	// GuardEvery is how often the guard looks at what the kernel does not report.
	GuardEvery = 10 * time.Second
	// hintGather is how long the kernel's report about a known port waits for further reports.
	// The kernel reports netguard's own changes too.
	hintGather = 10 * time.Millisecond
	// maxDue is how many things that the kernel reported are noted, before the next look is at
	// all. No look takes them while Docker has not answered, or while the kernel cannot be
	// read. A thousand containers that come or go at once stay below it.
	maxDue = 4096
)

// guarding brings bridge ports, and the filter in front of them, to the wanted state. It is
// part of the loop's goroutine.
type guarding struct {
	log   *slog.Logger
	plane GuardPlane
	mode  guard.Mode
	now   func() time.Time

	wish  guard.Wish
	ports desired.Ports
	// known are the ports, and managed the bridges, at the last closeUnknown.
	known   []*link.Port
	managed desired.Bridges
	// others are the ports of bridges that are not managed. of is the site that they are from.
	others []int
	of     desired.Site
	// admission is AdmissionClosed or AdmissionOpen; "" before the first Apply.
	admission string
	report    guard.Report
	err       error
	look      guard.Look // what may have changed since the last Apply
	hints     pace.Pace  // for what the kernel reported
	round     pace.Pace  // for what the kernel does not report
	contest   contention
	// policed says that policies have isolated an endpoint since the start. It stays set, so
	// that the table is not rewritten for each container that comes and goes.
	policed bool
}

func newGuarding(log *slog.Logger, plane GuardPlane, mode guard.Mode, now func() time.Time) *guarding {
	return &guarding{log: log, plane: plane, mode: mode, now: now,
		hints: pace.Pace{Gather: hintGather, Clock: now},
		round: pace.Pace{Every: GuardEvery, MinRetry: minFailing, MaxRetry: maxFailing, Clock: now}}
}

// hear marks what the kernel reported for the next look.
func (g *guarding) hear(h link.Hint) {
	if h.Empty() {
		return
	}
	g.hints.Wake()
	if g.look.Full = g.look.Full || h.Full; g.look.Full {
		return
	}
	note(&g.look.Links, h.Links, func(index int) int { return index })
	note(&g.look.MACs, h.MACs, func(m link.MAC) guard.MAC { return guard.MAC(m) })
	note(&g.look.Neighbours, h.Neighbours, func(n link.Neighbour) guard.Neighbour { return guard.Neighbour{Bridge: n.Link, Addr: n.Addr} })
	if len(g.look.Links)+len(g.look.MACs)+len(g.look.Neighbours) > maxDue {
		g.look = guard.Look{Full: true, Unheard: g.look.Unheard}
	}
}

func note[From, To comparable](set *map[To]struct{}, from map[From]struct{}, as func(From) To) {
	if *set == nil && len(from) > 0 {
		*set = make(map[To]struct{}, len(from))
	}
	for key := range from {
		(*set)[as(key)] = struct{}{}
	}
}

// next is when the next check is due while the wanted state stays the same.
func (g *guarding) next() time.Time { return pace.Soonest(g.hints.Next(), g.round.Next()) }

// keep checks what is due, and puts back what other programs changed.
func (g *guarding) keep() {
	if g.hints.Due() || g.round.Due() {
		g.write(g.wish)
	}
}

// apply brings the kernel to the wanted ports. No label can give a port one of the taken
// addresses.
func (g *guarding) apply(here desired.Site, ports []*guard.Port, taken []netip.Addr) {
	if !netpolicy.Shared(g.of.Ports, here.Ports) || !g.of.Managed.Same(here.Managed) {
		g.of, g.others = here, here.Managed.Others(here.Ports)
	}
	g.write(guard.Wish{Ports: ports, Bridges: here.Managed.List(), Others: g.others, Taken: taken,
		Options: guard.Options{Mode: g.mode, Storm: here.Op.Storm, Open: here.Op.AdmissionOpen, Fragments: g.fragments(here.Op.Fragments),
			FragmentRate: here.Op.FragmentRate}})
}

func (g *guarding) write(w guard.Wish) {
	now := g.now()
	g.hints.Begin()
	if now.Before(g.contest.until()) && reflect.DeepEqual(w, g.wish) {
		g.round.Hold(g.contest.until())
		g.round.By(g.contest.until())
		return
	}
	g.look.Unheard = g.look.Unheard || g.round.Due()
	unheard := g.look.Unheard
	if unheard {
		g.round.Begin()
	}
	report, err := g.plane.Apply(w, g.look)
	g.wish = w
	if err != nil {
		if another(g.err, err) {
			g.log.Error("ports cannot be guarded; trying again", "error", err)
		}
		g.err, g.look = err, guard.Everything
		g.round.Failed()
		return
	}
	if len(report.Drift) == 0 {
		g.contest.calm(g.log, now)
	} else if !g.contest.drifted(g.log, "the guard", now, report.Drift, nil) {
		g.log.Warn("the guard was changed by somebody else; restored", "changes", strings.Join(report.Drift, "; "))
	}
	if unheard || g.err != nil {
		g.round.Done()
	}
	if g.contest.on() {
		g.round.Hold(g.contest.until())
		g.round.By(g.contest.next(now, now.Add(GuardEvery)))
	}
	g.report, g.err, g.look = report, nil, guard.Look{}
	g.admission = admission(w.Options)
}

// opened tells whether a port may send, by the last report.
func (g *guarding) opened(index int) bool {
	switch r := g.report.Ports[index]; r.State {
	case guard.Admitted, guard.Trusted:
		return true
	case guard.Pending:
		return r.Passes
	}
	return false
}

// anew makes everything be read and written again.
func (g *guarding) anew() {
	g.look = guard.Everything
	g.round.Now()
}

// fragments tells whether fragments that containers send are refused.
func (g *guarding) fragments(word config.Fragments) bool {
	if word == config.FragmentsAuto {
		return g.policed && !g.plane.Features().Checksum
	}
	return word == config.FragmentsRefuse
}

// keeping is what prevents the kernel from changing packets after they were judged.
func (g *guarding) keeping() string {
	switch {
	case g.plane.Features().Checksum:
		return control.ByProgram
	case g.wish.Fragments:
		return control.ByFragments
	}
	return control.ByNothing
}

// closeUnknown closes the unknown ports, and leaves all others as they are.
func (g *guarding) closeUnknown(here desired.Site) {
	if here.Op.AdmissionOpen || g.err != nil {
		g.known = nil
		return
	}
	_, came := changed.Between(g.known, here.Ports)
	if !g.managed.Same(here.Managed) {
		came = here.Ports
	}
	g.known, g.managed = here.Ports, here.Managed
	var unknown []*link.Port
	for _, p := range came {
		if !slices.ContainsFunc(g.wish.Ports, func(q *guard.Port) bool { return q.Index == p.Index }) {
			unknown = append(unknown, p)
		}
	}
	// At the first time there is no wish yet. Then nothing is closed: an earlier agent may
	// have admitted these ports.
	if g.wish.Ports != nil && len(unknown) > 0 {
		only := here
		only.Ports, only.Devices = unknown, nil
		if closed := desired.GuardPorts(nil, only, nil); len(closed) > 0 {
			g.apply(here, slices.Concat(g.wish.Ports, closed), g.wish.Taken)
		}
	}
}

// closeAll closes all ports of managed bridges while Docker does not say whose they are.
func (g *guarding) closeAll(here desired.Site) {
	if len(here.Managed) > 0 {
		g.apply(here, desired.GuardPorts(nil, here, nil), nil)
	}
}

// isolate keeps broadcasts from isolated ports at once, before the rules that isolate them are
// in force. It leaves all other ports as they are.
func (g *guarding) isolate(here desired.Site, closed map[int]bool) {
	lacks := func(p *guard.Port) bool { return closed[p.Index] && !p.Isolated }
	first := slices.IndexFunc(g.wish.Ports, lacks)
	if first < 0 || g.err != nil {
		return
	}
	wish := slices.Clone(g.wish.Ports)
	for i := first; i < len(wish); i++ {
		if lacks(wish[i]) {
			isolated := *wish[i]
			isolated.Isolated, wish[i] = true, &isolated
		}
	}
	g.apply(here, wish, g.wish.Taken)
}
