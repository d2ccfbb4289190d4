package refusals

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"netguard/agent/control"
	"netguard/agent/desired"
	"netguard/agent/events"
	"netguard/agent/reconcile"
	"netguard/netpolicy/guard"
)

const (
	// countEvery is how often the counters are read. With claimWait and some delay of the
	// agent, an alert follows within a second. A reading takes 8 ms if 1,000 ports sent every
	// kind of frame that they must not send, and almost nothing if no port did. Three times
	// countEvery is a little less than the time between two glances at the sets, and fifteen
	// times a little less than ten seconds. So the loop does all of these in the same turn.
	countEvery = 650 * time.Millisecond
	// alertEvery is how often there is a line about a port, at most.
	alertEvery = 10 * time.Second
	// claimWait is how long a first alert waits for the sample of a counted frame.
	claimWait = 100 * time.Millisecond
)

// claims are what refused frames said of their sender since the last take, the first of each
// port and kind. Any goroutine may add to them.
type claims struct {
	mu  sync.Mutex
	all map[claimKey]events.Claim
}

type claimKey struct {
	port int
	kind string
}

// maxClaims bounds how many claims wait for the next reading of the counters. The kernel names
// the ports and kinds, so no frame can invent more of them.
const maxClaims = 4096

func (c *claims) add(s events.Sample) {
	kind, ok := guard.SampleKind(s.Prefix)
	if !ok {
		return
	}
	key := claimKey{s.Port(), kind}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.all[key]; known || len(c.all) >= maxClaims {
		return
	}
	if c.all == nil {
		c.all = map[claimKey]events.Claim{}
	}
	c.all[key] = s.Claim(kind)
}

func (c *claims) take() map[claimKey]events.Claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all
	c.all = nil
	return all
}

// alerts reports which containers sent refused frames: a log line for people, an event for
// watchers. The counters decide which containers, and how many frames. If such a frame was
// seen, alerts adds what it claimed. alerts is part of the loop's goroutine.
type alerts struct {
	log    *slog.Logger
	hub    *events.Hub
	claims *claims
	// count reads the counters, by ifindex. samples says that the kernel hands over samples of
	// refused frames.
	count   func() (map[int]guard.Violations, error)
	samples bool
	monitor bool // the frames pass

	withheld withheld

	next  time.Time // the next look at the counters
	ports map[int]*alerting
	// base are the counts at the first reading: an earlier agent reported these.
	base map[int]guard.Violations
}

// alerting is what was published and logged about one port.
type alerting struct {
	told, logged guard.Violations // the counts then
	at           time.Time        // of the last line
	waited       bool
	// fresh is what frames claimed since the last event, first since the last line, by kind.
	fresh map[string]freshClaim
	first map[string]events.Claim
}

// freshClaim is a claim that no event has told.
type freshClaim struct {
	events.Claim
	taken bool // since the last look at its port
}

// Next is when the counters are looked at again.
func (a *alerts) Next() time.Time { return a.next }

// Look tells what was counted since the last look.
func (a *alerts) Look(now time.Time, s *reconcile.State) {
	a.pass(now, s.Want.Endpoints, func() []lasting { return lastingIn(s, now) })
}

// pass looks at the counters when it is time.
func (a *alerts) pass(now time.Time, endpoints []*desired.Endpoint, unadmitted func() []lasting) {
	if now.Before(a.next) {
		return
	}
	a.next = now.Add(countEvery)
	counts, err := a.count()
	if err != nil {
		a.log.Error("violations cannot be counted", "error", err)
		return
	}
	if a.base == nil {
		a.base = counts
	}
	// After the counters, so that samples have more time to come: the kernel counts a frame
	// first and hands over its sample then.
	taken := a.claims.take()
	if len(counts)+len(taken)+len(a.ports)+len(a.withheld.ports) == 0 {
		return // nobody was refused anything
	}
	claimed, here := map[int]bool{}, map[int]*alerting{}
	for key := range taken {
		claimed[key.port] = true
	}
	for _, d := range endpoints {
		if d.Port == nil {
			continue
		}
		index := d.Port.Index
		p := a.ports[index]
		if p == nil && counts[index] == (guard.Violations{}) && !claimed[index] {
			continue // it is as nearly all are
		}
		if p == nil {
			p = &alerting{told: a.base[index], logged: a.base[index], fresh: map[string]freshClaim{}, first: map[string]events.Claim{}}
		}
		here[index] = p
		for _, kind := range guard.Kinds {
			if c, ok := taken[claimKey{index, kind}]; ok {
				p.fresh[kind] = freshClaim{c, true}
				if _, known := p.first[kind]; !known {
					p.first[kind] = c
				}
			}
		}
		a.port(now, d, p, counts[index])
	}
	a.ports = here
	if len(counts)+len(a.withheld.ports) > 0 {
		a.withheld.pass(a, now, counts, unadmitted())
	}
}

