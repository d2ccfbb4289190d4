package desired

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
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

// port is a port as nothing is known of it, quarantined, if its bridge is managed.
func (s Site) port(p *link.Port) (guard.Port, bool) {
	bridge, ok := s.Managed[p.MasterName]
	g := guard.Port{Index: p.Index, Name: p.Name, Bridge: bridge.Index, BridgeName: p.MasterName, Guarded: true}
	if s.isOwn(p) {
		g.Guarded, g.Admitted = false, true
	}
	return g, ok
}

// GuardPorts gives the ports of the managed bridges: those of endpoints as they are
// declared, admitted where ask says so, and all others quarantined.
func GuardPorts(endpoints []*Endpoint, here Site, ask func(*Endpoint) Verdict) []guard.Port {
	byPort := make(map[int]*Endpoint, len(endpoints))
	for i := range endpoints {
		if d := endpoints[i]; d.Port != nil {
			byPort[d.Port.Index] = d
		}
	}
	out := append(make([]guard.Port, 0, len(here.Ports)), here.trusted()...)
	for _, p := range here.Ports {
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
		case d == nil && here.Op.AdmissionOpen && g.Guarded:
			continue
		case d != nil && d.Unmanaged != "":
			g.Guarded, g.Admitted = false, true
		case d != nil && here.Op.Unguarded.Match(d.Network.Name):
			// Nobody guards it; it is quarantined as any other.
			if here.Op.AdmissionOpen || ask(d) == Admit {
				g.Guarded, g.Admitted = false, true
			}
		case d != nil && g.MAC != (guard.MAC{}): // without one that Docker gave it stays quarantined
			g.Gateways, g.Allow = d.Network.Gateways, d.Allow
			g.Connections, g.Container, g.Answers = d.connections, d.Container.Name, d.answers
			g.DHCPServer, g.LinkLocals = d.dhcpServer, d.locals
			answer := ask(d)
			g.Admitted, g.Standing = here.Op.AdmissionOpen || answer == Admit, answer == Leave
		}
		out = append(out, g)
	}
	return out
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
