package guard

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// replaced is a command that has a rule do something else, under its comment.
func replaced(family, chain, comment, does string) string {
	return fmt.Sprintf(`h=$(nft -a list chain %[1]s netguard %[2]s | sed -n 's/.*comment "%[3]s" # handle //p') &&
		nft "replace rule %[1]s netguard %[2]s handle $h %[4]s comment \"%[3]s\""`, family, chain, comment, does)
}

// TestDrift has somebody else change what the guard made, in one way after the
// other. Reading tells, the next Apply heals.
func TestDrift(t *testing.T) {
	h := newHost(t, 3)
	a := h.boxes[0]
	d := h.driver()
	w := h.wish()
	w.edit(0).Allow, _ = ParseAllow("10.0.0.0/8")
	w.edit(2).Admitted = false
	w.edit(0).Connections = 500
	h.apply(d, w)
	want := h.state()
	for name, cmd := range map[string]string{
		"nothing":                         "",
		"the whole rule set is flushed":   "nft flush ruleset",
		"the table is deleted":            "nft delete table bridge netguard",
		"the table is put to sleep":       "nft add table bridge netguard { flags dormant; }",
		"the rules are flushed":           "nft flush table bridge netguard",
		"a rule is put before others":     "nft insert rule bridge netguard frame accept",
		"a rule is added":                 "nft add rule bridge netguard refuse counter",
		"a rule keeps but its comment":    replaced("bridge", "refuse", "enforce", "accept"),
		"a limit keeps but its comment":   replaced("inet", "refuse", "enforce", "accept"),
		"another keeps a part":            replaced("bridge", "frame", "not admitted yet", "iif @ports goto refuse-quarantine"),
		"a limit's rule is added":         "nft insert rule inet netguard forward accept",
		"a limit's chain is flushed":      "nft flush chain inet netguard max-500",
		"a chain is flushed":              "nft flush chain bridge netguard prerouting",
		"a policy is changed":             "nft chain bridge netguard prerouting { policy drop; }",
		"an address is taken away":        "nft delete element bridge netguard v4 { box0 . 02:42:ac:1e:00:02 . 172.30.0.2 }",
		"an address is given":             "nft add element bridge netguard v4 { box0 . 02:42:ac:1e:00:02 . 172.30.0.3 }",
		"a prefix is given":               "nft add element bridge netguard net4 { box0 . 11.0.0.0/8 }",
		"a prefix is taken away":          "nft flush set bridge netguard net4",
		"a port is set free":              "nft flush set bridge netguard quarantined",
		"a port is not guarded":           "nft flush set bridge netguard ports",
		"a port is unlocked":              "bridge link set dev box0 locked off",
		"a port learns":                   "bridge link set dev box0 learning on",
		"a quarantined port is unlocked":  "bridge link set dev box2 locked off learning on flood on mcast_flood on bcast_flood on",
		"an FDB entry is deleted":         "bridge fdb del 02:42:ac:1e:00:02 dev box0 master",
		"an FDB entry goes elsewhere":     "bridge fdb replace 02:42:ac:1e:00:02 dev box1 master static",
		"an FDB entry is not sticky":      "bridge fdb replace 02:42:ac:1e:00:02 dev box0 master static",
		"a neighbour is deleted":          "ip neigh del 172.30.0.2 dev br-test",
		"a neighbour goes elsewhere":      "ip neigh replace 172.30.0.2 lladdr 02:42:ac:1e:00:03 dev br-test nud permanent",
		"a neighbour may be learned":      "ip neigh replace fd00:30::2 lladdr 02:42:ac:1e:00:02 dev br-test nud stale",
		"somebody has more of neighbours": "ip neigh add 172.30.0.99 lladdr 02:42:ac:1e:00:02 dev br-test nud permanent proto 110",
	} {
		h.run(t, strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			if cmd != "" {
				words := strings.Fields(cmd)
				switch words[0] {
				case "nft":
					words = []string{"nft", strings.TrimPrefix(cmd, "nft ")}
				case "h=$(nft":
					words = []string{"sh", "-c", cmd}
				}
				run(t, words[0], words[1:]...)
				if h.state() == want {
					t.Fatal("it changed nothing")
				}
			}
			broken := h.state()
			r, err := d.Read(Everything)
			h.check(err)
			if (r.Changes == 0) != (cmd == "") || (len(r.Drift) == 0) != (cmd == "") {
				t.Errorf("read tells of %d changes: %q", r.Changes, r.Drift)
			}
			differ(t, broken, h.state(), "reading changed something")
			again, err := d.Apply(w, Look{})
			h.check(err)
			if fmt.Sprint(again.Drift) != fmt.Sprint(r.Drift) {
				t.Errorf("apply tells of %q, read of %q", again.Drift, r.Drift)
			}
			differ(t, want, h.state(), "not healed")
			if after, err := d.Read(Everything); err != nil || after.Changes != 0 {
				t.Errorf("still %d changes (%q), %v", after.Changes, after.Drift, err)
			}
		})
	}
	h.run(t, "what_nobody_hinted_at_is_not_read", func(t *testing.T) {
		run(t, "bridge", "link", "set", "dev", a.name, "learning", "on")
		if r, err := d.Apply(w, Look{}); err != nil || r.Changes != 0 {
			t.Errorf("%d changes, %v", r.Changes, err)
		}
		r, err := d.Apply(w, Look{Links: map[int]struct{}{a.port: {}}})
		if err != nil || r.Changes != 1 || len(r.Drift) != 1 {
			t.Errorf("%d changes, %q, %v", r.Changes, r.Drift, err)
		}
	})
	h.run(t, "read_looks_at_tables_and_at_what_is_named", func(t *testing.T) {
		left := func(look Look, want int) {
			t.Helper()
			if r, err := d.Read(look); err != nil || r.Changes != want || len(r.Drift) != want {
				t.Errorf("%d changes (%q), %v, want %d", r.Changes, r.Drift, err, want)
			}
		}
		heal := func() {
			t.Helper()
			if r, err := d.Apply(w, Look{}); err != nil || len(r.Drift) != 1 {
				t.Errorf("%q, %v", r.Drift, err)
			}
			left(Everything, 0)
		}
		run(t, "bridge", "link", "set", "dev", a.name, "learning", "on")
		left(Look{}, 0)
		left(Look{Links: map[int]struct{}{a.port: {}}}, 1)
		heal()
		run(t, "nft", fmt.Sprintf("add element bridge netguard quarantined { %q }", a.name))
		left(Look{}, 1)
		heal()
		run(t, "ip", "neigh", "del", a.ip4.String(), "dev", bridgeName)
		left(Look{}, 0)
		left(Look{Neighbours: map[Neighbour]struct{}{{h.bridge, a.ip4}: {}}}, 1)
		heal()
	})
	h.run(t, "what_was_hinted_at_is_healed", func(t *testing.T) {
		at := func(addr string) Look {
			return Look{Neighbours: map[Neighbour]struct{}{{h.bridge, netip.MustParseAddr(addr)}: {}}}
		}
		pinned := Look{MACs: map[MAC]struct{}{a.mac: {}}}
		for cmd, look := range map[string]Look{
			"bridge fdb del 02:42:ac:1e:00:02 dev box0 master":                                      pinned,
			"bridge fdb replace 02:42:ac:1e:00:02 dev box1 master static":                           pinned,
			"bridge fdb replace 02:42:ac:1e:00:02 dev box0 master static":                           pinned,
			"ip neigh del 172.30.0.2 dev br-test":                                                   at("172.30.0.2"),
			"ip neigh replace 172.30.0.2 lladdr 02:42:ac:1e:00:03 dev br-test nud permanent":        at("172.30.0.2"),
			"ip neigh replace 172.30.0.2 lladdr 02:42:ac:1e:00:02 dev br-test nud stale":            at("172.30.0.2"),
			"ip neigh del fd00:30::2 dev br-test":                                                   at("fd00:30::2"),
			"ip neigh add 172.30.0.99 lladdr 02:42:ac:1e:00:02 dev br-test nud permanent proto 110": at("172.30.0.99"),
		} {
			words := strings.Fields(cmd)
			run(t, words[0], words[1:]...)
			if h.state() == want {
				t.Fatalf("%s changed nothing", cmd)
			}
			if r, err := d.Apply(w, look); err != nil || len(r.Drift) == 0 {
				t.Errorf("after %s: %+v, %v", cmd, r, err)
			}
			differ(t, want, h.state(), "not healed after "+cmd)
		}
	})
	h.run(t, "what_Earlier_read_is_healed", func(t *testing.T) {
		for _, nft := range []string{fmt.Sprintf("add element bridge netguard quarantined { %q }", a.name), "delete table bridge netguard"} {
			h.apply(d, w)
			run(t, "nft", nft)
			if e, err := d.Earlier(); err != nil || e.Admitted[a.port] {
				t.Errorf("after %s: %+v, %v", nft, e, err)
			}
			if r, err := d.Apply(w, Look{}); err != nil || r.Changes == 0 || len(r.Drift) != 1 {
				t.Errorf("after %s: %d changes, %q, %v", nft, r.Changes, r.Drift, err)
			}
			differ(t, want, h.state(), "not healed after "+nft)
		}
	})
	h.run(t, "but_the_table_always_is", func(t *testing.T) {
		run(t, "nft", "delete", "table", "bridge", "netguard")
		r, err := d.Apply(w, Look{})
		if err != nil || r.Changes == 0 || len(r.Drift) != 1 {
			t.Errorf("%d changes, %q, %v", r.Changes, r.Drift, err)
		}
		differ(t, want, h.state(), "not healed")
	})
	h.run(t, "counts_survive_a_new_table_of_the_agents", func(t *testing.T) {
		a.send(ether(broadcast, nobody, 0x800, ip4(a.ip4, a.ip4, 17, udpPacket(1, 2))))
		before := violations(t, d, a)
		if before.MAC == 0 {
			t.Fatal("nothing was counted")
		}
		w.Mode = Monitor
		h.apply(d, w)
		if after := violations(t, d, a); after != before {
			t.Errorf("counts were %+v, are %+v", before, after)
		}
	})
}
