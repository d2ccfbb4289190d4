package agent

import (
	"net"
	"net/netip"

	"netguard/agent/docker"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
)

// parties gives the endpoints as policies see them, in the same order. It is pure.
func parties(desires []desire) []netpolicy.Endpoint {
	out := make([]netpolicy.Endpoint, len(desires))
	for i := range desires {
		e := &desires[i]
		p := netpolicy.Endpoint{Extra: singles(e.allow), Workload: workload(e.Container), Network: e.Network.Name, Managed: e.underPolicies()}
		p.Build = e.Attachment.Kind == docker.KindBuild
		for _, s := range e.Sharers {
			p.Shared = append(p.Shared, workload(s))
		}
		for _, a := range []netip.Addr{e.Attachment.IPv4, e.Attachment.IPv6, linkLocal(e.Attachment.MAC)} {
			if a.IsValid() {
				p.Addrs = append(p.Addrs, a)
			}
		}
		for _, port := range e.Container.Ports {
			if proto, ok := protocols[port.Proto]; ok {
				p.Published = append(p.Published, netpolicy.Publish{HostIP: port.HostIP, HostPort: port.HostPort, Port: port.ContainerPort, Proto: proto})
			}
		}
		out[i] = p
	}
	return out
}

var protocols = map[string]netpolicy.Protocol{"tcp": netpolicy.TCP, "udp": netpolicy.UDP, "sctp": netpolicy.SCTP}

func workload(c docker.Container) netpolicy.Workload {
	return netpolicy.Workload{ID: c.ID, Name: c.Name, Project: c.Labels[netpolicy.LabelProject], Service: c.Labels[netpolicy.LabelService],
		Labels: c.Labels, Inherited: c.Inherited, Unproven: c.Unproven}
}

// linkLocal is the address that the kernel derives from a MAC, invalid for what
// no container can have.
func linkLocal(hw net.HardwareAddr) netip.Addr {
	mac, err := guard.MACOf(hw)
	if err != nil {
		return netip.Addr{}
	}
	return mac.LinkLocal()
}

// addresses are those of all containers, netguard's or not.
func addresses(ps []netpolicy.Endpoint) []netip.Addr {
	var out []netip.Addr
	for _, p := range ps {
		out = append(out, p.Addrs...)
		out = append(out, p.Extra...)
	}
	return out
}
