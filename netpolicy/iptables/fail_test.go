package iptables

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

func TestApplyFails(t *testing.T) {
	ctx := context.Background()
	// broken is a rule set with a match that iptables refuses, in one family.
	broken := func(ipv6 bool) Wish {
		w := states()[3].wish()
		f := w.Rules.Families()[index(ipv6)]
		chain := &f.Chains[0]
		for i := range chain.Rules {
			if p := chain.Rules[i].Proto; p == netpolicy.ICMP || p == netpolicy.ICMPv6 {
				chain.Rules[i].ICMPType = 300
			}
		}
		return w
	}
	for _, ipv6 := range []bool{false, true} {
		forBackends(t, "leaving_the_old_whole/refused_"+familyNames[index(ipv6)], func(t *testing.T) {
			d := open(t)
			apply(t, d, states()[0].wish())
			before := all(t)
			w := broken(ipv6)
			// Members are the old ones, so that nothing but the rules changes.
			_, err := d.Apply(ctx, w)
			var refused *RestoreError
			if !errors.As(err, &refused) {
				t.Fatalf("error = %v", err)
			}
			if line := strings.Split(refused.Input, "\n")[refused.Line-1]; !strings.Contains(line, "-type 300") ||
				!strings.Contains(err.Error(), "-type 300") {
				t.Errorf("line %d: %q, error: %v", refused.Line, line, err)
			}
			same(t, "rules", rulesOf(before), rulesOf(all(t)))
			same(t, "names of sets", strings.Join(setsOf(before), "\n"), strings.Join(setsOf(all(t)), "\n"))
			apply(t, d, states()[3].wish())
			inSync(t, d)
		})
	}
	forBackends(t, "opening_nothing", func(t *testing.T) {
		d := open(t)
		s := states()[0]
		s.web = many(1)
		apply(t, d, s.wish())
		w := broken(false) // allows more of web, closes more of db
		if _, err := d.Apply(ctx, w); err == nil {
			t.Fatal("no error")
		}
		if out := run(t, "ipset", "save", "ng4-sw-"+setTail); strings.Contains(out, "10.77.0.2") {
			t.Errorf("a member was added to what allows:\n%s", out)
		}
	})
	forBackends(t, "leaving_the_old_whole/a_set_is_full", func(t *testing.T) {
		d := open(t)
		apply(t, d, states()[0].wish())
		run(t, "ipset", "create", "ng4-ii-dddddddddddd", "hash:ip", "maxelem", "100")
		before := all(t)
		d = open(t) // one that has to adopt it
		_, err := d.Apply(ctx, states()[5].wish())
		if !errors.Is(err, ErrSetFull) || !strings.Contains(err.Error(), "ng4-ii-dddddddddddd") {
			t.Fatalf("error = %v", err)
		}
		same(t, "rules", rulesOf(before), rulesOf(all(t)))
		run(t, "ipset", "destroy", "ng4-ii-dddddddddddd")
		apply(t, d, states()[5].wish())
		inSync(t, d)
	})
	forBackends(t, "at_a_set_of_somebody_else", func(t *testing.T) {
		run(t, "ipset", "create", "ng6-ii-aaaaaaaaaaaa", "hash:net", "family", "inet6")
		before := all(t)
		if _, err := open(t).Apply(ctx, states()[0].wish()); !errors.Is(err, ErrForeign) {
			t.Errorf("error = %v", err)
		}
		same(t, "kernel", before, all(t))
	})
	forBackends(t, "when_its_context_ends", func(t *testing.T) {
		d := open(t)
		apply(t, d, states()[0].wish())
		before := all(t)
		over, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := d.Apply(over, states()[3].wish()); !errors.Is(err, context.Canceled) {
			t.Errorf("error = %v", err)
		}
		same(t, "kernel", before, all(t))
	})
	t.Run("when_the_lock_is_held", func(t *testing.T) {
		alone(t) // its lock file is in the environment
		strangers(t)
		docker(t, Legacy)
		path := filepath.Join(t.TempDir(), "lock")
		t.Setenv("XTABLES_LOCKFILE", path)
		d, err := Open(ctx, Options{Wait: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		lock, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Apply(ctx, states()[0].wish()); !errors.Is(err, ErrLocked) {
			t.Errorf("error = %v", err)
		}
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
			t.Fatal(err)
		}
		apply(t, d, states()[0].wish())
		inSync(t, d)
	})
	forBackends(t, "in_nothing_else_when_a_stranger_holds_an_old_chain", func(t *testing.T) {
		d := open(t)
		apply(t, d, states()[0].wish())
		cmd := map[Backend]string{NFT: "iptables-nft", Legacy: "iptables-legacy"}[d.Backend()]
		run(t, cmd, "-A", "DOCKER", "-j", "NG-F-aaaaaaaaaaaa")
		if _, err := d.Apply(ctx, states()[3].wish()); err == nil {
			t.Error("nobody was told")
		}
		if out := run(t, cmd, "-S", "NG-FORWARD"); !strings.Contains(out, "NG-F-bbbbbbbbbbbb") {
			t.Errorf("the new rules are not in force:\n%s", out)
		}
		// It may do so for good: what changes later is in force all the same.
		for i := range 2 {
			s := states()[3]
			s.web = many(i + 1)
			r, err := d.Apply(ctx, s.wish())
			if err == nil || !r.InForce {
				t.Errorf("later: in force: %t, error %v", r.InForce, err)
			}
		}
		if out := run(t, "ipset", "save", "ng4-sw-"+setTail); !strings.Contains(out, "10.77.0.2") {
			t.Errorf("a member that came later is missing:\n%s", out)
		}
		run(t, cmd, "-D", "DOCKER", "-j", "NG-F-aaaaaaaaaaaa")
		apply(t, d, states()[3].wish())
		inSync(t, d)
	})
}

// A stranger's rule may name a set that goes.
func TestApplyWithAnOldSetInUse(t *testing.T) {
	forBackends(t, "", func(t *testing.T) {
		d := open(t)
		apply(t, d, states()[0].wish())
		before := setsOf(all(t))
		// The sets of the rules of before, of which one is named.
		apply(t, d, states()[5].wish())
		after := setsOf(all(t))
		var goes []string
		for _, name := range before {
			if !slices.Contains(after, name) && strings.HasPrefix(name, "ng4-") {
				goes = append(goes, name)
			}
		}
		apply(t, d, states()[0].wish())
		if len(goes) < 2 {
			t.Fatalf("sets that go: %v", goes)
		}
		cmd := map[Backend]string{NFT: "iptables-nft", Legacy: "iptables-legacy"}[d.Backend()]
		run(t, cmd, "-A", "DOCKER", "-m", "set", "--match-set", goes[0], "src,src", "-j", "RETURN")
		for i := range 2 {
			r, err := d.Apply(t.Context(), states()[5].wish())
			if !r.InForce || err == nil || !strings.Contains(err.Error(), goes[0]) {
				t.Errorf("in force: %t, error %v", r.InForce, err)
			}
			left := setsOf(all(t))
			if !slices.Contains(left, goes[0]) || slices.Contains(left, goes[1]) {
				t.Errorf("of %v there are %v", goes, left)
			}
			// Who waits for a set tries a dozen times to destroy it.
			if waited := r.Messages > 10; waited != (i == 0) {
				t.Errorf("time %d: it was waited for: %t (%d messages)", i+1, waited, r.Messages)
			}
		}
		run(t, cmd, "-F", "DOCKER")
		apply(t, d, states()[5].wish())
		inSync(t, d)
		if slices.Contains(setsOf(all(t)), goes[0]) {
			t.Errorf("%s is left", goes[0])
		}
	})
}

// A stranger's rule may lead to a chain, so that iptables removes none, and every set stays.
func TestCleanupWithAChainInUse(t *testing.T) {
	forBackends(t, "", func(t *testing.T) {
		d := open(t)
		apply(t, d, states()[0].wish())
		cmd := map[Backend]string{NFT: "iptables-nft", Legacy: "iptables-legacy"}[d.Backend()]
		run(t, cmd, "-A", "DOCKER", "-j", "NG-F-aaaaaaaaaaaa")
		start := time.Now()
		err := d.Cleanup(t.Context())
		took, left := time.Since(start), len(setsOf(all(t)))
		// There are a dozen, and each is waited for a second, all at the same time.
		if err == nil || left < 12 || took > 6*time.Second {
			t.Errorf("after %v %d sets are left: %v", took, left, err)
		}
		run(t, cmd, "-F", "DOCKER")
		if err := d.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := setsOf(all(t)); strings.Contains(strings.Join(left, " "), "ng4-") {
			t.Errorf("sets are left: %v", left)
		}
	})
}

func rulesOf(s string) string {
	rules, _, _ := strings.Cut(s, "== ipset")
	return rules
}

func setsOf(s string) []string {
	var names []string
	for line := range strings.Lines(s) {
		if name, ok := strings.CutPrefix(line, "create "); ok {
			names = append(names, strings.Fields(name)[0])
		}
	}
	return names
}
