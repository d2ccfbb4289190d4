package iptables

import (
	"context"
	"fmt"
	"testing"
)

func TestGlance(t *testing.T) {
	glance := func(t *testing.T, d *Driver) bool {
		t.Helper()
		forks := d.forked
		changed, err := d.Glance()
		if err != nil {
			t.Fatal(err)
		}
		if d.forked != forks {
			t.Errorf("%d forks", d.forked-forks)
		}
		return changed
	}
	v4 := func(d *Driver, args ...string) func(*testing.T) {
		return func(t *testing.T) { run(t, cmdOf(d, false), args...) }
	}
	forBackends(t, "sees", func(t *testing.T) {
		d := open(t)
		if glance(t, d) {
			t.Error("something, where nothing was applied")
		}
		w := states()[0].wish()
		apply(t, d, w)
		if glance(t, d) {
			t.Error("something after Apply")
		}
		legacy := d.Backend() == Legacy
		for _, c := range []struct {
			name string
			do   func(*testing.T)
			sees bool
		}{
			{"a set that is flushed", func(t *testing.T) { run(t, "ipset", "flush", "ng4-ii-aaaaaaaaaaaa") }, true},
			{"a member too many", func(t *testing.T) { run(t, "ipset", "add", "ng6-sw-aaaaaaaaaaaaaaaa", "2001:db8::bad") }, true},
			{"a stranger's set", func(t *testing.T) { run(t, "ipset", "create", "other", "hash:ip") }, false},
			// The kernel tells of rules of nftables.
			{"rules that are flushed", v4(d, "-F", "NG-FORWARD"), legacy},
			{"a jump that is gone", v4(d, "-F", "DOCKER-USER"), legacy},
			{"a rule of IPv6 before it", func(t *testing.T) { run(t, cmdOf(d, true), "-I", "FORWARD", "-j", "ACCEPT") }, legacy},
		} {
			c.do(t)
			if got := glance(t, d); got != c.sees {
				t.Errorf("of %s it says %t", c.name, got)
			}
			if _, err := d.Verify(context.Background()); err != nil {
				t.Fatal(err)
			}
			apply(t, d, w)
			if glance(t, d) {
				t.Errorf("something after %s was repaired", c.name)
			}
		}
	})
}

// BenchmarkGlance is what the look every two seconds costs.
func BenchmarkGlance(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			namespace(b)
			d := open(b)
			apply(b, d, wishOf(shopOf(n)))
			defer measured(b)()
			for b.Loop() {
				if changed, err := d.Glance(); err != nil || changed {
					b.Fatal(changed, err)
				}
			}
		})
	}
}

// TestDriversOfSamePrograms: what one Driver read, another one need not read, and it sees what
// changed since.
func TestDriversOfSamePrograms(t *testing.T) {
	forBackends(t, "sees", func(t *testing.T) {
		programs := found(t)
		another := func() *Driver {
			d, err := Open(t.Context(), Options{Samples: true, Programs: programs})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(d.Close)
			return d
		}
		writer, w := another(), states()[0].wish()
		apply(t, writer, w)
		reader := another()
		if err := reader.Expect(w); err != nil {
			t.Fatal(err)
		}
		inSync(t, reader)
		if reader.forked != 0 {
			t.Errorf("%d forks to read what was read", reader.forked)
		}
		run(t, cmdOf(writer, true), "-D", "NG-FORWARD", "1")
		for name, d := range map[string]*Driver{"reader": reader, "writer": writer} {
			if drift, err := d.Verify(t.Context()); err != nil || len(drift.Changes) == 0 {
				t.Errorf("the %s finds %q (%v), of a rule that is gone", name, drift.Changes, err)
			}
		}
		apply(t, writer, w)
		inSync(t, reader)
	})
}

// TestExchangedMember: a look finds a member that somebody exchanged, in a set of one message and
// of several, also if earlier looks found nothing and parsed little.
func TestExchangedMember(t *testing.T) {
	namespace(t)
	d := open(t)
	w := states()[5].wish()
	apply(t, d, w)
	for range 2 {
		inSync(t, d)
	}
	long := 0
	for set, held := range d.held {
		if held.typ != hashIP || held.elements == 0 {
			continue
		}
		all, err := d.sets.members(set)
		if err != nil {
			t.Fatal(err)
		}
		long = max(long, len(all))
		for _, e := range []element{all[0], all[len(all)/2], all[len(all)-1]} {
			other := map[bool]string{true: "192.0.2.77", false: "2001:db8::bad"}[e.Prefix.Addr().Is4()]
			run(t, "ipset", "del", set, e.Prefix.Addr().String())
			run(t, "ipset", "add", set, other)
			if drift, err := d.Verify(t.Context()); err != nil || len(drift.Changes) == 0 {
				t.Errorf("%s instead of %s in %s: found %q, %v", other, e.Prefix, set, drift.Changes, err)
			}
			apply(t, d, w)
			inSync(t, d)
		}
	}
	if long < 1000 {
		t.Errorf("no set has more than %d members", long)
	}
}
