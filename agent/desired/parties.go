package desired

import (
	"net"
	"net/netip"
	"reflect"
	"slices"

	"netguard/agent/docker"
	"netguard/internal/changed"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
)

// parties gives the endpoints as policies see them, in the same order. others says that any of
// them differs from the last ruling. An endpoint that does not differ keeps its pointer.
func (c *compiler) parties(endpoints []*Endpoint) (out []*netpolicy.Endpoint, others bool) {
	was := c.endpoints
	gone, _ := changed.Between(was, endpoints)
	out = make([]*netpolicy.Endpoint, len(endpoints))
	j := 0 // the place in was
	for i, d := range endpoints {
		for j < len(was) && was[j] != d && was[j].Key != d.Key && slices.Contains(gone, was[j]) {
			j, others = j+1, true
		}
		switch {
		case j < len(was) && was[j] == d:
			out[i] = c.last.Endpoints[j]
			j++
			continue
		case j < len(was) && was[j].Key == d.Key:
			if out[i] = d.party(); reflect.DeepEqual(c.last.Endpoints[j], out[i]) {
				out[i] = c.last.Endpoints[j]
			} else {
				others = true
			}
			j++
		default:
			out[i], others = d.party(), true
		}
	}
	return out, others || j < len(was)
}

// party is an endpoint as policies see it.
func (d *Endpoint) party() *netpolicy.Endpoint {
	p := &netpolicy.Endpoint{Workload: workload(d.Container), Network: d.Network.Name, Bridge: d.Network.Bridge, Managed: d.underPolicies(),
		Addrs: d.Own(), Extra: d.Extra, Away: d.away(), Since: d.Container.Created}
	p.Build = d.Attachment.Kind == docker.KindBuild
	for _, s := range d.Sharers {
		p.Shared = append(p.Shared, workload(s))
	}
	for _, port := range d.Container.Ports {
		if proto, ok := Protocols[port.Proto]; ok {
			p.Published = append(p.Published, netpolicy.Publish{HostIP: port.HostIP, HostPort: port.HostPort, Port: port.ContainerPort, Proto: proto})
		}
	}
	return p
}

var Protocols = map[string]netpolicy.Protocol{"tcp": netpolicy.TCP, "udp": netpolicy.UDP, "sctp": netpolicy.SCTP}

func workload(c docker.Container) netpolicy.Workload {
	return netpolicy.Workload{ID: c.ID, Name: c.Name, Project: c.Labels[netpolicy.LabelProject], Service: c.Labels[netpolicy.LabelService],
		Labels: c.Labels, Inherited: c.Inherited, Unproven: c.Unproven, Unread: c.Unread}
}

// linkLocal is the address that the kernel derives from a MAC; invalid for a MAC that no
// container can have.
func linkLocal(hw net.HardwareAddr) netip.Addr {
	mac, err := guard.MACOf(hw)
	if err != nil {
		return netip.Addr{}
	}
	return mac.LinkLocal()
}

// Addresses gives the addresses of all containers, managed or not. The single addresses that
// count only on a container's own bridge are among them.
func Addresses(ps []*netpolicy.Endpoint) []netip.Addr {
	out := make([]netip.Addr, 0, 2*len(ps))
	for _, p := range ps {
		out = append(out, p.Addrs...)
		out = append(out, p.Extra...)
		for _, away := range p.Away {
			if away.IsSingleIP() {
				out = append(out, away.Addr())
			}
		}
	}
	return out
}
