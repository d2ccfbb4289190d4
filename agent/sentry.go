package agent

import (
	"cmp"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"netguard/agent/config"
	"netguard/agent/control"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy/guard"
)

// guardEvery is how often the guard looks at what the kernel tells nobody of.
const guardEvery = 10 * time.Second

// sentry brings bridge ports, and the filter in front of them, to what endpoints
// are. It is part of the loop's goroutine.
type sentry struct {
	log    *slog.Logger
	driver *guard.Driver
	mode   guard.Mode

	wish guard.Wish
	// admission is what holds of it, "" before the first time.
	admission string
	report    guard.Report
	err       error
	look      guard.Look
	at        time.Time // the next look at what nobody told of
	wait      time.Duration
	fight     fight
	// policed says that policies have been about a container. It stays so: rules are
	// not written anew for each that comes and goes.
	policed bool
}

// leftBy gives one thing of what an earlier agent left.
func leftBy[T any](driver *guard.Driver, what func(guard.Earlier) T) func() (T, error) {
	return func() (T, error) {
		e, err := driver.Earlier()
		return what(e), err
	}
}

// hear has looked at what a hint names.
func (s *sentry) hear(h link.Hint) {
	for index := range h.Links {
		if s.look.Links == nil {
			s.look.Links = map[int]struct{}{}
		}
		s.look.Links[index] = struct{}{}
	}
	for mac := range h.MACs {
		if s.look.MACs == nil {
			s.look.MACs = map[guard.MAC]struct{}{}
		}
		s.look.MACs[guard.MAC(mac)] = struct{}{}
	}
	for n := range h.Neighbours {
		if s.look.Neighbours == nil {
			s.look.Neighbours = map[guard.Neighbour]struct{}{}
		}
		s.look.Neighbours[guard.Neighbour{Bridge: n.Link, Addr: n.Addr}] = struct{}{}
	}
	s.look.Full = s.look.Full || h.Full
}

// site is what there is to guard, and how: all ports, the bridges of the networks
// that netguard manages, and the operator's word.
type site struct {
	ports   []link.Port
	managed bridges
	op      config.Config
	devices []link.Device
	own     map[string]ownPorts
	watches bool // what is refused is to be let pass
}

// port is a port as nothing is known of it, quarantined, if its bridge is managed.
func (s site) port(p link.Port) (guard.Port, bool) {
	bridge, ok := s.managed[p.MasterName]
	g := guard.Port{Index: p.Index, Name: p.Name, Bridge: bridge.Index, BridgeName: p.MasterName, Guarded: true}
	if s.isOwn(p) {
		g.Guarded, g.Admitted = false, true
	}
	return g, ok
}

// watch gives the ports of the managed bridges: those that desires know, as they
// are declared and admitted where ask says so, and all others quarantined.
func watch(desires []*desire, here site, ask func(*desire) verdict) []guard.Port {
	byPort := make(map[int]*desire, len(desires))
	for i := range desires {
		if d := desires[i]; d.Port != nil {
			byPort[d.Port.Index] = d
		}
	}
	out := append(make([]guard.Port, 0, len(here.ports)), here.trusted()...)
	for _, p := range here.ports {
		g, ok := here.port(p)
		if !ok {
			continue
		}
		d := byPort[p.Index]
		if d != nil {
			if mac, err := guard.MACOf(d.Attachment.MAC); err == nil {
				g.MAC, g.IPv4, g.IPv6 = mac, d.Attachment.IPv4, d.Attachment.IPv6
			}
		}
		switch {
		case d == nil && here.op.AdmissionOpen && g.Guarded:
			continue
		case d != nil && d.Unmanaged != "":
			g.Guarded, g.Admitted = false, true
		case d != nil && here.op.Unguarded.Match(d.Network.Name):
			// Nobody guards it; it is quarantined as any other.
			if here.op.AdmissionOpen || ask(d) == admit {
				g.Guarded, g.Admitted = false, true
			}
		case d != nil && g.MAC != (guard.MAC{}): // without one that Docker gave it stays quarantined
			g.Gateways, g.Allow = d.Network.Gateways, d.allow
			g.Connections, g.Container, g.Answers = d.connections, d.Container.Name, d.answers
			g.DHCPServer, g.LinkLocals = d.dhcpServer, d.locals
			answer := ask(d)
			g.Admitted, g.Standing = here.op.AdmissionOpen || answer == admit, answer == leave
		}
		out = append(out, g)
	}
	return out
}

