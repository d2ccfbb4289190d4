package iptables

import (
	"strings"
	"testing"
)

// What iptables' nf_tables backend makes for netguard's rules goes with them.
func TestMade(t *testing.T) {
	prepared := func(t *testing.T) (*Driver, string) {
		t.Helper()
		namespace(t)
		// As dockerd leaves it that has nothing of INPUT and OUTPUT.
		run(t, "iptables-nft", "-N", "DOCKER-USER")
		run(t, "iptables-nft", "-A", "FORWARD", "-j", "DOCKER-USER")
		run(t, "nft", "add table ip6 filter; add chain ip6 filter OUTPUT { type filter hook output priority 0; policy accept; }")
		before := all(t)
		d := open(t)
		apply(t, d, states()[0].wish())
		if d.Backend() != NFT {
			t.Skipf("iptables of this machine is %s, whose tables are whole", d.Backend())
		}
		inSync(t, d)
		if now := run(t, "nft", "list", "ruleset"); strings.Count(now, "hook ") != 6 {
			t.Fatalf("not all of the kernel's chains are there:\n%s", now)
		}
		return d, before
	}
	clean := func(t *testing.T, d *Driver) {
		t.Helper()
		for range 2 {
			if err := d.Cleanup(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("goes_after_restarts_and_changes", func(t *testing.T) {
		d, before := prepared(t)
		for i := range states() {
			apply(t, open(t), states()[i].wish())
		}
		clean(t, d)
		same(t, "kernel", before, all(t))
	})
	t.Run("goes_when_somebody_flushed_what_was_in_it", func(t *testing.T) {
		d, before := prepared(t)
		run(t, "iptables-nft", "-F", "INPUT")
		run(t, "nft", "flush chain ip filter OUTPUT; delete chain ip filter OUTPUT")
		apply(t, open(t), states()[0].wish())
		clean(t, d)
		same(t, "kernel", before, all(t))
	})
	t.Run("goes_when_a_clean-up_ended_half-way", func(t *testing.T) {
		d, before := prepared(t)
		k, err := d.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, table := range k.tables {
			if err := k.active.write(t.Context(), i, transaction(nil, table.removals())); err != nil {
				t.Fatal(err)
			}
		}
		clean(t, open(t))
		same(t, "kernel", before, all(t))
	})
	t.Run("goes_when_Docker_moves_to_the_other_backend", func(t *testing.T) {
		namespace(t)
		d := open(t)
		apply(t, d, states()[0].wish())
		if d.Backend() != NFT {
			t.Skipf("iptables of this machine is %s, whose tables are whole", d.Backend())
		}
		run(t, "iptables-legacy", "-N", "DOCKER-USER")
		run(t, "iptables-legacy", "-A", "FORWARD", "-j", "DOCKER-USER")
		d = open(t)
		apply(t, d, states()[0].wish())
		if out := run(t, "nft", "list", "ruleset"); d.Backend() != Legacy || out != "" {
			t.Errorf("the backend is %s, and of the other one is left:\n%s", d.Backend(), out)
		}
	})
	t.Run("stays_where_somebody_else_uses_it_now", func(t *testing.T) {
		d, _ := prepared(t)
		run(t, "iptables-nft", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP")
		run(t, "iptables-nft", "-P", "OUTPUT", "DROP")
		clean(t, d)
		if out := run(t, "iptables-nft", "-S"); !strings.Contains(out, "-A INPUT -s 192.0.2.1/32 -j DROP") || !strings.Contains(out, "-P OUTPUT DROP") || strings.Contains(out, "NG-") {
			t.Errorf("left:\n%s", out)
		}
		if out := run(t, "nft", "list", "table", "ip6", "filter"); strings.Count(out, "hook ") != 1 {
			t.Errorf("left of IPv6:\n%s", out)
		}
	})
}
