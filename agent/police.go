package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

const (
	// policeEvery is how often the rules are compared with the kernel. Nothing
	// tells of a change of iptables' legacy backend or of ipset.
	policeEvery = 10 * time.Second
	// glanceEvery is how often what is cheap to see of it is looked at.
	glanceEvery = 2 * time.Second
	// maxOvertaken is how often somebody else may write rules in the same moment
	// before that is an error.
	maxOvertaken = 3
	// policeTimeout bounds one round of forks.
	policeTimeout = 30 * time.Second
	// cutSoon gathers changes of one moment before connections are gone over.
	cutSoon = 50 * time.Millisecond
)

// ruling is what policies come to, for some endpoints. It does not change.
type ruling struct {
	catalog   *netpolicy.Catalog
	byBridge  bool
	builtIn   []netpolicy.Policy // beside the catalog's
	endpoints []netpolicy.Endpoint
	rules     *netpolicy.RuleSet
	// states is what holds an endpoint.
	states map[endpoint.Key]netpolicy.State
	// within are the endpoints whose traffic within their network policies may
	// decide about, bridges those that have one.
	within  map[endpoint.Key]bool
	bridges map[string]bool
	// held are those that containers have.
	held map[netpolicy.Holding]bool
	// named are the extra addresses that the rules know.
	named map[endpoint.Key][]netip.Prefix
	// widened are the addresses by which a label would open something.
	widened map[endpoint.Key][]netip.Addr
	// places is where the endpoints are, homes where their addresses.
	places []place
	homes  []iptables.Home
}

// place is what policies need not know of an endpoint, and bridges are chosen by.
type place struct {
	endpoint.Key
	bridge string
}

func places(desires []*desire) []place {
	out := make([]place, len(desires))
	for i := range desires {
		out[i] = place{desires[i].Key, desires[i].Network.Bridge}
	}
	return out
}

func (r *ruling) wish() iptables.Wish {
	w := iptables.Wish{Rules: r.rules, Containers: addresses(r.endpoints), Homes: r.homes}
	for _, e := range r.endpoints {
		w.Away = append(w.Away, e.Away...)
	}
	return w
}

// rule compiles. Where the operator lets labels name addresses of other networks, a
// container is told by its bridge as well. It is pure.
func rule(compiler *netpolicy.Compiler, catalog *netpolicy.Catalog, desires []*desire, ps []netpolicy.Endpoint, byBridge bool, held map[netpolicy.Holding]bool, builtIn ...netpolicy.Policy) *ruling {
	r := &ruling{catalog: catalog, builtIn: builtIn, endpoints: ps, byBridge: byBridge, places: places(desires), homes: homes(desires), states: map[endpoint.Key]netpolicy.State{},
		within: map[endpoint.Key]bool{}, bridges: map[string]bool{}, widened: map[endpoint.Key][]netip.Addr{}, named: map[endpoint.Key][]netip.Prefix{}}
	r.rules = compiler.Compile(netpolicy.World{Endpoints: ps, Policies: append(slices.Clip(catalog.Policies()), builtIn...), Broken: catalog.Broken(), Places: byBridge, Held: held})
	r.held = r.rules.Held(ps)
	within, widened := r.rules.Within(ps), r.rules.Widened(ps)
	for i, s := range r.rules.States {
		e := desires[i]
		r.states[e.Key], r.named[e.Key] = s, e.allow.Prefixes
		if len(widened[i]) > 0 {
			r.widened[e.Key] = widened[i]
		}
		if within[i] && e.Unmanaged == "" && e.Network.Bridge != "" {
			r.within[e.Key], r.bridges[e.Network.Bridge] = true, true
		}
	}
	r.everywhere(desires)
	return r
}

