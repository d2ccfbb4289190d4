package iptables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"netguard/netpolicy"
)

// forLabs runs a test in a lab with each backend.
func forLabs(t *testing.T, name string, f func(*testing.T, *lab)) {
	for _, kind := range []Backend{NFT, Legacy} {
		t.Run(fmt.Sprintf("%s/%s", name, kind), func(t *testing.T) { f(t, newLab(t, kind)) })
	}
}

// policy is a rule set for the lab: web may reach db on some ports.
func policy(generation string, web, db []*node, ports ...uint16) small {
	s := small{generation: generation}
	for _, n := range web {
		s.web = append(s.web, n.addrs[:]...)
	}
	for _, n := range db {
		s.db = append(s.db, n.addrs[:]...)
	}
	for _, p := range ports {
		s.ports = append(s.ports, netpolicy.PortRange{First: p, Last: p})
	}
	return s
}

// allows is what a rule set of this kind says about a connection.
func (s small) allows(f Flow) bool {
	if slices.Contains(s.closed, f.Src.Addr()) {
		return false
	}
	if !slices.Contains(s.db, f.Dst.Addr()) {
		return true
	}
	return slices.Contains(s.web, f.Src.Addr()) && slices.ContainsFunc(s.ports, func(p netpolicy.PortRange) bool {
		return p.First <= f.Dst.Port() && f.Dst.Port() <= p.Last
	})
}

func TestTraffic(t *testing.T) {
	forLabs(t, "passes_where_it_is_allowed_and_nowhere_else", func(t *testing.T, l *lab) {
		d := open(t)
		for _, port := range []uint16{80, 90} {
			serve(t, l.b, port)
			serve(t, l.c, port)
			serve(t, nil, port)
		}
		check := func(from *node, to netip.Addr, port uint16, want bool) {
			t.Helper()
			for _, network := range []string{"tcp", "udp"} {
				if have := reaches(t, from, network, netip.AddrPortFrom(to, port), want); have != want {
					t.Errorf("%s to %s port %d: passes = %t, want %t", network, to, port, have, want)
				}
			}
		}
		s := policy("a", []*node{l.a}, []*node{l.b, l.c}, 80)
		apply(t, d, s.wish())
		for i := range familyNames {
			check(l.a, l.c.addrs[i], 80, true)
			check(l.a, l.c.addrs[i], 90, false) // no such port in the policy
			check(l.b, l.c.addrs[i], 80, false) // not web
			check(l.c, l.c.gateways[i], 80, true)
			check(nil, l.c.addrs[i], 80, false) // the host is not web
			check(l.a, l.b.addrs[i], 90, true)  // one bridge: nobody looks
		}
		if err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		for i := range familyNames {
			check(l.a, l.b.addrs[i], 80, true)
			check(l.a, l.b.addrs[i], 90, false)
		}
		// One container fewer, by members alone.
		s.web = nil
		if r := apply(t, d, s.wish()); r.Forks != 0 {
			t.Errorf("report = %+v", r)
		}
		for i := range familyNames {
			check(l.a, l.b.addrs[i], 80, false)
			check(l.a, l.c.addrs[i], 80, false)
		}
		denied, err := d.Denied()
		if err != nil {
			t.Fatal(err)
		}
		for i := range familyNames {
			if denied[l.b.addrs[i]] == 0 || denied[l.c.addrs[i]] == 0 || denied[l.a.addrs[i]] != 0 {
				t.Errorf("denied = %v", denied)
			}
		}
		rules, err := d.Rules(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"NG-FI-", "NG-OI-"} {
			if !slices.ContainsFunc(rules, func(r RuleCount) bool {
				return strings.HasPrefix(r.Chain, path) && r.Verdict == netpolicy.Drop && r.Origin.Stage == netpolicy.FileIngress && r.Packets > 0
			}) {
				t.Errorf("no drop counted in %s: %+v", path, rules)
			}
		}
		if !slices.ContainsFunc(rules, func(r RuleCount) bool { return r.Origin.Policy == "db" && r.Packets > 0 }) {
			t.Errorf("no allow counted: %+v", rules)
		}
	})
	forLabs(t, "stops_at_the_sender", func(t *testing.T, l *lab) {
		d := open(t)
		serve(t, l.c, 80)
		serve(t, nil, 80)
		s := small{generation: "a", closed: l.a.addrs[:]}
		apply(t, d, s.wish())
		for i := range familyNames {
			for _, to := range []netip.Addr{l.c.addrs[i], l.a.gateways[i]} {
				if reaches(t, l.a, "tcp", netip.AddrPortFrom(to, 80), false) {
					t.Errorf("a container that may not send reaches %s", to)
				}
				if to != l.c.addrs[i] && !reaches(t, l.b, "tcp", netip.AddrPortFrom(to, 80), true) {
					t.Errorf("another container does not reach %s", to)
				}
			}
		}
		denied, err := d.Denied()
		if err != nil {
			t.Fatal(err)
		}
		for i := range familyNames {
			if denied[l.a.addrs[i]] < 2 {
				t.Errorf("denied = %v", denied)
			}
		}
	})
}

