package guard_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"netguard/netpolicy/guard"
	"netguard/netpolicy/guard/guardtest"
)

// plane is what an agent needs of the guard.
type plane interface {
	Apply(guard.Wish, guard.Look) (guard.Report, error)
	Earlier() (guard.Earlier, error)
	Features() guard.Features
}

// stage is a host with four containers on one bridge, and what others do there.
type stage struct {
	plane
	wish    guard.Wish   // all are guarded and admitted
	other   int          // another bridge
	restart func() plane // another process
	sends   func(i int) bool
	unlock  func(i int)
	unbind  func(i int)
	forget  func(i int)
	flush   func() // removes all tables
	remove  func(i int)
	move    func(i int) // to no bridge
}

func onKernel(t *testing.T) *stage {
	h := guard.NewHost(t, 4)
	s := &stage{plane: h.Driver(), wish: h.Wish(), other: h.AddBridge("br-other"), restart: func() plane { return h.Driver() }, sends: h.Sends}
	name := func(i int) string { return s.wish.Ports[i].Name }
	s.unlock = func(i int) {
		h.Run("bridge", "link", "set", "dev", name(i), "locked", "off", "learning", "on", "flood", "on", "bcast_flood", "on", "mcast_flood", "on", "guard", "off")
	}
	s.unbind = func(i int) {
		h.Run("bridge", "fdb", "del", s.wish.Ports[i].MAC.String(), "dev", name(i), "master")
	}
	s.forget = func(i int) {
		h.Run("ip", "neigh", "del", s.wish.Ports[i].IPv4.String(), "dev", s.wish.Ports[i].BridgeName)
	}
	s.flush = func() { h.Run("nft", "flush", "ruleset") }
	s.remove = func(i int) { h.Run("ip", "link", "del", name(i)) }
	s.move = func(i int) { h.Run("ip", "link", "set", name(i), "nomaster") }
	s.wish.Bridges = []guard.Bridge{{Index: h.Bridge(), Name: s.wish.Ports[0].BridgeName, Subnets: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24")}}}
	return s
}

// fake is a stage on a kernel that is not there.
func fake() (*stage, *guardtest.Kernel) {
	k := guardtest.New()
	s := &stage{plane: k.Open(), other: k.AddBridge(), restart: func() plane { return k.Open() }}
	bridge := k.AddBridge()
	for i := range byte(4) {
		s.wish.Ports = append(s.wish.Ports, &guard.Port{Index: k.AddPort(bridge), Name: string('a' + rune(i)), Bridge: bridge, BridgeName: "br",
			MAC: guard.MAC{2, 0x42, 0, 0, 0, i + 2}, IPv4: netip.AddrFrom4([4]byte{172, 30, 0, i + 2}),
			Gateways: []netip.Addr{netip.MustParseAddr("172.30.0.1")}, Guarded: true, Admitted: true})
	}
	s.wish.Bridges = []guard.Bridge{{Index: bridge, Name: "br", Subnets: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24")}}}
	port := func(i int) int { return s.wish.Ports[i].Index }
	s.sends = func(i int) bool { return k.Sends(port(i)) }
	s.unlock, s.unbind, s.forget = func(i int) { k.Unlock(port(i)) }, func(i int) { k.Unbind(port(i)) }, func(i int) { k.Forget(port(i)) }
	s.flush, s.remove, s.move = k.Flush, func(i int) { k.Remove(port(i)) }, func(i int) { k.Move(port(i), 0) }
	return s, k
}

// ports gives the wish with some ports changed.
func (s *stage) ports(change func(i int, p *guard.Port)) guard.Wish {
	w := s.wish
	w.Ports = slices.Clone(w.Ports)
	for i := range w.Ports {
		p := *w.Ports[i]
		change(i, &p)
		w.Ports[i] = &p
	}
	return w
}

// first gives the wish with the first port changed.
func (s *stage) first(change func(*guard.Port)) guard.Wish {
	return s.ports(func(i int, p *guard.Port) {
		if i == 0 {
			change(p)
		}
	})
}

func (s *stage) index(i int) int { return s.wish.Ports[i].Index }

// to applies a wish twice; the second time changes nothing.
func (s *stage) to(t *testing.T, w guard.Wish) guard.Report {
	t.Helper()
	r, err := s.Apply(w, guard.Everything)
	again, err2 := s.Apply(w, guard.Everything)
	if err = errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if again.Changes > 0 || len(again.Drift) > 0 {
		t.Errorf("twice is not once: %d changes, drift %q", again.Changes, again.Drift)
	}
	if len(again.Ports) != len(w.Ports) {
		t.Errorf("%d of %d ports are reported", len(again.Ports), len(w.Ports))
	}
	return r
}

// is checks what the first port is, and whether it sends.
func (s *stage) is(t *testing.T, r guard.Report, want guard.State, sends bool) {
	t.Helper()
	p := r.Ports[s.index(0)]
	if p.State != want || s.sends(0) != sends || p.Passes != (want == guard.Admitted) {
		t.Errorf("it is %+v and sends: %t; want %s, %t", p, s.sends(0), want, sends)
	}
	for i := 1; i < 3; i++ {
		if got := r.Ports[s.index(i)]; got.State != guard.Admitted || !s.sends(i) {
			t.Errorf("port %d is %+v and sends: %t", i, got, s.sends(i))
		}
	}
}

func links(ports ...int) guard.Look {
	l := guard.Look{Links: map[int]struct{}{}}
	for _, p := range ports {
		l.Links[p] = struct{}{}
	}
	return l
}

var planeTests = map[string]func(*testing.T, *stage){
	"an_admitted_port_sends": func(t *testing.T, s *stage) { s.is(t, s.to(t, s.wish), guard.Admitted, true) },
	"a_quarantined_port_does_not": func(t *testing.T, s *stage) {
		s.to(t, s.wish)
		s.is(t, s.to(t, s.first(func(p *guard.Port) { p.Admitted = false })), guard.Quarantined, false)
	},
	"a_port_that_is_not_guarded_sends": func(t *testing.T, s *stage) {
		s.is(t, s.to(t, s.first(func(p *guard.Port) { p.Guarded = false })), guard.Trusted, true)
	},
	"an_unknown_port_does_not": func(t *testing.T, s *stage) {
		s.to(t, s.wish)
		w := s.wish
		w.Ports = w.Ports[1:]
		s.to(t, w)
		if s.sends(0) {
			t.Error("it sends")
		}
		w.Open = true
		if s.to(t, w); !s.sends(0) {
			t.Error("it does not, though admission is open")
		}
	},
	"a_port_that_is_gone": func(t *testing.T, s *stage) {
		s.to(t, s.wish)
		s.remove(0)
		r, err := s.Apply(s.wish, links(s.index(0)))
		if err != nil || r.Ports[s.index(0)].State != guard.Gone || r.Ports[s.index(1)].State != guard.Admitted || len(r.Drift) > 0 {
			t.Errorf("%+v, %v", r, err)
		}
		w := s.wish
		w.Ports = w.Ports[1:]
		s.to(t, w)
	},
	"a_port_that_left_its_bridge": func(t *testing.T, s *stage) {
		s.to(t, s.wish)
		s.move(0)
		if r := s.to(t, s.wish); r.Ports[s.index(0)].State != guard.Gone {
			t.Errorf("%+v", r.Ports[s.index(0)])
		}
	},
	"a_port_of_another_bridge": func(t *testing.T, s *stage) {
		if r := s.to(t, s.first(func(p *guard.Port) { p.Bridge = s.other })); r.Ports[s.index(0)].State != guard.Gone {
			t.Errorf("%+v", r.Ports[s.index(0)])
		}
	},
	"of_two_with_one_MAC_the_older_has_it": func(t *testing.T, s *stage) {
		w := s.ports(func(i int, p *guard.Port) {
			if i == 1 {
				p.MAC = s.wish.Ports[0].MAC
			}
		})
		r := s.to(t, w)
		if a, b := r.Ports[s.index(0)], r.Ports[s.index(1)]; a.State != guard.Admitted || b.State != guard.Quarantined || len(b.Faults) != 1 {
			t.Errorf("%+v, %+v", a, b)
		}
	},
	"of_two_with_one_address_as_well": func(t *testing.T, s *stage) {
		r := s.to(t, s.ports(func(i int, p *guard.Port) { p.IPv4 = s.wish.Ports[0].IPv4 }))
		if a, b := r.Ports[s.index(0)], r.Ports[s.index(3)]; a.State != guard.Admitted || b.State != guard.Quarantined || len(b.Faults) != 1 {
			t.Errorf("%+v, %+v", a, b)
		}
	},
	"nobody_has_the_gateways_address": func(t *testing.T, s *stage) {
		r := s.to(t, s.first(func(p *guard.Port) { p.IPv4 = p.Gateways[0] }))
		s.is(t, r, guard.Quarantined, false)
	},
	"a_label_takes_nothing_of_others": func(t *testing.T, s *stage) {
		r := s.to(t, s.first(func(p *guard.Port) { p.Allow.MACs = []guard.MAC{s.wish.Ports[1].MAC} }))
		if s.is(t, r, guard.Admitted, true); len(r.Ports[s.index(0)].Faults) != 1 {
			t.Errorf("%+v", r.Ports[s.index(0)])
		}
	},
	"a_port_without_a_MAC": func(t *testing.T, s *stage) {
		s.is(t, s.to(t, s.first(func(p *guard.Port) { p.MAC, p.IPv4, p.IPv6 = guard.MAC{}, netip.Addr{}, netip.Addr{} })), guard.Quarantined, false)
	},
	"a_port_is_wished_for_twice": func(t *testing.T, s *stage) {
		w := s.wish
		w.Ports = append(slices.Clone(w.Ports), w.Ports[0])
		r, err := s.Apply(w, guard.Everything)
		if err != nil || r.Ports[s.index(0)].State != guard.Quarantined || len(r.Ports[s.index(0)].Faults) != 1 || s.sends(0) {
			t.Errorf("%+v, %v", r, err)
		}
	},
	"too_many_ports": func(t *testing.T, s *stage) {
		w := s.wish
		for i := range 1 << 14 {
			w.Ports = append(w.Ports, &guard.Port{Index: 1e6 + i})
		}
		if _, err := s.Apply(w, guard.Look{}); err == nil {
			t.Error("it is not refused")
		}
	},
	"nothing_is_there_before": func(t *testing.T, s *stage) {
		if e, err := s.Earlier(); err != nil || !e.Fresh || e.Admitted != nil {
			t.Errorf("%+v, %v", e, err)
		}
	},
	"another_process_finds_what_is_there": func(t *testing.T, s *stage) {
		s.to(t, s.ports(func(i int, p *guard.Port) { p.Admitted, p.Guarded = i > 0, i < 2 }))
		p := s.restart()
		e, err := p.Earlier()
		if want := map[int]bool{s.index(1): true, s.index(2): true, s.index(3): true}; err != nil || e.Fresh || !maps.Equal(e.Admitted, want) || !e.Bridges[s.wish.Bridges[0].Index] {
			t.Errorf("%+v, %v, want %v", e, err, want)
		}
		own := s.wish.Ports[1].MAC.LinkLocal()
		if !e.LinkLocals[s.index(1)][own] || e.LinkLocals[s.index(0)] != nil || e.LinkLocals[s.index(2)] != nil {
			t.Errorf("link-local addresses: %v", e.LinkLocals)
		}
	},
	"another_process_adopts_what_is_there": func(t *testing.T, s *stage) {
		s.to(t, s.wish)
		r, err := s.restart().Apply(s.wish, guard.Look{})
		if err != nil || r.Changes > 0 || len(r.Drift) > 0 {
			t.Errorf("%+v, %v", r, err)
		}
		s.is(t, r, guard.Admitted, true)
	},
	"what_stands_stays": func(t *testing.T, s *stage) {
		stands := s.first(func(p *guard.Port) { p.Admitted, p.Standing = false, true })
		s.is(t, s.to(t, stands), guard.Quarantined, false)
		s.to(t, s.wish)
		s.is(t, s.to(t, stands), guard.Admitted, true)
		another := s.first(func(p *guard.Port) {
			p.Admitted, p.Standing, p.IPv4 = false, true, netip.MustParseAddr("172.30.0.99")
		})
		s.is(t, s.to(t, another), guard.Quarantined, false)
	},
	"what_nobody_tells_of_is_not_read": func(t *testing.T, s *stage) {
		s.to(t, s.wish)
		s.unlock(0)
		if r, err := s.Apply(s.wish, guard.Look{}); err != nil || r.Changes > 0 || len(r.Drift) > 0 {
			t.Errorf("%+v, %v", r, err)
		}
		if r, err := s.Apply(s.wish, links(s.index(0))); err != nil || r.Changes == 0 || len(r.Drift) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		s.to(t, s.wish)
	},
	"the_table_always_is": func(t *testing.T, s *stage) {
		s.to(t, s.wish)
		s.flush()
		r, err := s.Apply(s.wish, guard.Look{})
		if err != nil || r.Changes == 0 || len(r.Drift) == 0 {
			t.Errorf("%+v, %v", r, err)
		}
		s.is(t, r, guard.Admitted, true)
		s.to(t, s.wish)
	},
	"a_MAC_that_is_not_bound": func(t *testing.T, s *stage) {
		s.to(t, s.wish)
		s.unbind(0)
		r, err := s.Apply(s.wish, guard.Look{MACs: map[guard.MAC]struct{}{s.wish.Ports[0].MAC: {}}})
		if err != nil || r.Changes == 0 || len(r.Drift) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		s.is(t, r, guard.Admitted, true)
	},
	"a_neighbour_that_is_gone": func(t *testing.T, s *stage) {
		s.to(t, s.wish)
		s.forget(0)
		p := s.wish.Ports[0]
		r, err := s.Apply(s.wish, guard.Look{Neighbours: map[guard.Neighbour]struct{}{{Bridge: p.Bridge, Addr: p.IPv4}: {}}})
		if err != nil || r.Changes == 0 || len(r.Drift) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		s.to(t, s.wish)
	},
	"looks_at_what_nobody_tells_of_come_round": func(t *testing.T, s *stage) {
		s.to(t, s.wish)
		s.unlock(0)
		drift := 0
		for range 31 {
			r, err := s.Apply(s.wish, guard.Look{Unheard: true})
			if err != nil {
				t.Fatal(err)
			}
			drift += len(r.Drift)
		}
		if drift != 1 {
			t.Errorf("drift was told %d times", drift)
		}
		s.to(t, s.wish)
	},
	"the_end_does_not_depend_on_the_path": func(t *testing.T, s *stage) {
		rng := rand.New(rand.NewPCG(5, 6))
		for range 20 {
			admitted, guarded, wished := rng.IntN(3) > 0, rng.IntN(4) > 0, rng.IntN(4) > 0
			w := s.first(func(p *guard.Port) { p.Admitted, p.Guarded = admitted, guarded })
			if !wished {
				w.Ports = w.Ports[1:]
			}
			if rng.IntN(4) == 0 {
				s.plane = s.restart()
			}
			s.to(t, w)
			if want := wished && (admitted || !guarded); s.sends(0) != want {
				t.Fatalf("it sends: %t, want %t", !want, want)
			}
		}
	},
}

// TestPlane: the fake does and refuses what the kernel does and refuses.
func TestPlane(t *testing.T) {
	for name, test := range planeTests {
		t.Run("fake/"+name, func(t *testing.T) {
			s, _ := fake()
			test(t, s)
		})
		t.Run("kernel/"+name, func(t *testing.T) { test(t, onKernel(t)) })
	}
}

// TestPlaneFails: whatever write fails, no port sends that did not before and is not to, the
// error is about whom it is of, and the next Apply makes it good.
func TestPlaneFails(t *testing.T) {
	for n := range 20 {
		s, k := fake()
		s.to(t, s.first(func(p *guard.Port) { p.Admitted = false }))
		before := k.Writes
		k.Fail = guardtest.After(n)
		r, err := s.Apply(s.wish, guard.Look{})
		failed := k.Writes-before == n && n < 3
		if p := r.Ports[s.index(0)]; failed != (err != nil || p.State == guard.Pending) {
			t.Errorf("%d writes: %+v, %v", n, r, err)
		}
		if n < 2 && s.sends(0) {
			t.Errorf("%d writes: it sends", n)
		}
		if k.Fail = nil; n >= 3 {
			break
		}
		if r, err = s.Apply(s.wish, guard.Look{}); err != nil || len(r.Drift) > 0 {
			t.Errorf("%d writes: %+v, %v", n, r, err)
		}
		s.is(t, r, guard.Admitted, true)
	}
	s, k := fake()
	k.Fail = guardtest.About(s.index(0))
	r, err := s.Apply(s.wish, guard.Look{})
	if err != nil || r.Ports[s.index(0)].State != guard.Pending || r.Ports[s.index(0)].Passes || r.Ports[s.index(1)].State != guard.Admitted {
		t.Errorf("one port: %+v, %v", r, err)
	}
	k.Fail = nil
	k.Reads = func() error { return errors.New("it was to fail") }
	if _, err := s.Earlier(); err == nil {
		t.Error("Earlier does not fail")
	}
	if _, err := s.Apply(s.wish, guard.Look{}); err == nil {
		t.Error("Apply does not fail")
	}
	k.Reads, k.Fail = nil, guardtest.Whole
	if _, err := s.Apply(s.wish, guard.Look{}); err == nil || s.sends(0) || !s.sends(1) {
		t.Error("a transaction that fails admits, or changes others")
	}
}
