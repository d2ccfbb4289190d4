package guard

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"pgregory.net/rapid"
)

var allFeatures = Features{Locked: true, Sticky: true, Filter: true, Prefixes: true}

func aPort(index int) *Port {
	return &Port{Index: index, Bridge: 1, MAC: MAC{2, 0, 0, 0, 0, byte(index)}, IPv4: netip4(10, 0, 0, byte(index)),
		Gateways: []netip.Addr{netip4(10, 0, 0, 1)}, Guarded: true, Admitted: true}
}

func TestPlan(t *testing.T) {
	bridge := map[int]MAC{1: {2, 0, 0, 0, 0, 1}}
	second := func(change func(*Port)) func() []*Port {
		return func() []*Port {
			p, old := aPort(20), aPort(10)
			old.Container = "old"
			change(p)
			return []*Port{p, old}
		}
	}
	for _, c := range []struct {
		name   string
		ports  func() []*Port
		states map[int]State
		fault  string // of port 20
	}{
		{"two_ports", second(func(*Port) {}), map[int]State{10: Admitted, 20: Admitted}, ""},
		{"not_admitted", second(func(p *Port) { p.Admitted = false }), map[int]State{10: Admitted, 20: Quarantined}, ""},
		{"not_guarded", second(func(p *Port) { p.Guarded = false }), map[int]State{10: Admitted, 20: Trusted}, ""},
		{"the_older_port_keeps_a_MAC", second(func(p *Port) { p.MAC = aPort(10).MAC }),
			map[int]State{10: Admitted, 20: Quarantined}, "its MAC 02:00:00:00:00:0a is that of container old on the same bridge: give the container another --mac-address"},
		{"a_MAC_may_be_on_another_bridge", second(func(p *Port) { p.MAC, p.Bridge = aPort(10).MAC, 2 }), map[int]State{10: Admitted, 20: Admitted}, ""},
		{"the_bridges_MAC", second(func(p *Port) { p.MAC = bridge[1] }), map[int]State{10: Admitted, 20: Quarantined}, "its MAC 02:00:00:00:00:01 is that of the bridge"},
		{"the_older_port_keeps_an_address", second(func(p *Port) { p.IPv4 = aPort(10).IPv4 }), map[int]State{10: Admitted, 20: Quarantined}, "its address 10.0.0.10 is that of container old"},
		{"an_address_is_taken_on_every_bridge", second(func(p *Port) { p.IPv4, p.Bridge = aPort(10).IPv4, 2 }), map[int]State{10: Admitted, 20: Quarantined}, "its address 10.0.0.10"},
		{"the_gateways_address", second(func(p *Port) { p.IPv4 = netip4(10, 0, 0, 1) }), map[int]State{10: Admitted, 20: Quarantined}, "its address 10.0.0.1 is that of the bridge"},
		{"no_MAC", second(func(p *Port) { p.MAC = MAC{} }), map[int]State{10: Admitted, 20: Quarantined}, "00:00:00:00:00:00 is no MAC"},
		{"a_group_MAC", second(func(p *Port) { p.MAC[0] = 1 }), map[int]State{10: Admitted, 20: Quarantined}, "is no MAC"},
		{"wished_for_twice", func() []*Port { return []*Port{aPort(20), aPort(20), aPort(10)} }, map[int]State{10: Admitted, 20: Quarantined}, "the port is wished for twice"},
		{"one_that_is_not_admitted_keeps_its_address", func() []*Port {
			a, b := aPort(10), aPort(20)
			a.Admitted, b.IPv4 = false, a.IPv4
			return []*Port{a, b}
		}, map[int]State{10: Quarantined, 20: Quarantined}, "its address 10.0.0.10"},
		{"a_label_takes_no_gateway", second(func(p *Port) { p.Allow, _ = ParseAllow("10.0.0.1") }), map[int]State{10: Admitted, 20: Admitted}, "label netguard.guard.allow: 10.0.0.1 is the address of the bridge"},
		{"a_label_takes_no_containers_address", second(func(p *Port) { p.Allow, _ = ParseAllow("10.0.0.10") }), map[int]State{10: Admitted, 20: Admitted}, "10.0.0.10 is the address of container old"},
		{"a_label_takes_no_containers_MAC", second(func(p *Port) { p.Allow.MACs = []MAC{aPort(10).MAC} }), map[int]State{10: Admitted, 20: Admitted}, "02:00:00:00:00:0a is the MAC of container old"},
		{"a_label_takes_no_address_of_a_container_elsewhere", second(func(p *Port) { p.Allow, _ = ParseAllow("172.31.0.9") }), map[int]State{10: Admitted, 20: Admitted}, "172.31.0.9 is the address of a container on a network that is not managed"},
		{"a_port_keeps_its_address_whatever_is_said_of_others", second(func(p *Port) { p.IPv4 = netip.MustParseAddr("172.31.0.9") }), map[int]State{10: Admitted, 20: Admitted}, ""},
		{"a_label_takes_no_link_local_address", second(func(p *Port) { p.Allow, _ = ParseAllow(aPort(10).MAC.LinkLocal().String()) }), map[int]State{10: Admitted, 20: Admitted}, "is the address of container old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlan(Wish{Ports: c.ports(), Taken: []netip.Addr{netip.MustParseAddr("172.31.0.9")}}, allFeatures, bridge)
			got := map[int]State{}
			for index, pp := range p.ports {
				got[index] = pp.state
			}
			if diff := cmp.Diff(c.states, got); diff != "" {
				t.Errorf("states (-want +got):\n%s", diff)
			}
			faults := strings.Join(p.ports[20].faults, "; ")
			if (c.fault == "") != (faults == "") || !strings.Contains(faults, c.fault) {
				t.Errorf("faults %q, want %q", faults, c.fault)
			}
			if len(p.ports[10].faults) > 0 {
				t.Errorf("the other port has faults: %q", p.ports[10].faults)
			}
			// Nobody else gets what a refused one wanted.
			for e := range p.sets[setV4] {
				if pp := p.ports[e.portOf()]; pp.state != Admitted {
					t.Errorf("port %d is %s and may send", e.portOf(), pp.state)
				}
			}
		})
	}
	t.Run("without_sets_of_prefixes_a_prefix_is_a_fault", func(t *testing.T) {
		port := aPort(20)
		port.Allow, _ = ParseAllow("10.0.0.0/8,192.0.2.1")
		f := allFeatures
		f.Prefixes = false
		p := newPlan(Wish{Ports: []*Port{port}}, f, nil)
		if got := p.ports[20]; len(got.faults) != 1 || !strings.Contains(got.faults[0], "Linux 5.6") || len(p.sets[setV4]) != 2 {
			t.Errorf("faults %q, %d addresses", got.faults, len(p.sets[setV4]))
		}
	})
}

