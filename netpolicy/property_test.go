package netpolicy

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// somewhere draws an end of a connection of a family, with its address.
func somewhere(t *rapid.T, label string, endpoints []*Endpoint, ipv6 bool) refEnd {
	var ends []refEnd
	for i := range endpoints {
		for _, a := range endpoints[i].Addrs {
			if a.Is6() == ipv6 {
				ends = append(ends, refEnd{endpoint: endpoints[i], addr: a})
			}
		}
	}
	for _, list := range []struct {
		texts []string
		host  bool
	}{{outsiders, false}, {hosts, true}} {
		for _, text := range list.texts {
			if a := netip.MustParseAddr(text); a.Is6() == ipv6 {
				ends = append(ends, refEnd{host: list.host, addr: a})
			}
		}
	}
	return ends[rapid.IntRange(0, len(ends)-1).Draw(t, label)]
}

func pathOf(src, dst refEnd) Path {
	switch {
	case dst.host:
		return Input
	case src.host:
		return Output
	}
	return Forward
}

func refService(c refConn, s Service) refConn {
	c.proto, c.port, c.icmp = s.Proto.String(), int(s.Port), s.icmp.name
	if s.Proto == otherProtocol {
		c.proto = "other"
	}
	return c
}

// Whatever the world, policies and connection, the rules do what the policies
// mean.
func TestRulesMeanThePolicies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, ref := drawWorld(t)
		block := drawBlock(t)
		judge := NewJudge(compile(w, block))
		for range 20 {
			ipv6 := rapid.Bool().Draw(t, "ipv6")
			src, dst := somewhere(t, "src", w.Endpoints, ipv6), somewhere(t, "dst", w.Endpoints, ipv6)
			if src.host && dst.host {
				continue
			}
			s := drawConn(t)
			packet, ok := s.packet(Packet{Path: pathOf(src, dst), Src: src.addr, Dst: dst.addr}, ipv6)
			if !ok {
				continue
			}
			got := judge.Walk(packet)
			if want := ref.allows(refService(refConn{src: src, dst: dst, ipv6: ipv6}, s)); got.Allowed != want {
				t.Fatalf("%+v is %v, want %v, by %+v", packet, got.Allowed, want, got.Hits)
			}
		}
	})
}

// A connection to a published port that the host takes is judged as one to the
// container behind.
func TestPublishedPortsMeanTheirContainers(t *testing.T) {
	asked := 0
	rapid.Check(t, func(t *rapid.T) {
		w, ref := drawWorld(t)
		block := drawBlock(t)
		judge := NewJudge(compile(w, block))
		for i := range w.Endpoints {
			target := w.Endpoints[i]
			for _, port := range target.Published {
				host := netip.MustParseAddr(rapid.SampledFrom(hosts).Draw(t, "host"))
				ipv6 := host.Is6()
				src := somewhere(t, "src", w.Endpoints, ipv6)
				reached := slices.ContainsFunc(hostPrefixes(port.HostIP, ipv6), func(p netip.Prefix) bool { return p.Contains(host) })
				if src.host || !reached {
					continue
				}
				asked++
				asHost := refConn{src: src, dst: refEnd{host: true, addr: host}, ipv6: ipv6, proto: port.Proto.String(), port: int(port.HostPort)}
				behind := refEnd{endpoint: target, all: target.Addrs}
				for _, a := range target.Addrs {
					if a.Is6() == ipv6 {
						behind.addr = a
					}
				}
				asTarget := refConn{src: src, dst: behind, ipv6: ipv6, proto: port.Proto.String(), port: int(port.Port)}
				want := !ref.denied(asHost) && ref.allows(asTarget)
				packet := Packet{Path: Input, Src: src.addr, Dst: host, Proto: port.Proto, Port: port.HostPort}
				if got := judge.Walk(packet); got.Allowed != want {
					t.Fatalf("%+v is %v, want %v, by %+v", packet, got.Allowed, want, got.Hits)
				}
			}
		}
	})
	if asked == 0 {
		t.Error("no published port was asked about")
	}
	t.Logf("%d connections", asked)
}

