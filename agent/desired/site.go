package desired

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/internal/changed"
	"netguard/netpolicy/guard"
)

// Verdict is the agent's decision on an endpoint's port.
type Verdict int

const (
	Refuse Verdict = iota
	// Leave keeps it as it is in the kernel: an earlier agent may have admitted it.
	Leave
	Admit
	// Stay is the verdict on an endpoint that is admitted already. Until the endpoint changes,
	// nobody asks about it again, unless Judge.Again is set.
	Stay
)

// Site is what to guard, and how: all ports, the bridges of the networks that netguard
// manages, and the configuration.
type Site struct {
	link.View
	Managed Bridges
	Op      *config.Config
	Own     map[string]ownPorts
	watches bool // what is refused is to be let pass
}

// GuardPorts gives the ports of the managed bridges. A port of an endpoint is as declared, and
// admitted if ask says so. All others are quarantined.
func GuardPorts(endpoints []*Endpoint, here Site, ask func(*Endpoint) Verdict) []*guard.Port {
	return new(Ports).Of(endpoints, here, Judge{Ask: ask})
}

// Judge decides about ports.
type Judge struct {
	// Ask gives the verdict on an endpoint; with Again, also on one that got Stay before.
	Ask   func(*Endpoint) Verdict
	Again bool
	// Closed are the ports, by ifindex, that get no broadcasts. With Keep, ports that got no
	// broadcasts until now get none either.
	Closed map[int]bool
	Keep   bool
}

// Ports keeps the ports that it gave. A port that did not change keeps its pointer. The zero
// value is ready.
type Ports struct {
	endpoints []*Endpoint
	owners    map[int]*Endpoint // by ifindex
	links     []*link.Port
	here      map[int]*link.Port // these, by ifindex
	// due are the ports, by ifindex, to decide about again: their endpoint changed, or its
	// verdict may change.
	due     map[int]struct{}
	from    []portSource // the oldest port first
	out     []*guard.Port
	trusted []*guard.Port // the first of out, which are no veths
	judge   Judge         // of the last time
	managed Bridges
	hosts   map[string]ownPorts
	op      *config.Config
}

// portSource is what a guard.Port was made from.
type portSource struct {
	port     *link.Port
	endpoint *Endpoint
	verdict  Verdict
	own      bool
	isolated bool
}

// Of gives the ports of the managed bridges, like GuardPorts. It only looks at ports that may
// have changed. Nobody may change the result.
func (c *Ports) Of(endpoints []*Endpoint, here Site, j Judge) []*guard.Port {
	c.own(endpoints)
	anew := c.op != here.Op || !c.managed.Same(here.Managed)
	todo := c.todo(here, j, anew || j.Again || c.judge.Keep || !maps.EqualFunc(c.hosts, here.Own, func(a, b ownPorts) bool { return slices.Equal(a.all, b.all) }))
	trusted := here.trusted()
	if slices.EqualFunc(trusted, c.trusted, func(a, b *guard.Port) bool { return a.Index == b.Index && a.Name == b.Name && a.Bridge == b.Bridge }) {
		trusted = c.trusted
	}
	ports := slices.Clone(c.out[len(c.trusted):])
	for _, seen := range slices.Sorted(maps.Keys(todo)) {
		at, there := slices.BinarySearchFunc(c.from, seen, func(s portSource, seen uint64) int { return cmp.Compare(s.port.Seen, seen) })
		s, is := c.source(todo[seen], here, j, there && c.from[at].isolated)
		switch {
		case is && there && !anew && s == c.from[at]:
		case is && there:
			c.from[at], ports[at] = s, here.guarded(s)
		case is:
			c.from, ports = slices.Insert(c.from, at, s), slices.Insert(ports, at, here.guarded(s))
		case there:
			c.from, ports = slices.Delete(c.from, at, at+1), slices.Delete(ports, at, at+1)
		}
	}
	c.trusted, c.judge, c.managed, c.hosts, c.op = trusted, j, here.Managed, here.Own, here.Op
	c.out = append(append(make([]*guard.Port, 0, len(trusted)+len(ports)), trusted...), ports...)
	return c.out
}

// todo gives the ports that may have changed since the last time, or all, by link.Port.Seen. A
// port that is gone is nil.
func (c *Ports) todo(here Site, j Judge, all bool) map[uint64]*link.Port {
	gone, came := changed.Between(c.links, here.Ports)
	c.links = here.Ports
	out := make(map[uint64]*link.Port, len(gone)+len(came)+len(c.due))
	for _, p := range gone {
		if out[p.Seen] = nil; c.here[p.Index] == p {
			delete(c.here, p.Index)
		}
	}
	for _, p := range came {
		out[p.Seen], c.here[p.Index] = p, p
	}
	if !changed.Identical(c.judge.Closed, j.Closed) {
		for _, closed := range []map[int]bool{c.judge.Closed, j.Closed} {
			for index := range closed {
				if c.judge.Closed[index] != j.Closed[index] {
					c.due[index] = struct{}{}
				}
			}
		}
	}
	for index := range c.due {
		if p := c.here[index]; p != nil {
			out[p.Seen] = p
		}
	}
	clear(c.due)
	if all {
		for _, p := range here.Ports {
			out[p.Seen] = p
		}
	}
	return out
}