// elsewhere are the addresses of containers on networks that are not managed, so
// that no label takes them.
func elsewhere(desires []*desire) []netip.Addr {
	var out []netip.Addr
	for i := range desires {
		if d := desires[i]; d.Unmanaged != "" {
			for _, a := range []netip.Addr{d.Attachment.IPv4, d.Attachment.IPv6} {
				if a.IsValid() {
					out = append(out, a)
				}
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// bridges are those of the networks that netguard manages, by name.
type bridges map[string]guard.Bridge

func managedBridges(v docker.View, there map[string]int, op endpoint.Operator) bridges {
	out := bridges{}
	for _, n := range v.Networks {
		if index, ok := there[n.Bridge]; ok && op.Manages(n) {
			out[n.Bridge] = guard.Bridge{Index: index, Name: n.Bridge, Subnets: n.Subnets}
		}
	}
	return out
}

// others gives the ports of all other bridges.
func (b bridges) others(ports []link.Port) []int {
	var out []int
	for _, p := range ports {
		if _, ok := b[p.MasterName]; !ok {
			out = append(out, p.Index)
		}
	}
	return out
}

func (b bridges) list() []guard.Bridge {
	return slices.SortedFunc(maps.Values(b), func(a, b guard.Bridge) int { return cmp.Compare(a.Index, b.Index) })
}

// apply brings the kernel to what is wished of ports. The addresses are taken: no label
// gives them to anybody.
func (s *sentry) apply(here site, ports []guard.Port, taken []netip.Addr) {
	now := time.Now()
	w := guard.Wish{Ports: ports, Bridges: here.managed.list(), Others: here.managed.others(here.ports), Taken: taken,
		Options: guard.Options{Mode: s.mode, Storm: here.op.Storm, Open: here.op.AdmissionOpen, Fragments: s.fragments(here.op.Fragments),
			FragmentRate: here.op.FragmentRate}}
	if now.Before(s.fight.until()) && reflect.DeepEqual(w, s.wish) {
		s.at = s.fight.next(now, s.at)
		return
	}
	if !now.Before(s.at) {
		s.look.Unheard = true
		s.at = now.Add(guardEvery)
	}
	report, err := s.driver.Apply(w, s.look)
	s.wish = w
	if err != nil {
		if another(s.err, err) {
			s.log.Error("ports cannot be guarded; trying again", "error", err)
		}
		s.err, s.look = err, guard.Everything
		s.wait = min(max(2*s.wait, minFailing), maxFailing)
		s.at = now.Add(s.wait)
		return
	}
	if len(report.Drift) == 0 {
		s.fight.calm(s.log, now)
	} else if !s.fight.drifted(s.log, "the guard", now, report.Drift, nil) {
		s.log.Warn("the guard was changed by somebody else; restored", "changes", strings.Join(report.Drift, "; "))
	}
	s.at = s.fight.next(now, s.at)
	s.report, s.err, s.look, s.wait = report, nil, guard.Look{}, 0
	s.admission = admission(w.Options)
}

// fragments tells whether those that containers send are refused.
func (s *sentry) fragments(word config.Fragments) bool {
	if word == config.FragmentsAuto {
		return s.policed && !s.driver.Features().Checksum
	}
	return word == config.FragmentsRefuse
}

// keeping is what keeps the kernel from writing into packets after they were judged.
func (s *sentry) keeping() string {
	switch {
	case s.driver.Features().Checksum:
		return control.ByProgram
	case s.wish.Fragments:
		return control.ByFragments
	}
	return control.ByNothing
}

// quarantine closes ports that nobody knows yet, and leaves all others as they are.
func (s *sentry) quarantine(here site) {
	if here.op.AdmissionOpen || s.err != nil {
		return
	}
	known := make(map[int]struct{}, len(s.wish.Ports))
	for _, p := range s.wish.Ports {
		known[p.Index] = struct{}{}
	}
	wish := slices.Clone(s.wish.Ports)
	for _, p := range here.ports {
		g, ok := here.port(p)
		if _, is := known[p.Index]; ok && !is {
			wish = append(wish, g)
		}
	}
	// The first time there is no wish yet, and what an earlier agent admitted
	// must not be closed.
	if s.wish.Ports != nil && len(wish) > len(s.wish.Ports) {
		s.apply(here, wish, s.wish.Taken)
	}
}

// hold closes all ports of bridges of before, while nobody can say whose they are.
func (s *sentry) hold(here site) {
	if len(here.managed) == 0 {
		return
	}
	wish := slices.Concat([]guard.Port{}, here.trusted())
	for _, p := range here.ports {
		if g, ok := here.port(p); ok {
			wish = append(wish, g)
		}
	}
	s.apply(here, wish, nil)
}
