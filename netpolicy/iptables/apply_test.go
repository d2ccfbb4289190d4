package iptables

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, have string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(have), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	same(t, name, string(want), have)
}

func TestApply(t *testing.T) {
	forBackends(t, "writes_what_is_expected", func(t *testing.T) {
		d := open(t)
		apply(t, d, states()[0].wish())
		inSync(t, d)
		suffix := map[Backend]string{NFT: "-nft", Legacy: "-legacy"}[d.Backend()]
		golden(t, "ipv4.golden", run(t, "iptables"+suffix, "-S"))
		golden(t, "ipv6.golden", run(t, "ip6tables"+suffix, "-S"))
		lines := strings.Split(run(t, "ipset", "save"), "\n")
		for i, l := range lines { // what the kernel drew
			lines[i], _, _ = strings.Cut(l, " bucketsize")
		}
		slices.Sort(lines)
		golden(t, "ipset.golden", strings.Join(lines, "\n"))
	})
	forBackends(t, "does_nothing_the_second_time", func(t *testing.T) {
		d := open(t)
		w := states()[0].wish()
		apply(t, d, w)
		before := all(t)
		again := states()[0].wish() // equal, and not the same memory
		if r := apply(t, d, again); r.Changed() || r.Forks != 0 || r.Messages != 0 {
			t.Errorf("the second time did %+v", r)
		}
		same(t, "kernel", before, all(t))
		inSync(t, d)
	})
	forBackends(t, "adopts_what_it_finds", func(t *testing.T) {
		apply(t, open(t), states()[0].wish())
		run(t, "ipset", "add", "ng4-cut", "10.77.0.1,tcp:80,10.77.0.3")
		before := all(t)
		second := open(t)
		r := apply(t, second, states()[0].wish())
		if r.Changed() || r.Messages != 0 || len(r.Drift) != 0 {
			t.Errorf("adoption did %+v", r)
		}
		same(t, "kernel", before, all(t))
		if r := apply(t, second, states()[1].wish()); r.Rules || r.Forks != 0 || r.Added == 0 || r.Deleted == 0 {
			t.Errorf("a change of members after adoption did %+v", r)
		}
		inSync(t, second)
	})
	forBackends(t, "ends_where_it_should_whatever_the_path", func(t *testing.T) {
		want := make([]string, len(states()))
		for i, s := range states() {
			namespaceLike(t, func() {
				apply(t, open(t), s.wish())
				want[i] = sorted(all(t))
			})
		}
		d := open(t)
		rng := rand.New(rand.NewPCG(3, 4))
		for range 25 {
			i := rng.IntN(len(want))
			if rng.IntN(4) == 0 {
				d = open(t) // a restart in between
			}
			apply(t, d, states()[i].wish())
			inSync(t, d)
			if have := sorted(all(t)); have != want[i] {
				same(t, "kernel", want[i], have)
				return
			}
		}
	})
	forBackends(t, "forks_nothing_for_a_container", func(t *testing.T) {
		d := open(t)
		s := states()[0]
		apply(t, d, s.wish())
		s.web = many(2)[:2]
		apply(t, d, s.wish())
		s.web = many(2)
		r := apply(t, d, s.wish())
		if r.Forks != 0 || r.Rules || r.Messages > 4 {
			t.Errorf("one container more did %+v", r)
		}
		inSync(t, d)
	})
	forBackends(t, "knows_another_wording_of_iptables", func(t *testing.T) {
		d := open(t)
		s := states()[0].wish()
		apply(t, d, s)
		// As if this version listed something in its own way.
		c := &d.layouts[0].static[0]
		c.rules[0] = strings.Replace(c.rules[0], "RELATED,ESTABLISHED", "ESTABLISHED,RELATED", 1)
		if drift, err := d.Verify(context.Background()); err != nil || len(drift) != 1 {
			t.Fatalf("drift = %q, %v", drift, err)
		}
		if r := apply(t, d, s); !r.Rules {
			t.Errorf("nothing was written: %+v", r)
		}
		inSync(t, d)
		if r := apply(t, d, s); r.Changed() {
			t.Errorf("the second time did %+v", r)
		}
	})
}

// sorted makes listings of sets comparable: the kernel lists members as they fall.
func sorted(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i], _, _ = strings.Cut(l, " bucketsize")
		if before, _, ok := strings.Cut(lines[i], " hashsize"); ok {
			lines[i] = before
		}
	}
	at := slices.Index(lines, "== ipset")
	slices.Sort(lines[at:])
	return strings.Join(lines, "\n")
}

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
		if _, err := open(t).Apply(ctx, states()[0].wish()); !errors.Is(err, ErrStranger) {
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
		namespace(t)
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
		run(t, cmd, "-D", "DOCKER", "-j", "NG-F-aaaaaaaaaaaa")
		apply(t, d, states()[3].wish())
		inSync(t, d)
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

func TestLay(t *testing.T) {
	tests := map[string]func(*netpolicy.Family){
		"a_set_by_another_name":     func(f *netpolicy.Family) { f.Sets[0].Name = "x src -j ACCEPT" },
		"a_set_of_the_other_family": func(f *netpolicy.Family) { f.Sets[0].Name = strings.Replace(f.Sets[0].Name, "ng4", "ng6", 1) },
		"a_chain_by_another_name":   func(f *netpolicy.Family) { f.Chains[0].Name = "INPUT" },
		"a_chain_twice":             func(f *netpolicy.Family) { f.Chains[1].Name = f.Chains[0].Name },
		"an_unknown_set":            func(f *netpolicy.Family) { f.Chains[0].Rules[0].Sets[0].Set = "ng4-s-bbbbbbbbbbbbbbbb" },
		"an_unknown_target":         func(f *netpolicy.Family) { f.Chains[1].Rules[0].Goto = "NG-FI-bbbbbbbbbbbb" },
		"a_loop":                    func(f *netpolicy.Family) { f.Chains[1].Rules[0].Goto = f.Chains[1].Name },
		"an_unknown_entry":          func(f *netpolicy.Family) { f.Entry[1] = "INPUT" },
		"a_protocol_it_has_not": func(f *netpolicy.Family) {
			f.Chains[0].Rules[1].Proto = netpolicy.ICMPv6
			f.Chains[0].Rules[1].Ports = nil
		},
		"ports_without_a_protocol":   func(f *netpolicy.Family) { f.Chains[0].Rules[1].Proto = 0 },
		"ports_of_one_without_ports": func(f *netpolicy.Family) { f.Chains[0].Rules[1].Proto = netpolicy.ICMP },
	}
	for name, spoil := range tests {
		t.Run("refuses/"+name, func(t *testing.T) {
			rs := states()[0].rules()
			spoil(&rs.V4)
			if _, err := lay(&rs.V4, 600); !errors.Is(err, ErrInvalid) {
				t.Errorf("error = %v", err)
			}
		})
	}
}