// police brings iptables to the policies. It is part of the loop's goroutine.
type police struct {
	log    *slog.Logger
	driver *iptables.Driver
	links  *link.Table
	route  func(netip.Addr) (link.Route, error)
	// monitor: what is refused is counted and passes.
	monitor bool

	compiler netpolicy.Compiler
	ruling   *ruling // the last that was compiled
	// compiled are the desires that it was compiled for, or would have been.
	compiled []*desire
	known    *ruling // the last that packets met
	held     map[netpolicy.Holding]bool
	// swarm is what swarmPort says, ruled what it said when the ruling was compiled.
	swarm, ruled uint16
	dirty        bool // it is not in the kernel, or not all of what was before is gone
	// holds says that it is what packets meet; ever that one was, since the start.
	holds, ever bool
	err         error // why not
	// late: err is about what was before and cannot be taken away.
	late bool
	// bridgesErr says why policies do not count within bridges.
	bridgesErr error
	// again is when bridges are tried again while bridgesErr is not nil, and pause how
	// long after the last time.
	again time.Time
	pause time.Duration

	news    bool            // one of the errors became another
	bridges map[string]bool // as they were set last
	wait    time.Duration   // before the next try
	at      time.Time       // the next look at the kernel
	cut     time.Time       // connections are to be gone over; zero if not
	doubted bool            // all of them: rules may have been away for a moment
	glance  time.Time       // the next one

	by        []string // who changed the rules, since they were looked at
	doubt     bool     // the next look is because of somebody else's doing
	unsure    bool     // a bridge may have been changed
	overtaken int      // how often in a row
	displaced bool     // the last Verify found no more than what Docker does
	begun     bool     // they were, or are going to be, since the start

	// networks are those that there are, checked those that there were at the last
	// look at the rules.
	networks, checked, led led

	rules, switches fight // about iptables and sets, about what bridges hand over
}

// compile rules on the endpoints that there are now.
func (p *police) compile(catalog *netpolicy.Catalog, desires []*desire, byBridge bool) {
	if slices.Equal(p.compiled, desires) && p.ruling != nil && p.ruling.catalog == catalog && p.ruling.byBridge == byBridge && p.ruled == p.swarm {
		return
	}
	var ps []netpolicy.Endpoint
	if p.ruling != nil {
		ps = partiesSince(desires, p.compiled, p.ruling.endpoints)
	} else {
		ps = parties(desires)
	}
	p.compiled = desires
	if p.ruling == nil || p.ruling.catalog != catalog || p.ruling.byBridge != byBridge || p.ruled != p.swarm || !reflect.DeepEqual(p.ruling.endpoints, ps) ||
		!slices.Equal(p.ruling.places, places(desires)) {
		p.ruling, p.dirty, p.holds = rule(&p.compiler, catalog, desires, ps, byBridge, p.held, builtIn(p.swarm)...), true, false
		p.held = p.ruling.held
		p.ruled = p.swarm
		p.wait = 0
	}
}

// pass brings the kernel to the ruling.
func (p *police) pass(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, policeTimeout)
	defer cancel()
	if p.dirty && (p.wait == 0 || !time.Now().Before(p.at)) {
		p.apply(ctx)
	}
	now := time.Now()
	if p.unsure && !p.dirty && !now.Before(p.switches.until()) || p.bridgesErr != nil && p.holds && !now.Before(p.again) {
		p.bridges = nil
		p.setBridges()
	}
}

// after is what takes long and what no container waits for: it looks at the kernel,
// and goes over connections. It tells whether there is something to be done, or told,
// at once.
func (p *police) after(ctx context.Context, left *handover) bool {
	now := time.Now()
	ctx, cancel := context.WithTimeout(ctx, policeTimeout)
	defer cancel()
	p.news = false
	if !p.dirty && !now.Before(p.glance) {
		p.look(now)
	}
	if !p.dirty && !now.Before(p.at) {
		p.verify(ctx)
	}
	if !p.cut.IsZero() && !time.Now().Before(p.cut) {
		p.cut = time.Time{}
		p.handOver(ctx, left, true)
		p.cutConnections(ctx)
	}
	return p.dirty && p.wait == 0 || p.news
}

// soon has the kernel looked at, because of what somebody did, if it is known who.
func (p *police) soon(by []string) {
	p.by = append(p.by, by...)
	p.doubt = true
	at := time.Now().Add(verifySoon)
	if until := p.rules.until(); until.After(at) {
		at = until
	}
	if p.late { // each time it is tried again
		at = time.Now().Add(minFailing)
	}
	if p.at.After(at) && (p.err == nil || p.late) {
		p.at = at
	}
}

// touched has a bridge looked at, if policies count within it.
func (p *police) touched(bridge string) {
	p.unsure = p.unsure || p.bridges[bridge]
}

