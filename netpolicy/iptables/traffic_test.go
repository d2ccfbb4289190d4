package iptables

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
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
	s := small{generation: generation, homes: labHomes}
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
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
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
		after, err := open(t).Denied() // a restart forgets nothing
		// A SYN that was sent again may still have come.
		known := func(a netip.Addr, n uint64) bool { return after[a] >= n }
		maps.DeleteFunc(denied, known)
		if err != nil || len(denied) > 0 {
			t.Errorf("denied as well = %v, after a restart %v (%v)", denied, after, err)
		}
		rules := run(t, cmdOf(d, false)+"-save", "-c")
		for _, counted := range []string{"NG-FI-.*-j DROP", "NG-OI-.*-j DROP", "NG-FI-.* --dports 80 .*-j RETURN"} {
			if !regexp.MustCompile(`(?m)^\[[1-9][0-9]*:[0-9]+\] -A ` + counted).MatchString(rules) {
				t.Errorf("%s counted nothing:\n%s", counted, rules)
			}
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
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
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
		go func(stop <-chan struct{}) {
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
		}(stop)
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
