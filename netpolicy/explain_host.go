package netpolicy

import (
	"fmt"
	"net/netip"
	"slices"
)

// Host is what decides about connections to published ports of the host, besides the rules.
type Host struct {
	// Leads tells to which address the host translates the first packet of a connection. It gives
	// false if the host does not translate it. in is the bridge that the packet comes by, "" for
	// a packet of the host, and "-" for another device.
	Leads func(in string, src, dst netip.Addr, s Service) (netip.AddrPort, bool)
	// Addrs are the host's addresses: docker-proxy comes from one.
	Addrs []netip.Addr
}

// Explain tells in words what a rule set does with connections between two parties. endpoints are
// those that the rule set was compiled from. Without a service, Explain tells of all services.
// Those with the same answer stand together.
//
// If two containers have a network in common, Explain asks about connections on it. If they have
// none, it asks about each pair of their networks. The Note then says that Docker keeps networks
// apart, whatever policies say.
//
// h tells which published ports the kernel leads on to the container, and which docker-proxy
// takes on as the host. It is nil if nothing is known of the host.
func Explain(h *Host, rs *RuleSet, endpoints []*Endpoint, src, dst Party, service *Service) Explanation {
	e := explainer{rs: rs, judge: NewJudge(rs), endpoints: endpoints, src: src, dst: dst, host: h}
	if src.Host && dst.Host && service != nil {
		out := Explanation{Allowed: true, Answers: []Answer{}}
		for _, to := range ends(Party{Host: true, Addrs: dst.Addrs}, src) {
			if a, ok := e.published(pair{path: Output, src: to.addr, dst: to.addr}, *service); ok {
				out.Allowed = out.Allowed && a.Allowed
				out.Answers = append(out.Answers, a)
			}
		}
		if len(out.Answers) > 0 {
			return out
		}
	}
	return e.explain(service)
}

// published answers for a published port of the host. It gives false for any other connection.
func (e *explainer) published(p pair, s Service) (Answer, bool) {
	if e.host == nil || !e.dst.Host || !s.Proto.HasPorts() {
		return Answer{}, false
	}
	if to, ok := e.host.Leads(e.device(p), p.src, p.dst, s); ok {
		i := slices.IndexFunc(e.endpoints, func(t *Endpoint) bool { return slices.Contains(t.Addrs, to.Addr()) })
		if i < 0 {
			return Answer{}, false
		}
		path := Forward
		if e.src.Host {
			path = Output
		}
		on := pair{path, p.from, e.endpoints[i], p.src, to.Addr()}
		inner := Service{Proto: s.Proto, Port: to.Port()}
		a, t := e.onward(on, inner)
		a.Dst, a.Service = p.dst.String(), s.String()
		a.Sentence = fmt.Sprintf("%s, which leads to %s: %s", e.reaches(p, s, t.Allowed), on.to.Name, e.because(on, t, &inner))
		if on.from != nil && on.from.Network != on.to.Network {
			a.Sentence += "; they have no network in common: Docker keeps its networks apart, whatever policy allows"
		}
		return a, true
	}
	return e.proxied(p, s)
}

// device gives the device that the connection comes to the host by, as in Host.Leads.
func (e *explainer) device(p pair) string {
	switch {
	case e.src.Host:
		return ""
	case p.from != nil && p.from.Bridge != "":
		return p.from.Bridge
	}
	return "-"
}

// proxied answers for a connection that docker-proxy takes on. Two connections have to pass: the
// first, as if it went to the container behind the port, and the one of docker-proxy, as one of
// the host.
func (e *explainer) proxied(p pair, s Service) (Answer, bool) {
	behind, port := e.portOf(p.dst, s)
	if behind == nil {
		return Answer{}, false
	}
	var first Answer
	if !e.src.Host {
		packet, _ := s.packet(Packet{Path: Input, Src: p.src, Dst: p.dst, From: p.from.bridge()}, p.src.Is6())
		t := e.judge.Walk(packet)
		if first = e.answer(p, s.String(), t, &s); !t.Allowed {
			return first, true
		}
	}
	addr := behind.Addrs[0]
	if i := slices.IndexFunc(behind.Addrs, func(a netip.Addr) bool { return scopeOf(a) == scopeOf(p.dst) }); i >= 0 {
		addr = behind.Addrs[i]
	}
	on := pair{path: Output, to: behind, src: e.near(addr), dst: addr}
	inner := Service{Proto: s.Proto, Port: port}
	a, t := e.onward(on, inner)
	if t.Allowed {
		a.Policies = union(first.Policies, a.Policies)
		a.Rules = union(first.Rules, a.Rules)
	}
	a.Src, a.Dst, a.Service, a.Path = p.src.String(), p.dst.String(), s.String(), p.path.String()
	why := e.because(on, t, &inner)
	a.Sentence = fmt.Sprintf("%s, which docker-proxy takes on to %s, as the host (entity: host): %s", e.reaches(p, s, t.Allowed), behind.Name, why)
	return a, true
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// onward judges the connection that reaches the container.
func (e *explainer) onward(p pair, s Service) (Answer, Trace) {
	packet, _ := s.packet(Packet{Path: p.path, Src: p.src, Dst: p.dst, From: p.from.bridge(), To: p.to.bridge()}, p.dst.Is6())
	t := e.judge.Walk(packet)
	return e.answer(p, s.String(), t, &s), t
}

func (e *explainer) reaches(p pair, s Service, allowed bool) string {
	may := "may"
	if !allowed {
		may = "may not"
	}
	return fmt.Sprintf("%s %s reach %s (%s to %s) by %s", e.src.Name, may, e.dst.Name, p.src, p.dst, s)
}

// near gives the address that the host uses towards a container: the one with the longest prefix
// in common.
func (e *explainer) near(to netip.Addr) netip.Addr {
	best, most := netip.IPv4Unspecified(), -1
	if to.Is6() {
		best = netip.IPv6Unspecified()
	}
	for _, a := range e.host.Addrs {
		if scopeOf(a) != scopeOf(to) || a.IsLoopback() {
			continue
		}
		n := 0
		for n < a.BitLen() {
			if p, _ := a.Prefix(n + 1); !p.Contains(to) {
				break
			}
			n++
		}
		if n > most {
			best, most = a, n
		}
	}
	return best
}

// portOf gives the endpoint that a published port of the host leads to, and its port.
func (e *explainer) portOf(dst netip.Addr, s Service) (*Endpoint, uint16) {
	if dst.IsUnspecified() {
		return nil, 0
	}
	for i := range e.endpoints {
		for _, port := range e.endpoints[i].Published {
			for _, prefix := range hostPrefixes(port.HostIP, dst.Is6()) {
				if len(e.endpoints[i].Addrs) > 0 && port.Proto == s.Proto && port.HostPort == s.Port && prefix.Contains(dst) {
					return e.endpoints[i], port.Port
				}
			}
		}
	}
	return nil, 0
}