// source gives what to make a guard.Port from; is is false if netguard leaves the port alone.
// was says that the port got no broadcasts until now.
func (c *Ports) source(p *link.Port, here Site, j Judge, was bool) (s portSource, is bool) {
	if p == nil {
		return s, false
	}
	if _, ok := here.Managed[p.MasterName]; !ok {
		return s, false
	}
	s = portSource{port: p, endpoint: c.owners[p.Index], own: here.isOwn(p), isolated: j.Closed[p.Index] || j.Keep && was}
	switch d := s.endpoint; {
	case d == nil:
		return s, s.own || !here.Op.AdmissionOpen
	case here.mayAdmit(d):
		if s.verdict = j.Ask(d); s.verdict == Stay {
			s.verdict = Admit
		} else {
			c.due[p.Index] = struct{}{}
		}
	}
	return s, true
}

// own notes which endpoint each port belongs to.
func (c *Ports) own(endpoints []*Endpoint) {
	if c.owners == nil {
		c.owners, c.here, c.due = make(map[int]*Endpoint, len(endpoints)), map[int]*link.Port{}, map[int]struct{}{}
	}
	gone, came := changed.Between(c.endpoints, endpoints)
	for _, d := range gone {
		if d.Port != nil && c.owners[d.Port.Index] == d {
			delete(c.owners, d.Port.Index)
			c.due[d.Port.Index] = struct{}{}
		}
	}
	for _, d := range came {
		if d.Port != nil {
			c.owners[d.Port.Index], c.due[d.Port.Index] = d, struct{}{}
		}
	}
	c.endpoints = endpoints
}

// Unknown gives the ports of managed bridges that have been unknown for longer than a container
// takes to start. While Docker cannot be read it gives none: then nothing says whose they are.
func (c *Ports) Unknown(s *State, now time.Time) []*link.Port {
	if s.Seen.Err != nil {
		return nil
	}
	c.own(s.Endpoints)
	var out []*link.Port
	for _, p := range s.Seen.Links.Ports {
		if c.owners[p.Index] != nil || now.Sub(p.Since) < Patience {
			continue
		}
		if _, ok := s.Site.Managed[p.MasterName]; ok && !s.Site.isOwn(p) {
			out = append(out, p)
		}
	}
	return out
}

// mayAdmit tells whether Judge.Ask decides on an endpoint. Without a MAC from Docker, a guarded
// endpoint stays quarantined, and nobody asks.
func (s Site) mayAdmit(d *Endpoint) bool {
	mac, err := guard.MACOf(d.Attachment.MAC)
	return d.Unmanaged == "" && (err == nil && mac != guard.MAC{} || s.Op.Unguarded.Match(d.Network.Name))
}

// guarded gives the wanted state of a port of a managed bridge.
func (s Site) guarded(of portSource) *guard.Port {
	p, d := of.port, of.endpoint
	g := &guard.Port{Index: p.Index, Name: p.Name, Bridge: s.Managed[p.MasterName].Index, BridgeName: p.MasterName, Guarded: true, Isolated: of.isolated}
	if of.own {
		g.Guarded, g.Admitted = false, true
	}
	if d == nil {
		return g
	}
	if mac, err := guard.MACOf(d.Attachment.MAC); err == nil {
		g.MAC, g.IPv4, g.IPv6 = mac, d.Attachment.IPv4, d.Attachment.IPv6
	}
	switch {
	case d.Unmanaged != "":
		g.Guarded, g.Admitted = false, true
	case s.Op.Unguarded.Match(d.Network.Name):
		// It is not guarded, but quarantined like any other until it is admitted.
		if s.Op.AdmissionOpen || of.verdict == Admit {
			g.Guarded, g.Admitted = false, true
		}
	case g.MAC != (guard.MAC{}):
		g.Gateways, g.Allow = d.Network.Gateways, d.Allow
		g.Connections, g.Container, g.Answers = d.connections, d.Container.Name, d.answers
		g.DHCPServer, g.LinkLocals = d.dhcpServer, d.locals
		g.Admitted, g.Standing = s.Op.AdmissionOpen || of.verdict == Admit, of.verdict == Leave
	}
	return g
}

// Unmanaged gives the addresses of unmanaged endpoints. No label may take them.
func Unmanaged(endpoints []*Endpoint) []netip.Addr {
	var out []netip.Addr
	for i := range endpoints {
		if d := endpoints[i]; d.Unmanaged != "" {
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

// Bridges are the bridges of the networks that netguard manages, by name.
type Bridges map[string]guard.Bridge

func managedBridges(v docker.View, there map[string]int, op endpoint.Operator) Bridges {
	out := Bridges{}
	for _, n := range v.Networks {
		if index, ok := there[n.Bridge]; ok && op.Manages(n) {
			out[n.Bridge] = guard.Bridge{Index: index, Name: n.Bridge, Subnets: n.Subnets}
		}
	}
	return out
}

// Same tells whether the same bridges are managed, with the same subnets.
func (b Bridges) Same(o Bridges) bool {
	return maps.EqualFunc(b, o, func(x, y guard.Bridge) bool { return x.Index == y.Index && slices.Equal(x.Subnets, y.Subnets) })
}

// Others gives the ifindexes of the ports of all other bridges.
func (b Bridges) Others(ports []*link.Port) []int {
	var out []int
	for _, p := range ports {
		if _, ok := b[p.MasterName]; !ok {
			out = append(out, p.Index)
		}
	}
	return out
}

func (b Bridges) List() []guard.Bridge {
	return slices.SortedFunc(maps.Values(b), func(a, b guard.Bridge) int { return cmp.Compare(a.Index, b.Index) })
}
