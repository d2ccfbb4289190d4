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

// Verdict is what the agent says of an endpoint's port.
type Verdict int

const (
	Refuse Verdict = iota
	// leave keeps it as it is in the kernel: an earlier agent may have admitted it.
	Leave
	Admit
)

// Site is what there is to guard, and how: all ports, the bridges of the networks
// that netguard manages, and the operator's word.
type Site struct {
	link.View
	Managed Bridges
	Op      *config.Config
	Own     map[string]ownPorts
	watches bool // what is refused is to be let pass
}

// GuardPorts gives the ports of the managed bridges: those of endpoints as they are
// declared, admitted where ask says so, and all others quarantined.
func GuardPorts(endpoints []*Endpoint, here Site, ask func(*Endpoint) Verdict) []*guard.Port {
	return new(Ports).Of(endpoints, here, ask, func(int) bool { return false })
}

// Ports keeps the ports that it gave, and gives the same slice again where they are the
// same. The zero value is ready.
type Ports struct {
	endpoints []*Endpoint
	owners    map[int]*Endpoint // by ifindex
	from      []portSource
	trusted   []*guard.Port // the first of out, which are no veths
	managed   Bridges
	op        *config.Config
	out       []*guard.Port
}

// portSource is what a port of the guard was made of.
type portSource struct {
	port     *link.Port
	endpoint *Endpoint
	verdict  Verdict
	own      bool
	isolated bool
}

// Of gives the ports of the managed bridges, as GuardPorts. Isolated tells of which, by
// ifindex, broadcasts are kept away. Nobody may change the result.
func (c *Ports) Of(endpoints []*Endpoint, here Site, ask func(*Endpoint) Verdict, isolated func(int) bool) []*guard.Port {
	c.own(endpoints)
	from := make([]portSource, 0, len(here.Ports))
	for _, p := range here.Ports {
		if _, ok := here.Managed[p.MasterName]; !ok {
			continue
		}
		s := portSource{port: p, endpoint: c.owners[p.Index], own: here.isOwn(p), isolated: isolated(p.Index)}
		switch d := s.endpoint; {
		case d == nil && here.Op.AdmissionOpen && !s.own:
			continue
		case d != nil && here.mayAdmit(d):
			s.verdict = ask(d)
		}
		from = append(from, s)
	}
	if c.op != here.Op || !c.managed.Same(here.Managed) {
		c.from, c.out, c.trusted = nil, nil, nil
	}
	trusted := here.trusted()
	same := slices.EqualFunc(trusted, c.trusted, func(a, b *guard.Port) bool { return a.Index == b.Index && a.Name == b.Name && a.Bridge == b.Bridge })
	if same && c.out != nil && slices.Equal(c.from, from) {
		return c.out
	}
	out := append(make([]*guard.Port, 0, len(trusted)+len(from)), trusted...)
	i := 0
	for _, s := range from { // both lists have the oldest port first
		for i < len(c.from) && c.from[i].port.Seen < s.port.Seen {
			i++
		}
		if i < len(c.from) && c.from[i] == s {
			out = append(out, c.out[len(c.trusted)+i])
		} else {
			out = append(out, here.guarded(s))
		}
	}
	c.from, c.out, c.trusted, c.managed, c.op = from, out, trusted, here.Managed, here.Op
	return out
}

// own notes whose the ports are.
func (c *Ports) own(endpoints []*Endpoint) {
	if c.owners == nil {
		c.owners = make(map[int]*Endpoint, len(endpoints))
	}
	gone, came := changed.Between(c.endpoints, endpoints)
	for _, d := range gone {
		if d.Port != nil && c.owners[d.Port.Index] == d {
			delete(c.owners, d.Port.Index)
		}
	}
	for _, d := range came {
		if d.Port != nil {
			c.owners[d.Port.Index] = d
		}
	}
	c.endpoints = endpoints
}

// Unknown gives the ports of managed bridges that are nobody's, for longer than it takes a
// container to start. While Docker cannot be read it gives none: nobody can be asked whose
// they are.
func (c *Ports) Unknown(s *State, now time.Time) []*link.Port {
	if s.Seen.Err != nil {
		return nil
	}
	c.own(s.Endpoints)
	var out []*link.Port
	for _, p := range s.Seen.Links.Ports {
		if _, ok := s.Site.Managed[p.MasterName]; ok && c.owners[p.Index] == nil && !s.Site.isOwn(p) && now.Sub(p.Since) >= Patience {
			out = append(out, p)
		}
	}
	return out
}

// mayAdmit tells whether it is somebody's to say if an endpoint is admitted. Without a MAC
// that Docker gave it stays quarantined.
func (s Site) mayAdmit(d *Endpoint) bool {
	mac, err := guard.MACOf(d.Attachment.MAC)
	return d.Unmanaged == "" && (err == nil && mac != guard.MAC{} || s.Op.Unguarded.Match(d.Network.Name))
}

// guarded is a port of a managed bridge as it is to be.
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
		// Nobody guards it; it is quarantined as any other.
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

// Unmanaged are the addresses of containers on networks that are not managed, so
// that no label takes them.
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

// Bridges are those of the networks that netguard manages, by name.
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

// Others gives the ports of all other bridges.
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
