package shaper_test

import (
	"slices"
	"testing"

	"netguard/shaper"
)

// flat is what the first version built, each class with its queue: a class for small
// packets and eight for hashes of flows.
func flat(rate uint64) shaper.State {
	s := shaper.State{Root: shaper.Root{Kind: "htb", Major: shaper.RootMajor, Default: 2},
		Classes: []shaper.Class{{Minor: 1, Rate: rate, Ceil: rate}, {Minor: 2, Parent: 1, Rate: rate / 2, Ceil: rate}}}
	for i := range uint16(8) {
		s.Classes = append(s.Classes, shaper.Class{Minor: 0x10 + i, Parent: 1, Rate: rate / 16, Ceil: rate})
	}
	return queued(s)
}

// wide is what the second one built: sixteen classes for small packets, as many for
// large ones.
func wide(rate uint64) shaper.State {
	s := shaper.State{Root: shaper.Root{Kind: "htb", Major: shaper.RootMajor, Default: 2},
		Classes: []shaper.Class{{Minor: 1, Rate: rate, Ceil: rate}, {Minor: 2, Parent: 1, Ceil: rate}, {Minor: 3, Parent: 1, Rate: rate / 2, Ceil: rate}}}
	for i := range uint16(16) {
		s.Classes = append(s.Classes, shaper.Class{Minor: 0x10 + i, Parent: 1, Ceil: rate}, shaper.Class{Minor: 0x20 + i, Parent: 3, Ceil: rate})
	}
	return queued(s)
}

func queued(s shaper.State) shaper.State {
	for _, c := range s.Classes[1:] {
		switch {
		case c.Minor == shaper.SmallMinor:
		case c.Parent == shaper.SmallMinor:
			s.Queues = append(s.Queues, shaper.Queue{Class: c.Minor, Kind: "bfifo", Limit: 20000})
		default:
			s.Queues = append(s.Queues, shaper.Queue{Class: c.Minor, Kind: "tbf", Limit: 20000})
		}
	}
	return s
}

func TestEarlierTrees(t *testing.T) {
	var trees [2]shaper.Tree
	for _, dir := range shaper.Directions {
		var err error
		if trees[dir], err = shaper.Build(shaper.Limit{Rate: shaper.Mbit}, dir, 1500, shaper.Hashed); err != nil {
			t.Fatal(err)
		}
	}
	want := shaper.Wish{Ingress: &trees[shaper.Ingress], Egress: &trees[shaper.Egress]}
	kept := []shaper.Op{shaper.AddClass, shaper.ChangeClass, shaper.AddQueue, shaper.ChangeQueue, shaper.AddClassifier}
	for name, build := range map[string]func(uint64) shaper.State{"flat": flat, "wide": wide} {
		earlier := func() shaper.Endpoint {
			ifb := build(125000)
			return shaper.Endpoint{Veth: build(125000), IFB: &ifb, Redirect: true, IngressQdisc: true, Ours: true}
		}
		t.Run(name+"_is_changed_in_place", func(t *testing.T) {
			have := earlier()
			steps := shaper.Diff(have, want)
			for _, s := range steps {
				if !slices.Contains(kept, s.Op) {
					t.Errorf("not in place: %v", s)
				}
			}
			// Nothing is led to a class that is not there yet.
			if last := steps[len(steps)-1]; last.Op != shaper.AddClassifier {
				t.Errorf("the last step is %v", last)
			}
			if steps := shaper.Leftovers(have, want); len(steps) > 0 {
				t.Errorf("packets still come to %v", steps)
			}
		})
		t.Run(name+"_loses_its_empty_classes_when_the_filter_does_not_name_them", func(t *testing.T) {
			have := earlier()
			have.Veth.Classify, have.IFB.Classify = true, true
			for i := range have.Veth.Queues {
				have.Veth.Queues[i].Backlog = 1500
			}
			got := map[uint16]bool{}
			for _, s := range shaper.Leftovers(have, want) {
				if s.Device == shaper.Veth {
					t.Errorf("packets wait in %v", s)
				}
				got[s.Class.Minor] = true
			}
			for _, c := range have.IFB.Classes {
				wanted := slices.ContainsFunc(want.Egress.Classes, func(w shaper.Class) bool { return w.Minor == c.Minor })
				if got[c.Minor] == wanted {
					t.Errorf("class %x: deleted %t, wanted %t", c.Minor, got[c.Minor], wanted)
				}
			}
		})
	}
	t.Run("a_class_beside_the_limit_is_not_left", func(t *testing.T) {
		for _, c := range []shaper.Class{{Minor: 0x18}, {Minor: 0x30, Parent: 1}, {Minor: 0x4, Parent: 1}, {Minor: 0x28, Parent: 1}} {
			have := shaper.Endpoint{Veth: wide(125000)}
			have.Veth.Classify = true
			i := slices.IndexFunc(have.Veth.Classes, func(h shaper.Class) bool { return h.Minor == c.Minor })
			if i < 0 {
				have.Veth.Classes = append(have.Veth.Classes, c)
			} else {
				have.Veth.Classes[i] = c
			}
			if steps := shaper.Diff(have, shaper.Wish{Ingress: want.Ingress}); len(steps) == 0 || steps[0].Op != shaper.DeleteRoot {
				t.Errorf("with %+v: %v", c, steps)
			}
		}
	})
}
