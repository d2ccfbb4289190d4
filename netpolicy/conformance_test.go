package netpolicy

import (
	"net/netip"
	"strings"
	"testing"

	"netguard/netpolicy/conformance"
)

// hostOf makes the endpoints of a case.
func hostOf(c conformance.Case) []Endpoint {
	var all []Endpoint
	for i, k := range c.Containers {
		for _, name := range k.Networks {
			n := c.NetworkIndex(name)
			e := Endpoint{
				Workload: Workload{ID: "id-" + k.Name, Name: k.Name, Project: k.Project, Service: k.Service, Labels: k.Labels},
				Network:  name, Managed: true, Addrs: []netip.Addr{conformance.Addr(conformance.Subnet4(n), i)},
			}
			if c.Networks[n].IPv6 {
				e.Addrs = append(e.Addrs, conformance.Addr(conformance.Subnet6(n), i))
			}
			all = append(all, e)
		}
	}
	return all
}

// partyOf finds the end of a probe.
func partyOf(c conformance.Case, endpoints []Endpoint, name, network string) Party {
	p := Party{Name: name}
	n := c.NetworkIndex(network)
	if name == conformance.HostName {
		p.Host = true
		p.Addrs = []netip.Addr{conformance.HostAddr(conformance.Subnet4(n))}
		if c.Networks[n].IPv6 {
			p.Addrs = append(p.Addrs, conformance.HostAddr(conformance.Subnet6(n)))
		}
		return p
	}
	for _, e := range endpoints {
		if e.Name == name && e.Network == network {
			p.Endpoints = append(p.Endpoints, e)
		}
	}
	for _, o := range c.Outside {
		if o.Name == name {
			p.Addrs = append(p.Addrs, netip.MustParseAddr(o.IPv4))
			if o.IPv6 != "" {
				p.Addrs = append(p.Addrs, netip.MustParseAddr(o.IPv6))
			}
		}
	}
	return p
}

func refConnOf(src, dst Party, ipv6 bool, s Service) (refConn, bool) {
	c := refConn{ipv6: ipv6, proto: s.Proto.String(), port: int(s.Port), icmp: s.icmp.name}
	for _, end := range []struct {
		from Party
		to   *refEnd
	}{{src, &c.src}, {dst, &c.dst}} {
		end.to.host = end.from.Host
		addrs := end.from.Addrs
		if len(end.from.Endpoints) > 0 {
			end.to.endpoint = &end.from.Endpoints[0]
			addrs = end.to.endpoint.Addrs
		}
		for _, a := range addrs {
			if a.Is6() == ipv6 && !end.to.addr.IsValid() {
				end.to.addr = a
			}
		}
		if !end.to.addr.IsValid() {
			return c, false
		}
	}
	return c, true
}

func TestConformance(t *testing.T) {
	for _, c := range conformance.Cases() {
		t.Run(c.Name, func(t *testing.T) { conforms(t, c) })
	}
}

// conforms asks the compiled rule set and the reference about every probe.
func conforms(t *testing.T, c conformance.Case) {
	t.Helper()
	loaded := Load(texts(c.Name+".yaml", c.Policies))
	if faults := loaded.Faults(); len(faults) > 0 {
		t.Fatal(faults)
	}
	endpoints := hostOf(c)
	rs := Compile(World{Endpoints: refs(endpoints), Policies: loaded.Policies()})
	ref := reference{policies: readRef(t, c.Policies)}
	probes := c.Matrix()
	asked, open := 0, 0
	for _, p := range probes {
		service, err := ParseService(p.Service)
		if err != nil {
			t.Fatal(err)
		}
		src, dst := partyOf(c, endpoints, p.From, p.Network), partyOf(c, endpoints, p.To, p.Network)
		got := Explain(nil, rs, refs(endpoints), src, dst, &service)
		if len(got.Answers) == 0 {
			t.Fatalf("%s: no answer: %s", p, got.Note)
		}
		for _, a := range got.Answers {
			asked++
			ipv6 := strings.Contains(a.Src, ":")
			if a.Allowed != p.Open {
				t.Errorf("%s (ipv6 %v): allowed is %v: %s", p, ipv6, a.Allowed, a.Sentence)
			}
			conn, ok := refConnOf(src, dst, ipv6, service)
			if !ok || ref.allows(conn) != p.Open {
				t.Errorf("%s (ipv6 %v): the reference says %v", p, ipv6, !p.Open)
			}
		}
		if p.Open {
			open++
		}
	}
	t.Logf("%d probes, %d answers, %d open", len(probes), asked, open)
}