// look finds what is cheap to find of what nothing tells of.
func (p *police) look(now time.Time) {
	p.glance = now.Add(glanceEvery)
	if now.Before(p.rules.until()) {
		return
	}
	changed, err := p.driver.Glance()
	if changed || err != nil { // an error is Verify's to tell
		p.at = now
	}
}

// next is when pass has to be called again.
func (p *police) next() time.Time {
	next := p.at
	if !p.cut.IsZero() && p.cut.Before(next) {
		next = p.cut
	}
	if !p.dirty && p.glance.Before(next) {
		next = p.glance
	}
	if until := p.switches.until(); p.unsure && !p.dirty && until.Before(next) {
		next = until
	}
	if p.bridgesErr != nil && p.holds && p.again.Before(next) {
		next = p.again
	}
	return next
}

func (p *police) verify(ctx context.Context) {
	found, err := p.driver.Verify(ctx)
	drift := found.Changes
	p.at, p.glance = time.Now().Add(policeEvery), time.Now().Add(glanceEvery)
	if err != nil {
		p.late = false
		p.fail(err)
		return
	}
	p.displaced = found.Displaced
	if p.checked = p.networks; len(drift) == 0 {
		p.lead(p.checked)
	}
	now := time.Now()
	switch {
	case len(drift) > 0 && found.Displaced:
		p.log.Info("others wrote rules before netguard's, as Docker does for each network; putting netguard's first", "changes", drift, "by", names(p.by))
	case len(drift) > 0:
		if !p.rules.drifted(p.log, "the rules of policies", now, drift, p.by) {
			p.log.Warn("rules were changed by somebody else; restoring them", "changes", drift, "by", names(p.by))
		}
	case p.doubt && found.Rewritten:
		// For a moment they may have been away: what began then ends.
		if p.doubted = true; p.cut.IsZero() {
			p.cut = now.Add(cutSoon)
		}
	}
	if len(drift) > 0 {
		p.dirty, p.wait, p.doubted = true, 0, true
	} else {
		p.rules.calm(p.log, now)
	}
	p.by, p.doubt = nil, false
	if !now.Before(p.switches.until()) {
		p.bridges = nil // look at them again
		p.setBridges()
	}
	p.at = p.switches.next(now, p.rules.next(now, p.at))
}

func (p *police) apply(ctx context.Context) {
	displaced := p.displaced
	p.displaced = false
	report, err := p.driver.Apply(ctx, p.ruling.wish())
	if errors.Is(err, iptables.ErrOvertaken) && p.overtaken < maxOvertaken {
		p.log.Info("others write rules at this moment; looking again", "error", err)
		p.overtaken++
		p.wait, p.at = verifySoon, time.Now().Add(verifySoon)
		return
	}
	p.overtaken, p.holds, p.ever = 0, report.InForce, p.ever || report.InForce
	if displaced && len(report.Drift) > 0 { // since Verify, which saw Docker's doing
		p.log.Warn("rules were changed by somebody else; restored", "changes", report.Drift)
	}
	p.late = err != nil && report.InForce
	if report.InForce {
		if report.Looked {
			p.checked = p.networks
		}
		p.lead(p.checked)
		p.inForce(report)
	}
	if err != nil {
		p.fail(err)
		return
	}
	p.applied(time.Now())
}

// applied has the next look at the kernel when it is due: soon, if somebody gave reason
// for it meanwhile, for Apply does not look where it only changes members.
func (p *police) applied(now time.Time) {
	p.dirty, p.err, p.wait = false, nil, 0
	p.at, p.glance = now.Add(policeEvery), now.Add(glanceEvery)
	if p.doubt {
		p.at = now.Add(verifySoon)
	}
	p.at = p.rules.next(now, p.at)
}

// inForce does what is due when the ruling is what packets meet, whether or not what
// was before could be taken away: somebody else's rule may keep that for good.
func (p *police) inForce(report iptables.Report) {
	if report.Generation {
		text := "policies are in force"
		if p.monitor {
			text = "policies are watched: what they would refuse is counted and passes"
		}
		p.log.Info(text, "generation", p.ruling.rules.Generation, "forks", report.Forks)
	}
	p.known = p.ruling
	p.setBridges()
	// Also when only members were added: an address may be new to a container
	// whose predecessor left connections. And at the start: an earlier agent may have
	// been killed between the rules and the connections.
	if (report.Changed() || !p.begun) && p.cut.IsZero() {
		p.cut = time.Now().Add(cutSoon)
	}
	p.begun = true
}

