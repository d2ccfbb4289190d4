package iptables

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func found(t *testing.T) *Programs {
	t.Helper()
	p, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProbeSamples(t *testing.T) {
	here := func() error {
		return trySamples(t.Context(), found(t).backends(new(int))[:1], 2, false)
	}
	// As it is in a service that may make no namespaces.
	for name, probe := range map[string]func() error{"apart": func() error { return found(t).ProbeSamples(t.Context()) }, "here": here} {
		leavesNothing := func(t *testing.T) {
			t.Helper()
			before := all(t)
			if err := probe(); err != nil {
				t.Error(err)
			}
			same(t, "kernel", before, all(t))
		}
		t.Run(name+"/leaves_nothing_on_a_host_that_has_nothing", func(t *testing.T) {
			namespace(t)
			leavesNothing(t)
		})
		t.Run(name+"/leaves_nothing_among_rules_of_others_and_ours", func(t *testing.T) {
			namespace(t)
			strangers(t)
			docker(t, NFT)
			apply(t, open(t), states()[0].wish())
			leavesNothing(t)
		})
	}
	t.Run("says_what_is_missing", func(t *testing.T) {
		namespace(t)
		broken := []*backend{{kind: NFT, forked: new(int), fam: [2]programs{{save: "/bin/true", restore: "/bin/false"}}}}
		if err := trySamples(t.Context(), broken, 1, false); err == nil {
			t.Error("a program that always fails can do it")
		}
	})
}

func TestSamples(t *testing.T) {
	t.Run("come_before_the_counting_of_each_drop_and_nothing_else", func(t *testing.T) {
		rs := states()[0].rules()
		with, err := lay(&rs.V4, Options{Samples: true})
		without, errWithout := lay(&rs.V4, Options{})
		if err := errors.Join(err, errWithout); err != nil {
			t.Fatal(err)
		}
		samples := 0
		for n, c := range with.generation {
			rules := slices.DeleteFunc(slices.Clone(c.rules), func(r string) bool { return strings.Contains(r, "NFLOG") })
			samples += len(c.rules) - len(rules)
			if diff := cmp.Diff(without.generation[n].rules, rules); diff != "" {
				t.Error(diff)
			}
			for i, r := range c.rules {
				if strings.Contains(r, "NFLOG") && (!strings.Contains(c.rules[i+1], "-denied ") || !strings.HasSuffix(c.rules[i+2], "-j DROP")) {
					t.Errorf("%s rule %d is not before a drop", c.name, i)
				}
			}
		}
		if samples == 0 {
			t.Error("no samples")
		}
	})
	t.Run("are_put_into_rules_of_before_without_a_gap_and_taken_out_again", func(t *testing.T) {
		namespace(t)
		strangers(t)
		docker(t, NFT)
		w := states()[0].wish()
		d := open(t)
		apply(t, d, w)
		want := all(t)
		older, err := Open(t.Context(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(older.Close)
		if r := apply(t, older, w); !r.Rules || len(r.Drift) > 0 || strings.Contains(all(t), "NFLOG") {
			t.Errorf("%+v", r)
		}
		newer := open(t)
		if r := apply(t, newer, w); !r.Rules || len(r.Drift) > 0 {
			t.Errorf("%+v", r)
		}
		if diff := cmp.Diff(want, all(t)); diff != "" {
			t.Error(diff)
		}
	})
}
