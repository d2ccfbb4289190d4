package iptables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"netguard/netpolicy"
	"netguard/netpolicy/conformance"
)

// world draws containers and policies for them, published ports among them.
func world(rng *rand.Rand) netpolicy.World {
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	var w netpolicy.World
	for i := range 6 {
		n := rng.IntN(2)
		e := netpolicy.Endpoint{
			Workload: netpolicy.Workload{ID: fmt.Sprint(i), Name: fmt.Sprintf("c%d", i), Service: pick("web", "db"), Labels: map[string]string{"tier": pick("a", "b")}},
			Network:  fmt.Sprintf("n%d", n), Managed: rng.IntN(6) > 0,
			Addrs: []netip.Addr{conformance.Addr(conformance.Subnet4(n), i), conformance.Addr(conformance.Subnet6(n), i)},
		}
		if rng.IntN(4) == 0 {
			e.Labels["netguard."+pick("ingress", "egress")] = pick("[]", "[{ports: [tcp/80]}]", "[{ports: [tcp/80, udp/53]}]")
		}
		if rng.IntN(3) > 0 {
			e.Published = []netpolicy.Publish{{HostPort: uint16(8000 + rng.IntN(4)), Port: uint16(80 + rng.IntN(2)), Proto: netpolicy.TCP}}
		}
		w.Endpoints = append(w.Endpoints, &e)
	}
	peer := func() string {
		return pick("{service: web}", "{service: db}", "{labels: {tier: a}}", "{network: n0}", "{entity: host}", "{entity: external}", "{entity: any}",
			"{cidr: 198.51.100.0/24, except: [198.51.100.7/32]}", "{cidr: 172.30.1.0/24}", `{cidr: "2001:db8:7::/64"}`, `{cidr: "::/0", except: ["fd00:30:1::/64"]}`)
	}
	rule := func(word string) string {
		ports := pick("", ", ports: [tcp/80]", ", ports: [tcp/80-81, udp/53]", ", ports: [icmp/echo-request, sctp/80]", ", ports: [icmp]")
		return fmt.Sprintf("{%s: [%s, %s]%s}", word, peer(), peer(), ports)
	}
	var text strings.Builder
	policies := 1 + rng.IntN(4)
	if rng.IntN(4) == 0 {
		policies = 25 // so many that chains are parted
	}
	for i := range policies {
		fmt.Fprintf(&text, "---\nname: p%d\nselect: %s\n", i, pick("{}", "{service: web}", "{service: db}", "{labels: {tier: b}}", "{network: n1}",
			"{container: c0}", "{container: c1}", "{container: c2}", "{container: c3, service: web}"))
		fmt.Fprintf(&text, "ingress: [%s, %s]\n", rule("from"), rule("from"))
		if rng.IntN(2) == 0 {
			fmt.Fprintf(&text, "egress: [%s]\n", rule("to"))
		}
		if rng.IntN(3) == 0 {
			fmt.Fprintf(&text, "deny: [{ingress: %s}, {egress: %s}]\n", rule("from"), rule("to"))
		}
	}
	c := netpolicy.Load([]netpolicy.Source{{Name: "random.yaml", Data: []byte(text.String())}})
	if faults := c.Faults(); len(faults) > 0 {
		panic(fmt.Sprint(faults, text.String()))
	}
	w.Policies = c.Policies()
	return w
}

// somePacket draws the first packet of a connection of that world.
func somePacket(rng *rand.Rand, w netpolicy.World) netpolicy.Packet {
	i := rng.IntN(2)
	var ends [2]netip.Addr
	host := -1
	for n := range ends {
		switch k := rng.IntN(8); {
		case k == 0 && host < 0:
			host = n
			ends[n] = []netip.Addr{conformance.HostAddr(conformance.Subnet4(0)), conformance.HostAddr(conformance.Subnet6(0))}[i]
		case k == 1:
			ends[n] = []netip.Addr{addr("198.51.100.7"), addr("2001:db8:7::7")}[i]
		case k == 2:
			ends[n] = []netip.Addr{addr("198.51.100.8"), addr("2001:db8:8::7")}[i]
		default:
			ends[n] = w.Endpoints[rng.IntN(len(w.Endpoints))].Addrs[i]
		}
	}
	p := netpolicy.Packet{Src: ends[0], Dst: ends[1], ICMPType: netpolicy.AnyICMPType}
	switch host {
	case 0:
		p.Path = netpolicy.Output
	case 1:
		p.Path = netpolicy.Input
	}
	p.Proto = []netpolicy.Protocol{netpolicy.TCP, netpolicy.TCP, netpolicy.UDP, netpolicy.SCTP, netpolicy.ICMP}[rng.IntN(5)]
	if p.Proto == netpolicy.ICMP {
		p.ICMPType = 8
		if i == 1 {
			p.Proto, p.ICMPType = netpolicy.ICMPv6, 128
		}
		return p
	}
	p.Port = []uint16{80, 81, 53, 8000, 8001, 8002, 8003}[rng.IntN(7)]
	return p
}

// TestKernelAgrees asks the kernel and netpolicy's own Judge about packets at
// random, and compares whom a denied one counts for.
func TestKernelAgrees(t *testing.T) {
	for _, kind := range []Backend{NFT, Legacy} {
		t.Run(string(kind), func(t *testing.T) {
			w := newWire(t, kind)
			d := open(t)
			rng := rand.New(rand.NewPCG(5, 6))
			for range 40 {
				hosts := world(rng)
				wish := Wish{Rules: netpolicy.Compile(hosts)}
				for _, e := range hosts.Endpoints {
					wish.Containers = append(wish.Containers, e.Addrs...)
				}
				apply(t, d, wish)
				before, err := d.Denied()
				if err != nil {
					t.Fatal(err)
				}
				judge := netpolicy.NewJudge(wish.Rules)
				want, packets, denied := map[string]bool{}, map[string]netpolicy.Packet{}, map[netip.Addr]uint64{}
				for range 100 {
					p := somePacket(rng, hosts)
					if p.Src == p.Dst {
						continue
					}
					note := w.try(t, p, uint16(20000+len(want)))
					trace := judge.Walk(p)
					want[note], packets[note] = trace.Allowed, p
					if !trace.Allowed {
						denied[culprit(p, trace.Hits[len(trace.Hits)-1])]++
					}
				}
				passed := w.passed(t, want)
				for note, allowed := range want {
					if passed[note] != allowed {
						t.Errorf("%s passed = %t, the judge says %t: %+v", packets[note].Path, passed[note], allowed, packets[note])
					}
				}
				after, err := d.Denied()
				if err != nil {
					t.Fatal(err)
				}
				for a := range after {
					if n := after[a] - before[a]; n != denied[a] {
						t.Errorf("%s was denied %d times, want %d", a, n, denied[a])
					}
				}
			}
			inSync(t, d)
		})
	}
}

// culprit is the end that a denied packet counts for.
func culprit(p netpolicy.Packet, h netpolicy.Hit) netip.Addr {
	ingress := h.Stage == netpolicy.FileIngress || h.Stage == netpolicy.LabelIngress || h.Stage == netpolicy.Guardrail && h.Direction == netpolicy.Ingress
	if p.Path != netpolicy.Input && (ingress || p.Path == netpolicy.Output) {
		return p.Dst
	}
	return p.Src
}