// A container may answer on one of its bridges under its address on another, and under
// nobody else's.
func TestPlanAnswers(t *testing.T) {
	a, b, c := aPort(10), aPort(20), aPort(30)
	a.Container, b.Container, b.Bridge = "one", "one", 2
	a.Answers = []netip.Addr{b.IPv4, c.IPv4, a.IPv4, b.MAC.LinkLocal(), netip4(10, 0, 0, 1), netip4(172, 31, 0, 9), netip4(10, 0, 0, 99)}
	c.Answers = []netip.Addr{b.IPv4} // it has no name
	p := newPlan(Wish{Ports: []*Port{a, b, c}, Taken: []netip.Addr{netip4(172, 31, 0, 9)}}, allFeatures, nil)
	got := map[int][]string{}
	for e := range p.sets[setV4] {
		at, _ := netip.AddrFromSlice([]byte(e.key[len(e.key)-4:]))
		got[e.portOf()] = append(got[e.portOf()], at.String())
	}
	for i := range got {
		slices.Sort(got[i])
	}
	want := map[int][]string{10: {"10.0.0.10", "10.0.0.20", "10.0.0.99"}, 20: {"10.0.0.20"}, 30: {"10.0.0.30"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if at := p.neighbours[Neighbour{1, b.IPv4}]; at != (neighbour{}) {
		t.Error("the host looks for the address on the wrong bridge")
	}
	for i, pp := range p.ports {
		if len(pp.faults) > 0 {
			t.Errorf("port %d: %q", i, pp.faults)
		}
		if i != 20 && slices.Contains(pp.addrs, b.IPv4) {
			t.Errorf("port %d has limits of another", i)
		}
	}
}

func TestPlanBounds(t *testing.T) {
	// As many labels as there can be, each as large as it may be.
	var w Wish
	for i := range 2000 {
		p := aPort(2 + i)
		p.MAC, p.IPv4 = MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}, netip4(10, 1, byte(i>>8), byte(i))
		for j := range MaxAllow / 2 {
			p.Allow.MACs = append(p.Allow.MACs, MAC{2, 2, byte(j), 0, byte(i >> 8), byte(i)})
			p.Allow.Prefixes = append(p.Allow.Prefixes, netip.PrefixFrom(netip4(192, byte(j), 2, 1), 32-i%2))
		}
		w.Ports = append(w.Ports, p)
	}
	plan := newPlan(w, allFeatures, nil)
	for _, s := range sets(Features{Prefixes: true, Samples: true}) {
		if n := len(plan.sets[s.name]); s.size > 0 && n > int(s.size) || s.interval && n > maxPrefixes {
			t.Errorf("set %s has %d elements", s.name, n)
		}
	}
	left := 0
	for _, pp := range plan.ports {
		if pp.state != Admitted {
			t.Errorf("port %d is %s: %q", pp.Index, pp.state, pp.faults)
		}
		if len(pp.faults) > 0 {
			left++
		}
	}
	if left == 0 || left == len(plan.ports) {
		t.Errorf("%d labels were left out", left)
	}
}

// TestPlanOrder checks that a plan does not depend on the order of the wish.
func TestPlanOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ports []*Port
		for i := range rapid.IntRange(1, 6).Draw(t, "ports") {
			p := aPort(2 + i)
			p.MAC[5] = byte(rapid.IntRange(1, 4).Draw(t, "MAC"))
			p.IPv4 = netip4(10, 0, 0, byte(rapid.IntRange(1, 5).Draw(t, "address")))
			p.Bridge = rapid.IntRange(1, 2).Draw(t, "bridge")
			p.Guarded, p.Admitted = rapid.Bool().Draw(t, "guarded"), rapid.Bool().Draw(t, "admitted")
			p.Allow.MACs = []MAC{{2, 0, 0, 0, 0, byte(rapid.IntRange(1, 6).Draw(t, "extra"))}}
			ports = append(ports, p)
		}
		one := newPlan(Wish{Ports: ports}, allFeatures, map[int]MAC{1: {2, 0, 0, 0, 0, 1}})
		two := newPlan(Wish{Ports: rapid.Permutation(ports).Draw(t, "order")}, allFeatures, map[int]MAC{1: {2, 0, 0, 0, 0, 1}})
		if diff := cmp.Diff(one.fields(), two.fields(), planFields); diff != "" {
			t.Fatalf("the order counts:\n%s", diff)
		}
		// What a container has nobody else has.
		macs := map[bridgeMAC]int{}
		for _, pp := range one.ports {
			for _, m := range pp.macs {
				key := bridgeMAC{pp.Bridge, m}
				if other, ok := macs[key]; ok {
					t.Fatalf("ports %d and %d both have %s", other, pp.Index, m)
				}
				macs[key] = pp.Index
			}
		}
		addrs := map[string]int{}
		for e := range one.sets[setV4] {
			a := e.key[12:]
			if other, ok := addrs[a]; ok && other != e.portOf() {
				t.Fatalf("ports %d and %d both have %v", other, e.portOf(), []byte(a))
			}
			addrs[a] = e.portOf()
		}
	})
}

