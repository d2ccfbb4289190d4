package iptables

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// watcher is a Driver in monitor mode.
func watcher(t *testing.T) *Driver {
	t.Helper()
	d, err := Open(context.Background(), Options{Samples: true, Monitor: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// ours are the rules of netguard's chains.
func ours(t *testing.T) (all []string) {
	t.Helper()
	for _, cmd := range []string{"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"} {
		for line := range strings.Lines(run(t, cmd)) {
			if rest, ok := strings.CutPrefix(line, "-A "); ok {
				if chain, _, _ := strings.Cut(rest, " "); ownsChain(chain) {
					all = append(all, strings.TrimSpace(line))
				}
			}
		}
	}
	return all
}

func TestMonitorMode(t *testing.T) {
	drops := func(r string) bool { return strings.Contains(r, "-j DROP") || strings.Contains(r, "-j REJECT") }
	forBackends(t, "no_rule_drops", func(t *testing.T) {
		before := all(t)
		w := watcher(t)
		for _, s := range states() {
			apply(t, w, s.wish())
			inSync(t, w)
			rules := ours(t)
			if i := slices.IndexFunc(rules, drops); i >= 0 {
				t.Errorf("in monitor mode: %s", rules[i])
			}
		}
		s := states()[0]
		apply(t, w, s.wish())
		counts := func(r string) bool { return strings.Contains(r, "-denied ") }
		rules := ours(t)
		n := len(slices.DeleteFunc(slices.Clone(rules), func(r string) bool { return !counts(r) }))
		d := open(t)
		if r := apply(t, d, s.wish()); !r.Generation || r.Forks > 12 {
			t.Errorf("the switch: %+v", r)
		}
		inSync(t, d)
		if rules := ours(t); slices.ContainsFunc(rules, func(r string) bool { return strings.Contains(r, "NGM") }) || !slices.ContainsFunc(rules, drops) {
			t.Errorf("after the switch: %q", rules)
		} else if m := len(slices.DeleteFunc(rules, func(r string) bool { return !counts(r) })); m != n || n == 0 {
			t.Errorf("%d rules count, and %d in monitor mode", m, n)
		}
		// As two agents of one host would see it.
		if drift, err := w.Verify(t.Context()); err != nil || len(drift.Changes) == 0 {
			t.Errorf("a driver in the other mode sees no difference (%v)", err)
		}
		apply(t, w, s.wish())
		if err := w.Cleanup(t.Context()); err != nil {
			t.Error(err)
		}
		same(t, "after a cleanup", before, all(t))
	})
	forLabs(t, "passes_and_is_counted", func(t *testing.T, l *lab) {
		w := watcher(t)
		for _, port := range []uint16{80, 90} {
			serve(t, l.b, port)
			serve(t, l.c, port)
			serve(t, nil, port)
		}
		s := policy("a", []*node{l.a}, []*node{l.b, l.c}, 80)
		apply(t, w, s.wish())
		if _, err := w.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		for i := range familyNames {
			for _, network := range []string{"tcp", "udp"} {
				for _, end := range []struct{ from, to *node }{{l.a, l.c}, {l.a, l.b}, {l.c, l.b}, {nil, l.c}} {
					if !reaches(t, end.from, network, netip.AddrPortFrom(end.to.addrs[i], 90), true) {
						t.Errorf("%s %s to %v does not pass", familyNames[i], network, end.to.addrs[i])
					}
				}
			}
		}
		denied, err := w.Denied()
		if err != nil {
			t.Fatal(err)
		}
		for i := range familyNames {
			if denied[l.b.addrs[i]] < 4 || denied[l.c.addrs[i]] < 4 || denied[l.a.addrs[i]] != 0 {
				t.Errorf("denied = %v", denied)
			}
		}
		if r, err := w.Cut(t.Context(), true, s.allows); err != nil || r != (CutReport{}) {
			t.Errorf("cut: %+v, %v", r, err)
		}
	})
	forLabs(t, "to_and_fro_while_streams_run", func(t *testing.T, l *lab) {
		for _, port := range []uint16{80, 90} {
			serve(t, l.b, port)
			serve(t, l.c, port)
		}
		s := policy("a", []*node{l.a}, []*node{l.b, l.c}, 80)
		apply(t, open(t), s.wish())
		if _, err := open(t).Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		streams := func(port uint16) (all []*stream) {
			for i := range familyNames {
				for _, to := range []*node{l.b, l.c} {
					for _, network := range []string{"tcp", "udp"} {
						all = append(all, newStream(t, l.a, network, netip.AddrPortFrom(to.addrs[i], port)))
					}
				}
			}
			return all
		}
		kept := streams(80)
		for range 2 {
			apply(t, watcher(t), s.wish())
			denied := streams(90)
			d := open(t)
			apply(t, d, s.wish())
			start := time.Now()
			cut(t, d, s.allows)
			allStop(t, denied, start)
		}
		allGoOn(t, kept)
	})
}