func TestBridges(t *testing.T) {
	flags := func(t *testing.T, name string) string {
		var out []string
		for _, line := range strings.Fields(run(t, "ip", "-d", "link", "show", name)) {
			if len(out) == 1 || len(out) == 3 || line == "nf_call_iptables" || line == "nf_call_ip6tables" {
				out = append(out, line)
			}
		}
		return strings.Join(out, " ")
	}
	const off, both, v4 = "nf_call_iptables 0 nf_call_ip6tables 0", "nf_call_iptables 1 nf_call_ip6tables 1", "nf_call_iptables 1 nf_call_ip6tables 0"
	forLabs(t, "switches_on_what_is_off_and_back", func(t *testing.T, l *lab) {
		run(t, "ip", "link", "set", "br1", "type", "bridge", "nf_call_iptables", "1")
		before := all(t)
		step := func(d *Driver, wish map[string]bool, br0, br1 string) {
			t.Helper()
			if err := d.Bridges(wish); err != nil {
				t.Fatal(err)
			}
			if have := flags(t, "br0"); have != br0 {
				t.Errorf("br0: %s, want %s", have, br0)
			}
			if have := flags(t, "br1"); have != br1 {
				t.Errorf("br1: %s, want %s", have, br1)
			}
		}
		d := open(t)
		step(d, map[string]bool{"br0": true, "none": true}, both, v4)
		wrote := d.wrote
		step(d, map[string]bool{"br0": true}, both, v4)
		if d.wrote != wrote {
			t.Errorf("the second time wrote %d messages", d.wrote-wrote)
		}
		d = open(t) // after a restart it still knows
		step(d, map[string]bool{"br0": false, "br1": true}, off, both)
		step(d, nil, off, v4)
		step(d, map[string]bool{"br0": true, "br1": true}, both, both)
		run(t, "ip", "link", "set", "br0", "type", "bridge", "nf_call_ip6tables", "0")
		step(d, map[string]bool{"br0": true, "br1": true}, both, both)
		if err := d.Cleanup(context.Background()); err != nil {
			t.Fatal(err)
		}
		if have := flags(t, "br0") + flags(t, "br1"); have != off+v4 {
			t.Errorf("after cleanup: %s", have)
		}
		same(t, "kernel", before, all(t))
	})
	forLabs(t, "leaves_ordinary_traffic_alone", func(t *testing.T, l *lab) {
		d := open(t)
		serve(t, l.b, 80)
		cmd := map[Backend]string{NFT: "iptables-nft", Legacy: "iptables-legacy"}
		apply(t, d, policy("a", nil, nil).wish())
		if err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		ipt := cmd[d.Backend()]
		// A published port, as Docker does it, and the hairpin to it.
		run(t, ipt, "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "-d", "10.77.1.254", "--dport", "8080", "-j", "DNAT", "--to", "10.77.0.2:80")
		run(t, ipt, "-t", "nat", "-A", "POSTROUTING", "-s", "10.77.0.0/24", "!", "-o", "br0", "-j", "MASQUERADE")
		run(t, ipt, "-t", "nat", "-A", "POSTROUTING", "-p", "tcp", "-s", "10.77.0.2", "-d", "10.77.0.2", "--dport", "80", "-j", "MASQUERADE")
		for _, n := range []*node{l.a, l.b, l.c} {
			// ARP and neighbour discovery anew.
			n.do(func() {
				run(t, "ip", "neigh", "flush", "all")
				run(t, "ip", "-6", "neigh", "flush", "all")
			})
		}
		run(t, "bridge", "link", "set", "dev", "vb", "hairpin", "on")
		for i := range familyNames {
			if !reaches(t, l.a, "tcp", netip.AddrPortFrom(l.b.addrs[i], 80), true) || !reaches(t, l.c, "udp", netip.AddrPortFrom(l.b.addrs[i], 80), true) {
				t.Errorf("%s does not pass", familyNames[i])
			}
		}
		published := netip.MustParseAddrPort("10.77.1.254:8080")
		for name, n := range map[string]*node{"another bridge": l.c, "the same bridge": l.a, "the container itself": l.b} {
			if !reaches(t, n, "tcp", published, true) {
				t.Errorf("the published port does not answer %s", name)
			}
		}
		// And what policy says of it is by the container's own port.
		s := policy("b", []*node{l.a}, []*node{l.b}, 80)
		apply(t, d, s.wish())
		if !reaches(t, l.a, "tcp", published, true) || reaches(t, l.c, "tcp", published, false) {
			t.Error("policy does not hold for a published port")
		}
	})
	t.Run("cannot_without_br_netfilter", func(t *testing.T) {
		newLab(t, NFT)
		d := open(t)
		// The kernel of the tests has it built in.
		d.bridgeFilter = "/proc/sys/net/bridge/none"
		if err := d.Bridges(map[string]bool{"br0": true}); !errors.Is(err, ErrNoBridgeFilter) {
			t.Errorf("error = %v", err)
		}
		if have := flags(t, "br0"); have != off {
			t.Errorf("br0: %s", have)
		}
	})
}

func TestSwitch(t *testing.T) {
	forLabs(t, "lets_nothing_through_that_both_policies_deny", func(t *testing.T, l *lab) {
		d := open(t)
		serve(t, l.b, 80)
		passed := sink(t, l.b, 90)
		// All allow a to b on 80; none allows 90, nor c anything.
		rules := []Wish{
			policy("a", []*node{l.a}, []*node{l.b}, 80).wish(),
			policy("b", []*node{l.a}, []*node{l.b}, 80, 81).wish(),
			policy("c", []*node{l.a}, []*node{l.b, l.a}, 443, 80).wish(),
		}
		apply(t, d, rules[0])
		if err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		var streams []*stream
		for i := range familyNames {
			for _, network := range []string{"tcp", "udp"} {
				streams = append(streams, newStream(t, l.a, network, netip.AddrPortFrom(l.b.addrs[i], 80)))
			}
		}
		stop := make(chan struct{})
		sent := flood(t, l.c, l.b, 90, stop)
		also := flood(t, l.a, l.b, 90, stop)
		broken := make(chan string, 1)
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(tick):
				}
				for _, s := range streams {
					if s.quiet(time.Second) {
						select {
						case broken <- s.name:
						default:
						}
						return
					}
				}
			}
		}()
		for i := range 50 {
			apply(t, d, rules[(i*7+i/3)%3])
		}
		close(stop)
		select {
		case name := <-broken:
			t.Errorf("a permitted stream broke: %s", name)
		default:
		}
		if n, m := sent.Load(), also.Load(); n < 1000 || m < 1000 {
			t.Errorf("only %d and %d packets were tried", n, m)
		}
		if n := passed.Load(); n != 0 {
			t.Errorf("%d packets passed", n)
		}
		// The same packets are counted where they may pass.
		apply(t, d, policy("d", []*node{l.a, l.c}, []*node{l.b}, 90).wish())
		stop = make(chan struct{})
		flood(t, l.c, l.b, 90, stop)
		await(t, 5*time.Second, "packets that may pass", func() bool { return passed.Load() > 0 })
		close(stop)
		inSync(t, d)
	})
}