// anew has it all written again, after it was taken out of the kernel.
func (p *police) anew() {
	p.ruling, p.known, p.bridges = nil, nil, nil
	p.holds, p.late, p.begun = false, false, false
}

func (p *police) fail(err error) {
	if another(p.err, err) {
		p.news = true
		text := "policies cannot be put in force; what was before stays, trying again"
		if p.late {
			text = "policies are in force, and what was before them cannot all be taken away; trying again"
		}
		p.log.Error(text, "error", err)
	}
	p.err, p.dirty = err, true
	p.wait = min(max(2*p.wait, minFailing), maxFailing)
	if p.late { // it is the only look at the kernel meanwhile
		p.wait = min(p.wait, policeEvery)
	}
	p.at = time.Now().Add(p.wait)
}

// setBridges has the bridges hand over what policies are about. First the rules,
// then the bridges: what is handed over meets the rules at once.
func (p *police) setBridges() {
	p.unsure = false
	if p.bridges != nil && maps.Equal(p.bridges, p.ruling.bridges) {
		return
	}
	off, err := p.driver.Bridges(p.ruling.bridges)
	now := time.Now()
	if len(off) == 0 {
		p.switches.calm(p.log, now)
	} else if !p.switches.drifted(p.log, "what bridges hand to iptables", now, off, nil) {
		p.log.Warn("bridges were changed by somebody else to hand nothing to iptables; restored", "bridges", off)
	}
	if another(p.bridgesErr, err) {
		if p.news = true; err != nil {
			p.log.Error("policies do not count within bridges", "error", err)
		}
	}
	if p.bridgesErr = err; err == nil {
		p.bridges, p.pause = p.ruling.bridges, 0
		return
	}
	p.pause = min(max(2*p.pause, verifySoon), policeEvery)
	p.again = now.Add(p.pause)
}

// another tells whether what is wrong is another thing than before, or nothing any
// more: each try makes an error of its own.
func another(was, is error) bool {
	return (was == nil) != (is == nil) || is != nil && is.Error() != was.Error()
}

// cutConnections ends the connections that policies do not allow (any more).
func (p *police) cutConnections(ctx context.Context) {
	local, err := p.links.Addresses()
	if err == nil {
		// Most often there is none to judge.
		judges := sync.OnceValues(func() (*netpolicy.Judge, *whereabouts) {
			return netpolicy.NewJudge(p.ruling.rules), p.ruling.whereabouts(p.links.Bridges(), p.route)
		})
		var report iptables.CutReport
		report, err = p.driver.Cut(ctx, p.doubted, func(f iptables.Flow) bool {
			judge, where := judges()
			packet := packet(f, local)
			packet.From, packet.To = where.of(f)
			return judge.Walk(packet).Allowed
		})
		if report.Cut > 0 {
			p.log.Info("connections that policies do not allow were cut", "connections", report.Cut)
		}
	}
	if err != nil {
		p.log.Error("connections cannot be gone over; trying again", "error", err)
		p.cut = time.Now().Add(minFailing)
		return
	}
	p.doubted = false
}

// packet is the first packet of a connection, where it met the rules.
func packet(f iptables.Flow, local map[netip.Addr]bool) netpolicy.Packet {
	p := netpolicy.Packet{Path: netpolicy.Forward, Src: f.Src.Addr(), Dst: f.Dst.Addr(), Proto: f.Proto, Port: f.Dst.Port(), ICMPType: int16(f.ICMPType)}
	switch {
	case isHost(f.Src.Addr(), local):
		p.Path = netpolicy.Output
	case isHost(f.Dst.Addr(), local):
		p.Path = netpolicy.Input
	}
	return p
}

// isHost tells whether an address is the host's: one of its devices', or any of loopback.
func isHost(a netip.Addr, local map[netip.Addr]bool) bool { return local[a] || a.IsLoopback() }