// An address that two endpoints claim, or a port that leads to two, opens no more
// than each of them may.
func TestSharedAddressesOpenNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, ref := drawWorld(t)
		block := drawBlock(t)
		other := drawEndpoint(t, 0) // has the addresses of the first
		other.Workload.ID = "id-other"
		w.Endpoints = append(w.Endpoints, &other)
		w.Endpoints[0].Managed = true
		judge := NewJudge(compile(w, block))
		first := w.Endpoints[0]
		if len(first.Published) > 0 {
			p := first.Published[0]
			w.Endpoints[len(w.Endpoints)-1].Published = []Publish{{p.HostIP, p.HostPort, 81, p.Proto}}
			judge = NewJudge(compile(w, block))
		}
		for range 20 {
			ipv6 := rapid.Bool().Draw(t, "ipv6")
			src, dst := somewhere(t, "src", w.Endpoints, ipv6), somewhere(t, "dst", w.Endpoints, ipv6)
			if src.host && dst.host {
				continue
			}
			s := drawConn(t)
			packet, ok := s.packet(Packet{Path: pathOf(src, dst), Src: src.addr, Dst: dst.addr}, ipv6)
			if !ok || !judge.Walk(packet).Allowed {
				continue
			}
			if c := refService(refConn{src: src, dst: dst, ipv6: ipv6}, s); !ref.allows(c) {
				t.Fatalf("%+v is allowed, but not for %+v", packet, c)
			}
		}
		for i := range w.Endpoints {
			for _, port := range w.Endpoints[i].Published {
				ipv6 := rapid.Bool().Draw(t, "ipv6")
				src := somewhere(t, "src", w.Endpoints, ipv6)
				if src.host || len(hostPrefixes(port.HostIP, ipv6)) == 0 {
					continue
				}
				packet := Packet{Path: Input, Src: src.addr, Dst: hostPrefixes(port.HostIP, ipv6)[0].Addr(), Proto: port.Proto, Port: port.HostPort}
				behind := refEnd{endpoint: w.Endpoints[i], all: w.Endpoints[i].Addrs}
				for _, a := range behind.all {
					if a.Is6() == ipv6 {
						behind.addr = a
					}
				}
				c := refConn{src: src, dst: behind, ipv6: ipv6, proto: port.Proto.String(), port: int(port.Port)}
				if judge.Walk(packet).Allowed && !ref.allows(c) {
					t.Fatalf("%+v is allowed, but not to %s", packet, w.Endpoints[i].Name)
				}
			}
		}
	})
}

func TestCompileIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, _ := drawWorld(t)
		block := drawBlock(t)
		one := compile(w, block)
		w.Endpoints = rapid.Permutation(w.Endpoints).Draw(t, "order")
		two := compile(w, block)
		one.States, two.States = nil, nil // in the order of the input
		if diff := cmp.Diff(one, two, cmpopts.IgnoreUnexported(RuleSet{}, Set{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Fatal(diff)
		}
	})
}

// A container more is members more, and nothing else, unless its label says what
// no other label says, or it is the first that a policy selects by labels of its image.
func TestContainersChangeMembersOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, _ := drawWorld(t)
		block := drawBlock(t)
		for i := range w.Endpoints {
			for _, d := range Directions {
				delete(w.Endpoints[i].Labels, policyLabels[d])
			}
			w.Endpoints[i].Shared = nil
		}
		all := compile(w, block)
		w.Endpoints = w.Endpoints[:rapid.IntRange(0, len(w.Endpoints)-1).Draw(t, "fewer")]
		w.Apart = all.Apart
		fewer := compile(w, block)
		if all.Generation != fewer.Generation {
			t.Fatalf("generations %s and %s", all.Generation, fewer.Generation)
		}
		for i, f := range all.Families() {
			g := fewer.Families()[i]
			if diff := cmp.Diff(f.Chains, g.Chains); diff != "" {
				t.Fatal(diff)
			}
			for j, s := range f.Sets {
				other := g.Sets[j]
				s.Members, other.Members = nil, nil
				if diff := cmp.Diff(s, other, cmpopts.IgnoreUnexported(Set{})); diff != "" {
					t.Fatal(diff)
				}
			}
		}
	})
}
