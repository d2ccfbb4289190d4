package tc_test

import (
	"testing"
	"time"

	"netguard/shaper"
	"netguard/shaper/tc"
)

// flat is what the first version built: one class for small packets, and eight.
func flat(rate uint64) *shaper.Tree {
	t := &shaper.Tree{Leaf: shaper.Hashed, Default: 2, Classes: []shaper.Class{{Minor: 1, Rate: rate, Ceil: rate, Burst: 1e6, Cburst: 1e6, Quantum: 65550}}}
	for _, minor := range []uint16{2, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17} {
		t.Classes = append(t.Classes, shaper.Class{Minor: minor, Parent: 1, Rate: rate / 16, Ceil: rate, Burst: 1, Cburst: 1e6, Quantum: 1514})
		t.Queues = append(t.Queues, shaper.Queue{Class: minor, Kind: "tbf", Limit: 15140, Buffer: 1, Rate: 1518 * 1e9 / 64})
	}
	return t
}

// wide is what the second one built: sixteen classes for small packets, as many for
// large ones.
func wide(rate uint64) *shaper.Tree {
	t := flat(rate)
	t.Classes, t.Queues = t.Classes[:2], t.Queues[:1]
	t.Classes = append(t.Classes, shaper.Class{Minor: 3, Parent: 1, Rate: rate / 2, Ceil: rate, Burst: 1, Cburst: 1e6, Quantum: 65550})
	for i := range uint16(16) {
		t.Classes = append(t.Classes, shaper.Class{Minor: 0x10 + i, Parent: 1, Rate: rate / 32, Ceil: rate, Burst: 1, Cburst: 1e6, Quantum: 1514},
			shaper.Class{Minor: 0x20 + i, Parent: 3, Rate: rate / 32, Ceil: rate, Burst: 1, Cburst: 1e6, Quantum: 256})
		t.Queues = append(t.Queues, shaper.Queue{Class: 0x10 + i, Kind: "tbf", Limit: 73000, Buffer: 1, Rate: 1518 * 1e9 / 64},
			shaper.Queue{Class: 0x20 + i, Kind: "bfifo", Limit: 73000})
	}
	return t
}

// What is queued in an earlier version's tree arrives, there is a limit at any time,
// and what this version does not need goes when it is empty.
func TestEarlierTreeIsAdopted(t *testing.T) {
	for name, build := range map[string]func(uint64) *shaper.Tree{"flat": flat, "wide": wide} {
		t.Run(name, func(t *testing.T) {
			d, veth := vethIn(t)
			earlier := build(8000)
			if err := d.Apply(veth, "outside", shaper.Diff(shaper.Endpoint{}, shaper.Wish{Ingress: earlier, Egress: earlier})); err != nil {
				t.Fatal(err)
			}
			send := out(t, veth)
			for range 10 {
				send(udp4(2, 9, 1400)) // without the filter all are in the default class
			}
			counters := func() tc.Counters {
				s, err := d.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				c, err := s.Counters(veth)
				if err != nil {
					t.Fatal(err)
				}
				return c[shaper.Ingress]
			}
			before := counters()
			if before.Backlog == 0 {
				t.Fatal("nothing is queued")
			}
			want := both(t, 64*shaper.Kbit, shaper.Hashed)
			for _, s := range apply(t, d, veth, want) {
				switch s.Op {
				case shaper.AddClass, shaper.ChangeClass, shaper.AddQueue, shaper.ChangeQueue, shaper.AddClassifier:
				default:
					t.Errorf("not in place: %v", s)
				}
			}
			if after := counters(); after.Drops != before.Drops || after.Packets < before.Packets {
				t.Errorf("before: %+v, after: %+v", before, after)
			}
			for until := time.Now().Add(5 * time.Second); counters().Backlog > 0; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(until) {
					t.Fatalf("still queued: %+v", counters())
				}
			}
			before = counters()
			if before.Drops != 0 || before.Packets < 10 {
				t.Errorf("10 frames were queued: %+v", before)
			}
			left := shaper.Leftovers(read(t, d, veth), want)
			if len(left) == 0 {
				t.Error("no class is left over")
			}
			if err := d.Apply(veth, "outside", left); err != nil {
				t.Fatal(err)
			}
			have := read(t, d, veth)
			if steps := append(shaper.Diff(have, want), shaper.Leftovers(have, want)...); len(steps) > 0 {
				t.Errorf("left are %v", steps)
			}
			if n, m := len(have.Veth.Classes), len(want.Ingress.Classes); n != m {
				t.Errorf("it has %d classes, wanted are %d", n, m)
			}
			if after := counters(); after != before {
				t.Errorf("before: %+v, after: %+v", before, after)
			}
		})
	}
}
