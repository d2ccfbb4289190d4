package iptables

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"netguard/netpolicy"
)

// cmds are the programs of both families.
func cmds(d *Driver) [2]string { return [2]string{cmdOf(d, false), cmdOf(d, true)} }

func TestFormat(t *testing.T) {
	forBackends(t, "is_written_with_the_rules", func(t *testing.T) {
		d := open(t)
		apply(t, d, states()[0].wish())
		for _, cmd := range cmds(d) {
			if out := run(t, cmd, "-S"); !strings.Contains(out, fmt.Sprintf("-N NG-FORMAT-%d\n", Format)) {
				t.Errorf("%s:\n%s", cmd, out)
			}
			run(t, cmd, "-X", formatChain(Format))
		}
		if drift, err := d.Verify(t.Context()); err != nil || len(drift.Changes) != 2 {
			t.Errorf("without the number: %+v, %v", drift, err)
		}
		apply(t, d, states()[0].wish())
		inSync(t, d)
	})
	for i, family := range familyNames {
		forBackends(t, "a_newer_one_is_not_touched/"+family, func(t *testing.T) {
			apply(t, open(t), states()[0].wish())
			d := open(t)
			if err := d.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			run(t, cmds(d)[i], "-E", formatChain(Format), formatChain(Format+1))
			before := all(t)
			_, applied := d.Apply(t.Context(), states()[3].wish())
			_, verified := d.Verify(t.Context())
			for what, err := range map[string]error{"check": d.Check(t.Context()), "apply": applied, "verify": verified, "clean up": open(t).Cleanup(t.Context())} {
				if !errors.Is(err, ErrNewer) {
					t.Errorf("%s: %v", what, err)
				}
			}
			same(t, "kernel", before, all(t))
		})
	}
	// An older version's chains, in its own words.
	forLabs(t, "an_older_one_is_replaced_without_a_gap", func(t *testing.T, l *lab) {
		serve(t, l.c, 80)
		passed := sink(t, l.c, 90)
		d := open(t)
		s := policy("a", []*node{l.a}, []*node{l.b, l.c}, 80)
		if err := d.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, cmd := range cmds(d) { // the old version did not note that it made it
			run(t, cmd, "-P", "OUTPUT", "ACCEPT")
		}
		before := all(t)
		older(t, cmds(d), l)
		var streams []*stream
		for i := range familyNames {
			for _, network := range []string{"tcp", "udp"} {
				if !reaches(t, l.a, network, netip.AddrPortFrom(l.c.addrs[i], 80), true) {
					t.Fatalf("%s %s is not open with the old rules", familyNames[i], network)
				}
				streams = append(streams, newStream(t, l.a, network, netip.AddrPortFrom(l.c.addrs[i], 80)))
			}
		}
		stop := make(chan struct{})
		sent := flood(t, l.a, l.c, 90, stop)
		await(t, 5*time.Second, "packets are tried", func() bool { return sent.Load() > 100 })
		apply(t, d, s.wish())
		n := sent.Load()
		await(t, 5*time.Second, "packets are tried after it", func() bool { return sent.Load() > n+100 })
		close(stop)
		if n := passed.Load(); n != 0 {
			t.Errorf("%d packets passed", n)
		}
		for _, s := range streams {
			if s.quiet(300 * time.Millisecond) {
				t.Errorf("%s broke", s.name)
			}
		}
		inSync(t, d)
		for i, cmd := range cmds(d) {
			if out := run(t, cmd, "-S"); strings.Contains(out, "NG-PLO-") || strings.Contains(out, "-old-") || strings.Contains(out, formatChain(1)) || strings.Count(out, "-j "+chainInput) != 1 {
				t.Errorf("left of the old %s rules:\n%s", familyNames[i], out)
			}
		}
		if sets := run(t, "ipset", "list", "-n"); strings.Contains(sets, "-old-") {
			t.Errorf("sets: %s", sets)
		}
		if err := d.Cleanup(t.Context()); err != nil {
			t.Error(err)
		}
		same(t, "after a cleanup", before, all(t))
	})
}

// older lays rules as another version may have: the same policy in other chains and
// other sets, with other jumps to them.
func older(t *testing.T, cmds [2]string, l *lab) {
	t.Helper()
	for i, cmd := range cmds {
		set := netpolicy.SetPrefix(i == 1) + "old-aaaaaaaaaaaa"
		run(t, "ipset", "create", set, "hash:net", "family", [2]string{"inet", "inet6"}[i])
		for _, n := range []*node{l.b, l.c} {
			run(t, "ipset", "add", set, n.addrs[i].String())
		}
		for _, args := range []string{
			"-N NG-FORMAT-1", "-N NG-PLO-aaaaaaaaaaaa",
			"-N NG-FORWARD", "-N NG-INPUT", "-N NG-OUTPUT",
			"-A NG-PLO-aaaaaaaaaaaa -p tcp --dport 80 -s " + l.a.addrs[i].String() + " -j RETURN",
			"-A NG-PLO-aaaaaaaaaaaa -p udp --dport 80 -s " + l.a.addrs[i].String() + " -j RETURN",
			"-A NG-PLO-aaaaaaaaaaaa -j DROP",
			"-A NG-FORWARD -m conntrack --ctstate ESTABLISHED -j RETURN",
			"-A NG-FORWARD -m set --match-set " + set + " dst -g NG-PLO-aaaaaaaaaaaa",
			"-A NG-OUTPUT -m conntrack --ctstate NEW -m set --match-set " + set + " dst -j DROP",
			"-I FORWARD 1 -m comment --comment netguard -j NG-FORWARD",
			"-I INPUT 1 -j NG-INPUT", "-I OUTPUT 1 -j NG-OUTPUT",
		} {
			run(t, cmd, strings.Fields(args)...)
		}
	}
}
