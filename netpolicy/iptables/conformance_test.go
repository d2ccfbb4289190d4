package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"netguard/netpolicy"
	"netguard/netpolicy/conformance"
)

// endpoints are those of a case, and where each party is.
func endpoints(c conformance.Case) ([]*netpolicy.Endpoint, func(name, network string, ipv6 bool) netip.Addr) {
	var all []*netpolicy.Endpoint
	at := map[string]netip.Addr{}
	key := func(name, network string, ipv6 bool) string { return fmt.Sprint(name, "@", network, ipv6) }
	for i, k := range c.Containers {
		for _, name := range k.Networks {
			n := c.NetworkIndex(name)
			e := netpolicy.Endpoint{
				Workload: netpolicy.Workload{ID: "id-" + k.Name, Name: k.Name, Project: k.Project, Service: k.Service, Labels: k.Labels},
				Network:  name, Managed: true,
			}
			for _, ipv6 := range []bool{false, true} {
				subnet := conformance.Subnet4(n)
				if ipv6 {
					subnet = conformance.Subnet6(n)
				}
				if ipv6 && !c.Networks[n].IPv6 {
					continue
				}
				a := conformance.Addr(subnet, i)
				e.Addrs = append(e.Addrs, a)
				at[key(k.Name, name, ipv6)] = a
				at[key(conformance.HostName, name, ipv6)] = conformance.HostAddr(subnet)
			}
			for _, p := range k.Publish {
				e.Published = append(e.Published, netpolicy.Publish{HostPort: p.Host, Port: p.Port, Proto: netpolicy.TCP})
			}
			all = append(all, &e)
		}
	}
	for _, o := range c.Outside {
		for _, n := range c.Networks {
			at[key(o.Name, n.Name, false)] = netip.MustParseAddr(o.IPv4)
			if o.IPv6 != "" {
				at[key(o.Name, n.Name, true)] = netip.MustParseAddr(o.IPv6)
			}
		}
	}
	return all, func(name, network string, ipv6 bool) netip.Addr { return at[key(name, network, ipv6)] }
}

// TestConformance asks the kernel about every row of the table of what policies
// mean. All cases go through one Driver, one after the other.
func TestConformance(t *testing.T) {
	for _, kind := range []Backend{NFT, Legacy} {
		t.Run(string(kind), func(t *testing.T) {
			w := newWire(t, kind)
			d := open(t)
			asked, open := 0, 0
			for _, c := range conformance.Cases() {
				loaded := netpolicy.Load([]netpolicy.Source{{Name: c.Name + ".yaml", Data: []byte(c.Policies)}})
				if faults := loaded.Faults(); len(faults) > 0 {
					t.Fatal(faults)
				}
				all, at := endpoints(c)
				wish := Wish{Rules: netpolicy.Compile(netpolicy.World{Endpoints: all, Policies: loaded.Policies()})}
				for _, e := range all {
					wish.Containers = append(wish.Containers, e.Addrs...)
				}
				apply(t, d, wish)
				judge := netpolicy.NewJudge(wish.Rules)
				want := map[string]bool{}
				for _, probe := range c.Matrix() {
					for _, ipv6 := range []bool{false, true} {
						p, ok := packetOf(t, probe, at, ipv6)
						if !ok {
							continue
						}
						note := w.try(t, p, uint16(20000+len(want)))
						if allowed := judge.Walk(p).Allowed; allowed != probe.Open {
							t.Errorf("%s: %s: the judge says %t", c.Name, probe, allowed)
						}
						want[note] = probe.Open
					}
				}
				passed := w.passed(t, want)
				for note, open := range want {
					if passed[note] != open {
						t.Errorf("%s: %s passed = %t, want %t", c.Name, note, passed[note], open)
					}
				}
				asked, open = asked+len(want), open+len(passed)
			}
			inSync(t, d)
			t.Logf("%d packets, %d passed", asked, open)
			if err := d.Cleanup(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

// packetOf is the first packet of a probe, where it meets the rules.
func packetOf(t *testing.T, probe conformance.Probe, at func(string, string, bool) netip.Addr, ipv6 bool) (netpolicy.Packet, bool) {
	t.Helper()
	p := netpolicy.Packet{Src: at(probe.From, probe.Network, ipv6), Dst: at(probe.To, probe.Network, ipv6)}
	switch conformance.HostName {
	case probe.From:
		p.Path = netpolicy.Output
	case probe.To:
		p.Path = netpolicy.Input
	}
	name, port, _ := strings.Cut(probe.Service, "/")
	switch name {
	case "tcp":
		p.Proto = netpolicy.TCP
	case "udp":
		p.Proto = netpolicy.UDP
	case "sctp":
		p.Proto = netpolicy.SCTP
	case "icmp":
		p.Proto, p.ICMPType = netpolicy.ICMP, 8
		if ipv6 {
			p.Proto, p.ICMPType = netpolicy.ICMPv6, 128
		}
	}
	if p.Proto.HasPorts() {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		p.Port = uint16(n)
	} else if port != "echo-request" {
		t.Fatalf("no packet for %s", probe.Service)
	}
	return p, p.Src.IsValid() && p.Dst.IsValid()
}