func TestDiff(t *testing.T) {
	l, err := newLayout(Options{}, allFeatures)
	if err != nil {
		t.Fatal(err)
	}
	old, fresh := aPort(10), aPort(20)
	fresh.IPv4 = old.IPv4 // it follows another that had its address
	p := newPlan(Wish{Ports: []*Port{fresh}}, allFeatures, nil)
	k := &kernelState{
		table:      &tableState{present: true, live: true, format: Format, id: l.id, rules: l.lines, sets: newPlan(Wish{Ports: []*Port{old}}, allFeatures, nil).sets},
		ports:      map[int]bridgePort{10: {1, guarded(portDefaults)}, 20: {1, portDefaults}},
		pins:       map[int]map[MAC]fdbEntry{10: {old.MAC: {10, 0x40, ntfSticky}}},
		neighbours: map[Neighbour]MAC{{1, old.IPv4}: old.MAC, {1, old.MAC.LinkLocal()}: old.MAC},
		before:     map[int]settings{10: portDefaults, 20: portDefaults},
	}
	for _, s := range l.sets {
		if s.dynamic {
			k.table.sets[s.name] = nil
		}
	}
	w := diff(p, k, allFeatures, l, scope{all: true})
	t.Run("adopts_the_table", func(t *testing.T) {
		if w.admit.create || w.admit.rules() {
			t.Error("the table is replaced")
		}
	})
	t.Run("adds_before_deletes", func(t *testing.T) {
		want := []string{"add neighbour 10.0.0.10 at 02:00:00:00:00:14",
			"add neighbour fe80::ff:fe00:14 at 02:00:00:00:00:14", "pin 02:00:00:00:00:14 to port 20",
			`set port 20 to "mcast_flood bcast_flood guard locked group_fwd_mask=0xfffd"`,
			`set port 10 to "learning flood mcast_flood bcast_flood"`,
			"unpin 02:00:00:00:00:0a from port 10", "delete neighbour fe80::ff:fe00:a"}
		var got []string
		for _, s := range slices.Concat(w.additions, w.settings, w.deletions) {
			got = append(got, s.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
	})
	t.Run("keeps_records_until_the_end", func(t *testing.T) {
		if size(w.release.del) != 2 || len(w.release.del[setPorts]) != 1 || len(w.release.del[setMAC]) != 1 {
			t.Errorf("released: %v", w.release.del)
		}
		if len(w.admit.del[setPorts])+len(w.admit.del[setMAC]) > 0 {
			t.Error("a record goes first")
		}
	})
	t.Run("an_address_changes_hands_in_one_transaction", func(t *testing.T) {
		if len(w.admit.add[setV4]) != 1 || len(w.admit.del[setV4]) != 1 || len(w.admit.del[setOwn4]) != 0 {
			t.Errorf("%v %v", w.admit.add[setV4], w.admit.del)
		}
	})
	t.Run("another_layout_is_replaced_with_its_records", func(t *testing.T) {
		k.table.id = layoutPrefix + "older"
		w := diff(p, k, allFeatures, l, scope{all: true})
		if !w.admit.create || !w.admit.remove || len(w.admit.add[setPorts]) != 2 || len(w.admit.add[setMAC]) != 2 || len(w.admit.add[setV4]) != 1 {
			t.Errorf("%+v", w.admit)
		}
	})
}

// TestLayout has the whole rule set depend on nothing but options and features, and
// refuse at the end of each chain that a frame can be lost in.
func TestLayout(t *testing.T) {
	one, err := newLayout(Options{Storm: DefaultStorm}, allFeatures)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("is_the_same_each_time", func(t *testing.T) {
		if two, _ := newLayout(Options{Storm: DefaultStorm}, allFeatures); two.id != one.id {
			t.Errorf("%s is not %s", two.id, one.id)
		}
	})
	t.Run("is_another_with_other_options", func(t *testing.T) {
		seen := map[string]string{one.id: "the first"}
		for name, o := range map[string]Options{
			"monitor": {Storm: DefaultStorm, Mode: Monitor},
			"open":    {Storm: DefaultStorm, Open: true}, "no storm": {}, "rate": {Storm: Storm{Rate: 1, Burst: 2000}},
		} {
			l, err := newLayout(o, allFeatures)
			if err != nil || seen[l.id] != "" {
				t.Errorf("%s: same as %s, %v", name, seen[l.id], err)
			}
			seen[l.id] = name
		}
	})
	t.Run("ends_each_chain_with_a_verdict", func(t *testing.T) {
		last := map[string]rule{}
		for _, r := range one.rules {
			last[r.chain] = r
		}
		for chain, r := range last {
			conditions := slices.DeleteFunc(slices.Clone(r.exprs), func(e expr.Any) bool { _, counts := e.(*expr.Counter); return counts })
			if _, hooked := baseChains[bridgeFamily][chain]; !hooked && len(conditions) != 1 && chain != UnknownPortChain {
				t.Errorf("chain %s ends with a condition: %s", chain, r.comment)
			}
		}
	})
}
