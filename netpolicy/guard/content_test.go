package guard

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestContents has the kernel give back all rules that netguard can write there: they
// are recognised without having been learned.
func TestContents(t *testing.T) {
	h := newHost(t, 0)
	can, err := Probe()
	h.check(err)
	recognised := func(t *testing.T, f *filter, want map[string]string) {
		t.Helper()
		s, _, err := f.read()
		h.check(err)
		if d := cmp.Diff(want, s.rules); d != "" {
			t.Errorf("(-written +read):\n%s", d)
		}
		h.check(f.remove())
	}
	for name, o := range map[string]Options{"enforce": {Storm: DefaultStorm}, "monitor": {Mode: Monitor}, "open": {Storm: Storm{Rate: 1, Burst: 1}, Open: true}} {
		for tier, with := range map[string]Features{"all": can, "least": {}, "prefixes": {Prefixes: true}, "samples": {Samples: true}} {
			h.run(t, "of_the_guard_"+name+"_with_"+tier, func(t *testing.T) {
				f, err := openFilter(bridgeFamily, TableName)
				h.check(err)
				defer f.close()
				l, err := newLayout(o, with)
				h.check(err)
				h.check(f.commit(diffTable(&l, nil, &tableState{}), l.sets))
				recognised(t, f, l.lines)
			})
		}
	}
	for name, mode := range map[string]Mode{"enforce": Enforce, "monitor": Monitor} {
		h.run(t, "of_limits_"+name, func(t *testing.T) {
			f, err := openFilter(limitFamily, TableName)
			h.check(err)
			defer f.close()
			p := &plan{mode: mode, ports: map[int]*portPlan{}}
			for i, n := range []uint32{1, 500, exactBelow, 100_000, 1 << 30} {
				p.ports[i] = &portPlan{Port: Port{Connections: n}, state: Admitted}
			}
			w := p.limits().diff(limitFamily, limitSets(), &tableState{})
			h.check(f.commit(w, limitSets()))
			recognised(t, f, w.layout.lines)
		})
	}
}

// TestContent tells rules apart whose comments are the same.
func TestContent(t *testing.T) {
	rules := map[string]rule{
		"drop": {exprs: match{drop}}, "accept": {exprs: match{accept}}, "goto": {exprs: match{goTo("a")}}, "elsewhere": {exprs: match{goTo("b")}},
		"nothing": {}, "in": {exprs: in(setQuarantined, inPort)}, "not in": {exprs: notIn(setQuarantined, inPort)}, "in another": {exprs: in(setKnown, inPort)},
		"of who gets it": {exprs: in(setQuarantined, outPort)}, "zero": {exprs: etherType.is(0, 0)}, "shorter": {exprs: etherType.is(0)},
		"not": {exprs: etherType.isNot(0, 0)}, "masked": {exprs: etherType.anyBit(1, 0)}, "otherwise": {exprs: etherType.anyBit(0, 1)},
		"rate": {exprs: over(Storm{Rate: 1, Burst: 2})}, "burst": {exprs: over(Storm{Rate: 1, Burst: 3})}, "another rate": {exprs: over(Storm{Rate: 256, Burst: 2})},
		"count": {exprs: count(kindMAC)}, "count another": {exprs: count(kindARP)},
		"limit": {exprs: ipFamilies[0].over(500)}, "limit 2": {exprs: ipFamilies[0].over(501)}, "shares": {exprs: ipFamilies[0].over(5000)},
	}
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		text := rules[name].content()
		if other, ok := seen[text]; ok || strings.Contains(text, "error") {
			t.Errorf("%s reads as %s: %s", name, other, text)
		}
		seen[text] = name
	}
}

// TestLearn is about a kernel that gives back other words than are known here: rules
// are not written again for that, by the agent that wrote them.
func TestLearn(t *testing.T) {
	h := newHost(t, 1)
	d := h.driver()
	w := h.wish()
	w.edit(0).Connections = 500
	l, err := newLayout(w.Options, d.features)
	h.check(err)
	for chain, text := range l.lines {
		l.lines[chain] = strings.ReplaceAll(text, "lookup", "other words")
	}
	d.layout = l
	h.apply(d, w)
	if len(d.filter.learned) == 0 {
		t.Error("nothing was learned")
	}
	run(t, "nft", "flush chain bridge netguard prerouting")
	h.apply(d, w)
	run(t, "sh", "-c", replaced("bridge", "refuse", "enforce", "accept"))
	if r, err := d.Read(Everything); err != nil || r.Changes == 0 {
		t.Errorf("a rule that was replaced is taken for a known one: %+v, %v", r, err)
	}
}

// TestReplacedMeanwhile has rules replaced while no agent runs.
func TestReplacedMeanwhile(t *testing.T) {
	h := newHost(t, 1)
	d := h.driver()
	w := h.wish()
	w.edit(0).Connections = 5000
	h.apply(d, w)
	d.Close()
	before := h.state()
	for _, family := range []string{"bridge", "inet"} {
		run(t, "sh", "-c", replaced(family, "refuse", "enforce", "accept"))
		if r, err := h.driver().Apply(w, Look{}); err != nil || r.Changes != 1 {
			t.Errorf("%s: %d changes, %v", family, r.Changes, err)
		}
		differ(t, before, h.state(), "not healed")
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add(append([]byte{6, 0, 7, 0, 0, 9, 0, 0}, 5, 0, 2, 0, 'a', 0, 0, 0, 12, 0, 4, 0, 8, 0, 1, 0, 4, 0, 1, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, text, err := parseRule(data)
		if err == nil && len(text) > 8*len(data)+16 {
			t.Errorf("%d bytes became %d", len(data), len(text))
		}
	})
}

// TestChainElsewhere has a chain hang elsewhere than it did: where it hangs cannot be
// changed, and the table stays.
func TestChainElsewhere(t *testing.T) {
	h := newHost(t, 1)
	d := h.driver()
	w := h.wish()
	w.edit(0).Connections = 500
	h.apply(d, w)
	for _, c := range []struct{ table, chain, place, not string }{
		{"bridge netguard", "output", "hook output priority 7", "hook output priority -400"}, {"inet netguard", "forward", "hook forward priority 7", "hook forward priority 5"},
	} {
		run(t, "nft", fmt.Sprintf("flush chain %[1]s %[2]s; delete chain %[1]s %[2]s; add chain %[1]s %[2]s { type filter %[3]s; }", c.table, c.chain, c.place))
		r, err := d.Apply(w, Look{})
		h.check(err)
		if len(r.Drift) == 0 {
			t.Errorf("%s: nothing was told of it", c.table)
		}
		got := output(t, "nft", append([]string{"-n", "list", "chain"}, append(strings.Fields(c.table), c.chain)...)...)
		if !strings.Contains(got, c.not) || strings.Count(got, "\n") < 6 {
			t.Errorf("not healed:\n%s", got)
		}
		h.apply(d, w)
	}
}