// port tells what is new of one port.
func (a *alerts) port(now time.Time, d *desired.Endpoint, p *alerting, have guard.Violations) {
	p.restart(have)
	line := have.Total() > p.logged.Total() && now.Sub(p.at) >= alertEvery
	if line && a.samples && !p.waited && len(p.first) == 0 {
		p.waited = true
		a.next = now.Add(claimWait)
		return
	}
	for _, kind := range guard.Kinds {
		if n := have.Of(kind) - p.told.Of(kind); n > 0 {
			e := violation(now, d, kind, n, p.fresh[kind].Claim)
			if a.monitor {
				e.Mode = control.ModeMonitor
			}
			a.hub.Publish(e)
		}
	}
	// A frame that was counted after the reading may have been in this take of the claims. So a
	// claim without a count waits for one more look.
	for kind, c := range p.fresh {
		if !c.taken || have.Of(kind) > p.told.Of(kind) {
			delete(p.fresh, kind)
			continue
		}
		c.taken = false
		p.fresh[kind] = c
	}
	p.told = have
	if line {
		a.line(d, p, have)
		p.logged, p.at, p.waited = have, now, false
		clear(p.first)
		for kind, c := range p.fresh {
			p.first[kind] = c.Claim
		}
	}
}

// restart forgets what was told and logged of counters that began anew. It compares each kind: the
// new sum may be greater than at the last line. The counters of connections are in a table of their
// own.
func (p *alerting) restart(have guard.Violations) {
	if have.Connections < p.told.Connections {
		p.told.Connections, p.logged.Connections = 0, 0
	}
	if slices.ContainsFunc(guard.Kinds, func(kind string) bool { return have.Of(kind) < p.told.Of(kind) }) {
		p.told = guard.Violations{Connections: p.told.Connections}
		p.logged = guard.Violations{Connections: p.logged.Connections}
	}
}

// line logs what is new since the line before.
func (a *alerts) line(d *desired.Endpoint, p *alerting, have guard.Violations) {
	since := func(kind string) uint64 { return have.Of(kind) - p.logged.Of(kind) }
	kinds := slices.DeleteFunc(slices.Clone(guard.Kinds), func(kind string) bool { return since(kind) == 0 })
	slices.SortStableFunc(kinds, func(x, y string) int { return cmp.Compare(since(y), since(x)) })
	attrs := []any{"container", d.Container.Name, "network", d.Network.Name, "veth", d.Port.Name, "kind", strings.Join(kinds, ",")}
	for _, kind := range kinds { // one of the most frequent kind that was seen
		c, ok := p.first[kind]
		if !ok {
			continue
		}
		mac, ip := c.Texts()
		for _, said := range [][2]string{{"claimed_ip", ip}, {"claimed_mac", mac}, {"what", c.What}} {
			if said[1] != "" {
				attrs = append(attrs, said[0], said[1])
			}
		}
		break
	}
	for _, kind := range guard.Kinds {
		attrs = append(attrs, kind, since(kind))
	}
	if a.monitor {
		attrs = append(attrs, "mode", control.ModeMonitor)
	}
	a.log.Warn("container sent what it must not", attrs...)
}

func violation(now time.Time, d *desired.Endpoint, kind string, n uint64, c events.Claim) control.Event {
	e := control.Event{Time: now.UTC(), Type: control.EventViolation, Count: n, Kind: kind, What: c.What, Veth: d.Port.Name}
	e.ClaimedMAC, e.ClaimedIP = c.Texts()
	about(&e, d)
	return e
}

// about says whom an event is about.
func about(e *control.Event, d *desired.Endpoint) {
	e.Container, e.ID, e.Network = d.Container.Name, d.Container.ID, d.Network.Name
	for _, s := range d.Sharers {
		e.SharedBy = append(e.SharedBy, s.Name)
	}
}
