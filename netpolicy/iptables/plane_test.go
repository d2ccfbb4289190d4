package iptables_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

// TestPlane: the fake does and refuses what the kernel does and refuses.
func TestPlane(t *testing.T) {
	one, more, other := iptables.Generation("a", 1), iptables.Generation("a", 3), iptables.Generation("b", 2)
	denied := func(iptables.Flow) bool { return false }
	flow := func(from, to netip.Addr, port uint16) iptables.Flow {
		return iptables.Flow{Src: netip.AddrPortFrom(from, 40000), Dst: netip.AddrPortFrom(to, port), Proto: netpolicy.TCP}
	}
	tests := map[string]func(*testing.T, *stage){
		"nothing_was_applied": func(t *testing.T, s *stage) {
			if _, err := s.Verify(t.Context()); !errors.Is(err, iptables.ErrNothingApplied) {
				t.Errorf("Verify: %v", err)
			}
			if _, err := s.cut(t, nil, true, denied); !errors.Is(err, iptables.ErrNothingApplied) {
				t.Errorf("Cut: %v", err)
			}
			if changed, err := s.Glance(); changed || err != nil {
				t.Errorf("Glance: %v, %v", changed, err)
			}
			if _, err := s.Apply(t.Context(), iptables.Wish{}); !errors.Is(err, iptables.ErrInvalid) {
				t.Errorf("Apply: %v", err)
			}
		},
		"twice_is_once": func(t *testing.T, s *stage) {
			if r := s.apply(t, one); !r.Looked || !r.Rules || !r.Generation || !r.Changed() || len(r.Drift) > 0 {
				t.Errorf("%+v", r)
			}
			if r := s.apply(t, one); r.Looked || r.Changed() || r.Forks > 0 {
				t.Errorf("%+v", r)
			}
			for range 2 {
				if d := s.verify(t, false); d.Rewritten || d.Displaced {
					t.Errorf("%+v", d)
				}
			}
		},
		"another_process_adopts_it": func(t *testing.T, s *stage) {
			s.apply(t, one)
			s.plane = s.open()
			if r := s.apply(t, one); !r.Looked || r.Changed() || len(r.Drift) > 0 {
				t.Errorf("%+v", r)
			}
		},
		"members_alone_are_no_rule": func(t *testing.T, s *stage) {
			s.apply(t, one)
			if r := s.apply(t, more); r.Looked || r.Rules || r.Forks > 0 || r.Added == 0 {
				t.Errorf("%+v", r)
			}
			if r := s.apply(t, one); r.Rules || r.Deleted == 0 {
				t.Errorf("%+v", r)
			}
			if r := s.apply(t, other); !r.Looked || !r.Generation || r.Added == 0 {
				t.Errorf("%+v", r)
			}
			s.verify(t, false)
		},
		"rules_that_are_gone_are_seen_by_Verify": func(t *testing.T, s *stage) {
			s.apply(t, one)
			if s.deleteRules(); s.meets("a") {
				t.Error("they are there")
			}
			if changed, err := s.Glance(); changed || err != nil {
				t.Errorf("Glance: %v, %v", changed, err)
			}
			if r := s.apply(t, one); r.Changed() {
				t.Errorf("it looked at the rules: %+v", r)
			}
			if d := s.verify(t, true); d.Displaced || !d.Rewritten {
				t.Errorf("%+v", d)
			}
			if r := s.apply(t, one); !r.Rules || !s.meets("a") {
				t.Errorf("%+v", r)
			}
			s.verify(t, false)
		},
		"rules_that_are_first_are_Docker's_doing": func(t *testing.T, s *stage) {
			s.apply(t, one)
			s.verify(t, false)
			s.displace()
			if d := s.verify(t, true); !d.Displaced || !d.Rewritten || s.meets("a") {
				t.Errorf("%+v", d)
			}
			if r := s.apply(t, one); !r.Rules || r.Generation || len(r.Drift) > 0 {
				t.Errorf("%+v", r)
			}
			s.verify(t, false)
		},
		"what_is_done_after_Verify_is_told_by_Apply": func(t *testing.T, s *stage) {
			s.apply(t, one)
			s.displace()
			s.verify(t, true)
			s.deleteRules()
			if r := s.apply(t, one); !r.Rules || len(r.Drift) == 0 {
				t.Errorf("%+v", r)
			}
			s.verify(t, false)
		},
		"a_rule_of_somebody_else_changes_nothing": func(t *testing.T, s *stage) {
			s.apply(t, one)
			s.verify(t, false)
			s.rewrite()
			if d := s.verify(t, false); !d.Rewritten {
				t.Errorf("%+v", d)
			}
			if d := s.verify(t, false); d.Rewritten {
				t.Errorf("%+v", d)
			}
		},
		"empty_sets_are_seen_at_a_glance": func(t *testing.T, s *stage) {
			s.apply(t, one)
			s.emptySets()
			if changed, err := s.Glance(); !changed || err != nil {
				t.Errorf("Glance: %v, %v", changed, err)
			}
			if d := s.verify(t, true); d.Displaced {
				t.Errorf("%+v", d)
			}
			if r := s.apply(t, one); r.Rules || r.Added == 0 {
				t.Errorf("%+v", r)
			}
			if changed, err := s.Glance(); changed || err != nil {
				t.Errorf("Glance: %v, %v", changed, err)
			}
			s.verify(t, false)
		},
		"a_wish_that_is_refused_leaves_what_was_before": func(t *testing.T, s *stage) {
			s.apply(t, one)
			s.foreign("ng4-ii-bbbbbbbbbbbb")
			s.plane = s.open()
			if r, err := s.Apply(t.Context(), other); !errors.Is(err, iptables.ErrForeign) || r.InForce || !s.meets("a") {
				t.Errorf("%+v, %v", r, err)
			}
			s.notForeign("ng4-ii-bbbbbbbbbbbb")
			if r := s.apply(t, one); r.Changed() {
				t.Errorf("%+v", r)
			}
			s.apply(t, other)
			s.verify(t, false)
		},
		"a_full_set_leaves_what_was_before": func(t *testing.T, s *stage) {
			s.apply(t, one)
			s.full("ng4-ii-bbbbbbbbbbbb", 2)
			s.plane = s.open()
			if r, err := s.Apply(t.Context(), iptables.Generation("b", 20)); !errors.Is(err, iptables.ErrSetFull) || r.InForce || r.Rules || !s.meets("a") {
				t.Errorf("%+v, %v", r, err)
			}
			s.apply(t, one)
			s.verify(t, false)
		},
		"a_context_that_is_over": func(t *testing.T, s *stage) {
			s.apply(t, one)
			over, cancel := context.WithCancel(t.Context())
			cancel()
			if r, err := s.Apply(over, other); !errors.Is(err, context.Canceled) || r.InForce || r.Changed() {
				t.Errorf("Apply: %+v, %v", r, err)
			}
			if _, err := s.Verify(over); !errors.Is(err, context.Canceled) {
				t.Errorf("Verify: %v", err)
			}
			if r := s.apply(t, one); r.Changed() {
				t.Errorf("%+v", r)
			}
		},
		"another_writer_is_first": func(t *testing.T, s *stage) {
			s.overtake()
			if r, err := s.Apply(t.Context(), one); !errors.Is(err, iptables.ErrOvertaken) || r.InForce || !r.Rules || s.meets("a") {
				t.Errorf("%+v, %v", r, err)
			}
			if r := s.apply(t, one); !r.Looked || !r.Rules {
				t.Errorf("%+v", r)
			}
			s.verify(t, false)
		},
		"what_was_before_cannot_be_taken_away": func(t *testing.T, s *stage) {
			s.apply(t, one)
			s.keep()
			for range 2 { // it is tried again
				if r, err := s.Apply(t.Context(), other); err == nil || !r.InForce || !r.Looked || !s.meets("b") {
					t.Errorf("%+v, %v", r, err)
				}
			}
			// The cheap check goes on meanwhile.
			if changed, err := s.Glance(); changed || err != nil {
				t.Errorf("Glance: %v, %v", changed, err)
			}
			s.emptySets()
			if changed, err := s.Glance(); !changed || err != nil {
				t.Errorf("Glance at empty sets: %v, %v", changed, err)
			}
			s.verify(t, true)
			s.letGo()
			s.apply(t, other)
			s.verify(t, false)
		},
		"bridges_are_switched_on_and_back": func(t *testing.T, s *stage) {
			s.addBridge("br0")
			s.addBridge("br1")
			step := func(wish map[string]bool, br0 bool, off ...string) {
				t.Helper()
				got, err := s.Bridges(wish)
				if err != nil || !slices.Equal(got, off) || s.handsOver("br0") != br0 || s.handsOver("br1") {
					t.Errorf("off %v, error %v", got, err)
				}
			}
			on := map[string]bool{"br0": true, "br1": false, "gone": true}
			step(on, true)
			step(on, true)
			s.switchOff("br0")
			step(on, true, "br0")
			step(on, true)
			s.plane = s.open()
			step(nil, false)
			step(on, true)
		},
		"bridges_need_br_netfilter": func(t *testing.T, s *stage) {
			s.addBridge("br0")
			s.noFilter()
			_, err := s.Bridges(map[string]bool{"br0": true})
			var some iptables.BridgeError
			if !errors.As(err, &some) || !errors.Is(some["br0"], iptables.ErrNoBridgeFilter) || s.handsOver("br0") {
				t.Errorf("%v", err)
			}
		},
		"connections_are_cut": func(t *testing.T, s *stage) {
			client, server := one.Containers[0], one.Containers[2]
			s.apply(t, one)
			for _, port := range []uint16{80, 90} {
				s.connect(flow(client, server, port))
				s.connect(flow(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), port))
			}
			keep := func(f iptables.Flow) bool { return f.Dst.Port() == 80 }
			if r, err := s.cut(t, nil, true, keep); err != nil || r != (iptables.CutReport{Seen: 2, Cut: 1, Listed: true}) {
				t.Errorf("%+v, %v", r, err)
			}
			if all := s.hasConnected(); len(all) != 3 || slices.Contains(all, text(flow(client, server, 90))) {
				t.Errorf("there are %q", all)
			}
			// Nothing changed since.
			if r, err := s.cut(t, nil, false, denied); err != nil || r != (iptables.CutReport{}) {
				t.Errorf("%+v, %v", r, err)
			}
			var noted []iptables.Flow
			allow := func(f iptables.Flow) bool { noted = append(noted, f); return f.Noted }
			if r, err := s.cut(t, nil, false, allow); err != nil || r != (iptables.CutReport{Allowed: 1}) {
				t.Errorf("%+v, %v", r, err)
			}
			want := iptables.Flow{Src: netip.AddrPortFrom(client, 0), Dst: netip.AddrPortFrom(server, 90), Proto: netpolicy.TCP, Noted: true}
			if len(noted) != 1 || noted[0] != want {
				t.Errorf("it asked for %v", noted)
			}
			// A member that goes has its connections gone over.
			s.apply(t, more)
			s.apply(t, iptables.Wish{Rules: one.Rules, Containers: one.Containers[:2]})
			if r, err := s.cut(t, nil, false, denied); err != nil || r.Cut != 1 {
				t.Errorf("%+v, %v", r, err)
			}
		},
		"connections_of_a_container_that_is_gone_end": func(t *testing.T, s *stage) {
			s.apply(t, one)
			s.connect(flow(one.Containers[0], one.Containers[2], 80))
			s.connect(flow(netip.MustParseAddr("192.0.2.1"), one.Containers[2], 80))
			for _, want := range []int{1, 0} {
				keep := func(iptables.Flow) bool { return true }
				if r, err := s.cut(t, map[netip.Addr]bool{one.Containers[0]: true}, false, keep); r.Ended != want || r.Cut > 0 || err != nil {
					t.Errorf("%+v, %v", r, err)
				}
			}
			if all := s.hasConnected(); len(all) != 1 {
				t.Errorf("there are %q", all)
			}
		},
	}
	for name, test := range tests {
		for on, open := range map[string]func(*testing.T) *stage{"kernel": onKernel, "fake": onFake} {
			t.Run(name+"/"+on, func(t *testing.T) { test(t, open(t)) })
		}
	}
}
