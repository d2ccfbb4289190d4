package iptables

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
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
		// What was not there before is noted with one backend alone.
		mark := "-N " + madePrefix + "OUTPUT\n"
		golden(t, "ipv4.golden", strings.Replace(run(t, "iptables"+suffix, "-S"), mark, "", 1))
		golden(t, "ipv6.golden", strings.Replace(run(t, "ip6tables"+suffix, "-S"), mark, "", 1))
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
		if err := d.take(s); err != nil {
			t.Fatal(err)
		}
		// As if this version listed something in its own way.
		c := &d.layouts[0].static[0]
		last := len(c.rules) - 1
		c.rules[last] = strings.Replace(c.rules[last], "-j", "--jump", 1)
		if r := apply(t, d, s); !r.Rules {
			t.Errorf("nothing was written: %+v", r)
		}
		inSync(t, d)
		run(t, cmdOf(d, false), "-A", "DOCKER", "-s", "192.0.2.1", "-j", "DROP")
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
