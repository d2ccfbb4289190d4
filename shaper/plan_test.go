package shaper_test

import (
	"slices"
	"testing"

	"netguard/shaper"
)

// TestDiffBesideForeignFilters: a filter of netguard's leads nowhere at no time, and a foreign
// filter keeps its qdisc.
func TestDiffBesideForeignFilters(t *testing.T) {
	tree := shaper.Tree{}
	led := shaper.Endpoint{IFB: &shaper.State{Root: shaper.Root{Kind: "htb", Major: shaper.RootMajor}}, IngressQdisc: true, Ours: true, Redirect: true}
	with := func(e shaper.Endpoint, change func(*shaper.Endpoint)) shaper.Endpoint {
		change(&e)
		return e
	}
	mixed := with(led, func(e *shaper.Endpoint) { e.Stranger = true })
	foreign := with(mixed, func(e *shaper.Endpoint) { e.Ours, e.Redirect = false, false })
	for name, c := range map[string]struct {
		have        shaper.Endpoint
		none, limit []shaper.Op // without a limit, with one
		conflict    bool        // of a limit
	}{
		"ours_alone": {have: led, none: []shaper.Op{shaper.DeleteIngress, shaper.DeleteIFB}},
		"both":       {have: mixed, none: []shaper.Op{shaper.DeleteRedirect, shaper.DeleteIFB}},
		"both_and_the_IFB_is_gone": {have: with(mixed, func(e *shaper.Endpoint) { e.IFB, e.Redirect = nil, false }),
			none: []shaper.Op{shaper.DeleteRedirect}, limit: []shaper.Op{shaper.AddIFB, shaper.AddRoot, shaper.AddRedirect}},
		"both_and_ours_leads_elsewhere": {have: with(mixed, func(e *shaper.Endpoint) { e.Redirect = false }),
			none: []shaper.Op{shaper.DeleteRedirect, shaper.DeleteIFB}, limit: []shaper.Op{shaper.AddRedirect}},
		"both_and_the_foreign_one_is_first": {have: with(mixed, func(e *shaper.Endpoint) { e.Before = true }),
			none: []shaper.Op{shaper.DeleteRedirect, shaper.DeleteIFB}, conflict: true},
		"foreign_alone":            {have: with(foreign, func(e *shaper.Endpoint) { e.IFB = nil }), conflict: true},
		"foreign_and_an_IFB_of_us": {have: foreign, none: []shaper.Op{shaper.DeleteIFB}, conflict: true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, wish := range []shaper.Wish{{}, {Egress: &tree}} {
				want := c.none
				if wish.Egress != nil {
					want = c.limit
				}
				var ops []shaper.Op
				for _, s := range shaper.Diff(c.have, wish) {
					ops = append(ops, s.Op)
				}
				if !slices.Equal(ops, want) {
					t.Errorf("with a limit: %t: steps are %v, want %v", wish.Egress != nil, shaper.Diff(c.have, wish), want)
				}
				_, out := shaper.Conflicts(c.have, wish)
				if out != (wish.Egress != nil && c.conflict) {
					t.Errorf("with a limit: %t: conflict: %t", wish.Egress != nil, out)
				}
			}
		})
	}
}
