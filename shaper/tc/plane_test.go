package tc_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	vish "github.com/vishvananda/netlink"

	"netguard/shaper"
	"netguard/shaper/tc"
	"netguard/shaper/tc/tctest"
)

// plane is what an agent needs of the kernel.
type plane interface {
	Apply(veth int, name string, steps []shaper.Step) error
	Read(veths []int) (map[int]tc.Port, error)
	Drop(veths []int) error
	Sweep(keep func(veth int) bool) (int, error)
}

// stage is a plane with one veth, and what others do there.
type stage struct {
	plane
	veth   int
	take   func() // adds somebody else's device with the name of the IFB
	root   func() // puts somebody else's qdisc at the root
	remove func() // removes the veth
	filter func() // puts somebody else's filter beside netguard's at the ingress
}

func onKernel(t *testing.T) stage {
	d, veth := vethIn(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	return stage{plane: d, veth: veth,
		take: func() {
			attrs := vish.NewLinkAttrs()
			attrs.Name = tc.IFBName(veth)
			must(vish.LinkAdd(&vish.Ifb{LinkAttrs: attrs}))
		},
		root: func() {
			must(vish.QdiscAdd(&vish.Tbf{QdiscAttrs: vish.QdiscAttrs{LinkIndex: veth, Handle: vish.MakeHandle(7, 0),
				Parent: vish.HANDLE_ROOT}, Rate: 1e6, Limit: 1e5, Buffer: 1e5}))
		},
		remove: func() { must(vish.LinkDel(&vish.Device{LinkAttrs: vish.LinkAttrs{Index: veth}})) },
		filter: func() { addFilter(t, veth) },
	}
}

func onFake(t *testing.T) stage {
	k := tctest.New()
	veth := k.Add("outside")
	return stage{plane: k, veth: veth, take: func() { k.AddIFB(veth) }, root: func() { k.SetRoot(veth, "tbf", 7) }, remove: func() { k.Remove(veth) },
		filter: func() {
			if err := k.AddFilter(veth); err != nil {
				t.Fatal(err)
			}
		}}
}

func (s stage) port(t *testing.T) tc.Port {
	t.Helper()
	got, err := s.Read([]int{s.veth})
	p := got[s.veth]
	if err = errors.Join(err, p.Err); err != nil {
		t.Fatal(err)
	}
	return p
}

// to brings the port to a wish, and tells what is left to do then.
func (s stage) to(t *testing.T, want shaper.Wish) []shaper.Step {
	t.Helper()
	if err := s.Apply(s.veth, "outside", shaper.Diff(s.port(t).Endpoint, want)); err != nil {
		t.Fatal(err)
	}
	return shaper.Diff(s.port(t).Endpoint, want)
}

// TestPlane: the fake does and refuses what the kernel does and refuses.
func TestPlane(t *testing.T) {
	class := func(minor, parent uint16, rate uint64) shaper.Step {
		return shaper.Step{Op: shaper.AddClass, Class: shaper.Class{Minor: minor, Parent: parent, Rate: rate, Ceil: rate, Burst: 100, Cburst: 100, Quantum: 1500}}
	}
	root := shaper.Step{Op: shaper.AddRoot, Default: 1}
	one := func(t *testing.T) shaper.Wish { return both(t, 10*shaper.Mbit, shaper.Hashed) }
	refused := func(steps ...shaper.Step) func(*testing.T, stage) {
		return func(t *testing.T, s stage) {
			before := s.port(t)
			if err := s.Apply(s.veth, "outside", steps); err == nil {
				t.Error("it is not refused")
			}
			if after := s.port(t); len(after.Veth.Classes) > len(before.Veth.Classes)+1 || (after.IFB != nil) != (before.IFB != nil) {
				t.Errorf("there is %+v now", after)
			}
		}
	}
	tests := map[string]func(*testing.T, stage){
		"twice_is_once": func(t *testing.T, s stage) {
			if left := s.to(t, one(t)); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		},
		"a_class_without_its_parent_is_one_of_the_root": func(t *testing.T, s stage) {
			if err := s.Apply(s.veth, "outside", []shaper.Step{root, class(5, 4, 1e6)}); err != nil {
				t.Fatal(err)
			}
			if p := s.port(t); len(p.Veth.Classes) != 1 || p.Veth.Classes[0].Parent != 0 {
				t.Errorf("there is %+v", p.Veth.Classes)
			}
		},
		"a_class_needs_the_root":      refused(class(5, 0, 1e6)),
		"a_class_needs_a_rate":        refused(root, class(5, 0, 0)),
		"a_queue_needs_its_class":     refused(root, shaper.Step{Op: shaper.AddQueue, Queue: shaper.Queue{Class: 5, Kind: "bfifo", Limit: 1e5}}),
		"a_redirect_needs_an_IFB":     refused(shaper.Step{Op: shaper.AddIngress}, shaper.Step{Op: shaper.AddRedirect}),
		"a_classifier_needs_the_root": refused(shaper.Step{Op: shaper.AddClassifier}),
		"there_is_one_root": func(t *testing.T, s stage) {
			s.root()
			if err := s.Apply(s.veth, "outside", []shaper.Step{root}); !errors.Is(err, tc.ErrOccupied) {
				t.Errorf("error is %v", err)
			}
			if p := s.port(t); !p.Veth.Foreign() || p.Veth.Root.Kind != "tbf" {
				t.Errorf("the root is %+v", p.Veth.Root)
			}
			if err := s.Apply(s.veth, "outside", []shaper.Step{{Op: shaper.DeleteRoot}}); err != nil || !s.port(t).Veth.Foreign() {
				t.Errorf("somebody else's root was deleted, or: %v", err)
			}
		},
		"there_is_one_ingress_qdisc": func(t *testing.T, s stage) {
			s.to(t, one(t))
			if err := s.Apply(s.veth, "outside", []shaper.Step{{Op: shaper.AddIngress}}); !errors.Is(err, tc.ErrOccupied) {
				t.Errorf("error is %v", err)
			}
		},
		"somebody_else_has_the_name": func(t *testing.T, s stage) {
			s.take()
			if err := s.Apply(s.veth, "outside", shaper.Diff(s.port(t).Endpoint, one(t))); err == nil {
				t.Error("it is not refused")
			}
			if p := s.port(t); p.IFB != nil || p.IFBIndex != 0 || !p.Veth.Own() {
				t.Errorf("there is %+v", p)
			}
			if n, err := s.Sweep(func(int) bool { return false }); n != 0 || err != nil {
				t.Errorf("swept %d, %v", n, err)
			}
			if err := s.Drop([]int{s.veth}); err != nil {
				t.Error(err)
			}
			if err := s.Apply(s.veth, "outside", []shaper.Step{{Op: shaper.AddIFB}}); err == nil {
				t.Error("its device was deleted")
			}
		},
		"a_device_that_is_gone": func(t *testing.T, s stage) {
			s.to(t, one(t))
			s.remove()
			if p := s.port(t); p.Veth.Own() || p.IFB == nil || p.Redirect {
				t.Errorf("there is %+v", p)
			}
			if err := s.Apply(s.veth, "outside", []shaper.Step{root}); err == nil {
				t.Error("it is not refused")
			}
			if err := s.Drop([]int{s.veth, 4711}); err != nil {
				t.Error(err)
			}
			if p := s.port(t); p.IFB != nil {
				t.Errorf("there is %+v", p)
			}
		},
		"sweep_keeps_what_is_of_use": func(t *testing.T, s stage) {
			s.to(t, one(t))
			if n, err := s.Sweep(func(v int) bool { return v == s.veth }); n != 0 || err != nil {
				t.Errorf("swept %d, %v", n, err)
			}
			if n, err := s.Sweep(func(int) bool { return false }); n != 1 || err != nil {
				t.Errorf("swept %d, %v", n, err)
			}
			if p := s.port(t); p.IFB != nil || p.Redirect {
				t.Errorf("there is %+v", p)
			}
			if left := s.to(t, one(t)); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		},
		"somebody_else's_filter_is_beside_netguard's": func(t *testing.T, s stage) {
			for name, end := range map[string]func() error{
				"no limit": func() error { return s.Apply(s.veth, "outside", shaper.Diff(s.port(t).Endpoint, shaper.Wish{})) },
				"swept":    func() error { _, err := s.Sweep(func(int) bool { return false }); return err },
				"dropped":  func() error { return s.Drop([]int{s.veth}) },
			} {
				if left := s.to(t, one(t)); len(left) > 0 {
					t.Fatalf("%s: left: %v", name, left)
				}
				s.filter()
				if p := s.port(t); !p.Stranger || !p.Redirect {
					t.Fatalf("%s: at first there is %+v", name, p)
				}
				if left := s.to(t, both(t, shaper.Mbit, shaper.Hashed)); len(left) > 0 {
					t.Errorf("%s: left of another rate: %v", name, left)
				}
				for range 2 {
					if err := end(); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if p := s.port(t); p.IFB != nil || p.Ours || p.Redirect || !p.IngressQdisc || !p.Stranger {
						t.Errorf("%s: there is an IFB: %t; ours: %t; redirect: %t; ingress qdisc: %t; foreign: %t", name, p.IFB != nil, p.Ours, p.Redirect, p.IngressQdisc, p.Stranger)
					}
				}
				if err := s.Apply(s.veth, "outside", []shaper.Step{{Op: shaper.DeleteIngress}}); err != nil {
					t.Fatal(err)
				}
			}
		},
		"a_redirect_that_is_not_there_is_deleted": func(t *testing.T, s stage) {
			for _, before := range [][]shaper.Step{nil, {{Op: shaper.AddIngress}}} {
				if err := s.Apply(s.veth, "outside", append(before, shaper.Step{Op: shaper.DeleteRedirect})); err != nil {
					t.Error(err)
				}
				if p := s.port(t); p.Ours || p.IngressQdisc != (before != nil) {
					t.Errorf("there is %+v", p)
				}
			}
		},
		"the_end_does_not_depend_on_the_path": func(t *testing.T, s stage) {
			rates := []shaper.Rate{0, 64 * shaper.Kbit, 10 * shaper.Mbit, shaper.Gbit}
			rng := rand.New(rand.NewPCG(3, 4))
			for range 30 {
				want := shaper.Wish{Ingress: tree(t, shaper.Ingress, rates[rng.IntN(4)], shaper.Hashed), Egress: tree(t, shaper.Egress, rates[rng.IntN(4)], shaper.Hashed)}
				steps := shaper.Diff(s.port(t).Endpoint, want)
				if len(steps) > 0 && rng.IntN(3) == 0 { // it is interrupted
					if err := s.Apply(s.veth, "outside", steps[:rng.IntN(len(steps))]); err != nil {
						t.Fatal(err)
					}
				}
				if left := s.to(t, want); len(left) > 0 {
					t.Fatalf("left: %v", left)
				}
			}
		},
	}
	for name, test := range tests {
		for on, open := range map[string]func(*testing.T) stage{"kernel": onKernel, "fake": onFake} {
			t.Run(name+"/"+on, func(t *testing.T) { test(t, open(t)) })
		}
	}
}
