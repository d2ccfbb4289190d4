package guard

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// somePort draws a port from little, so that ports ask for the same.
func somePort(t *rapid.T, index int) *Port {
	few := func(what string) int { return rapid.IntRange(1, 6).Draw(t, what) }
	rarely := func(what string) bool { return rapid.IntRange(0, 5).Draw(t, what) == 0 }
	p := &Port{Index: index, Bridge: rapid.IntRange(1, 2).Draw(t, "bridge"), MAC: MAC{2, 0, 0, 0, 0, byte(few("MAC"))},
		IPv4: netip4(10, 0, 0, byte(few("address"))), Gateways: []netip.Addr{netip4(10, 0, 0, 1)},
		Guarded: !rarely("left alone"), Admitted: !rarely("not admitted"), Isolated: rarely("isolated"), DHCPServer: rarely("server"),
		Container: string('a' + rune(few("container"))), Connections: uint32(rapid.IntRange(0, 2).Draw(t, "connections"))}
	if rarely("nobody's") {
		p.MAC, p.IPv4, p.Admitted = MAC{}, netip.Addr{}, false
	}
	if rarely("IPv6") {
		p.IPv6 = netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(few("IPv6 address"))})
	}
	if rarely("answers") {
		p.Answers = []netip.Addr{netip4(10, 0, 0, byte(few("answer")))}
	}
	if rarely("allow") {
		p.Allow.MACs = []MAC{{2, 0, 0, 0, 0, byte(few("allowed MAC"))}}
		p.Allow.Prefixes = []netip.Prefix{netip.PrefixFrom(netip4(10, 0, 0, byte(few("allowed"))), 32), netip.MustParsePrefix("10.9.0.0/24"),
			netip.PrefixFrom(MAC{2, 0, 0, 0, 0, byte(few("link-local"))}.LinkLocal(), 128)}
	}
	return p
}

// fields are what of a plan counts, in an order of their own.
func (p *plan) fields() map[string]any {
	ports := map[int]any{}
	for index, pp := range p.ports {
		wants := slices.Clone(pp.wants)
		slices.SortFunc(wants, func(a, b want) int { return slices.Compare([]byte(a.set+a.key+a.end), []byte(b.set+b.key+b.end)) })
		ports[index] = []any{pp.Port, pp.state, pp.macs, pp.addrs, pp.faults, wants, pp.extras, pp.prefixes}
	}
	askers := map[asset][]int{}
	for a, all := range p.askers {
		askers[a] = slices.Sorted(slices.Values(all))
	}
	return map[string]any{"ports": ports, "sets": p.sets, "neighbours": p.neighbours, "limits": p.connections.sets, "rules": p.connections.rules,
		"owners of limits": p.connections.owners, "extras": p.extras, "prefixes": p.prefixes, "more": p.more, "addresses": p.owners.addrs,
		"MACs": p.owners.macs, "totals": p.totals, "askers": askers, "guests": p.guests}
}

// planFields compares them.
var planFields = cmp.Options{cmp.AllowUnexported(element{}, want{}, neighbour{}, bridgeMAC{}, asset{}, total{}, rule{}),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}

// TestReplan: a wish that is worked into the plan of another one comes to the plan that it
// has by itself, whatever the way there, and what is told of the difference is all of it.
func TestReplan(t *testing.T) {
	bridges := map[int]MAC{1: {2, 0, 0, 0, 0, 1}, 2: {2, 0, 0, 0, 0, 2}}
	features := allFeatures
	features.Limits, features.ARP = true, true
	var worked int
	rapid.Check(t, func(t *rapid.T) {
		w := Wish{Bridges: []Bridge{{Index: 1, Name: "one"}, {Index: 2, Name: "two"}}}
		if rapid.Bool().Draw(t, "taken") {
			w.Taken = []netip.Addr{netip4(10, 0, 0, 6)}
		}
		ports := map[int]*Port{}
		for index := range rapid.IntRange(10, 30).Draw(t, "ports") {
			ports[10+index] = somePort(t, 10+index)
		}
		make := func() *plan {
			w.Ports = slices.Collect(maps.Values(ports))
			return newPlan(w, features, bridges)
		}
		p := make()
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			before := make()
			changed := map[int]*Port{}
			for range rapid.IntRange(1, 3).Draw(t, "changes") {
				index := rapid.IntRange(10, 41).Draw(t, "port")
				_, there := ports[index]
				if there && rapid.Bool().Draw(t, "goes") {
					delete(ports, index)
					changed[index] = nil
					continue
				}
				port := somePort(t, index)
				ports[index], changed[index] = port, port
			}
			for index, port := range changed {
				if _, was := before.ports[index]; port == nil && !was {
					delete(changed, index)
				}
			}
			differs, ok := p.replan(changed, features)
			after := make()
			if !ok {
				p = after
				continue
			}
			worked++
			if diff := cmp.Diff(after.fields(), p.fields(), planFields); diff != "" {
				t.Fatalf("-whole +worked in:\n%s", diff)
			}
			for set, all := range after.sets {
				for e := range all {
					_, was := before.sets[set][e]
					if _, told := differs.elements[want{set, e}]; !was && !told {
						t.Fatalf("%q of %s is new and not told", e, set)
					}
				}
				for e := range before.sets[set] {
					_, stays := all[e]
					if _, told := differs.elements[want{set, e}]; !stays && !told {
						t.Fatalf("%q of %s went and is not told", e, set)
					}
				}
			}
			for index, pp := range after.ports {
				was := before.ports[index]
				if _, told := differs.ports[index]; !told && (was == nil || was.state != pp.state || !slices.Equal(was.macs, pp.macs) || !slices.Equal(was.faults, pp.faults)) {
					t.Fatalf("port %d is another and not told", index)
				}
			}
			for n, a := range after.neighbours {
				if _, told := differs.neighbours[n]; !told && before.neighbours[n] != a {
					t.Fatalf("neighbour %v is new and not told", n)
				}
			}
			for n := range before.neighbours {
				_, stays := after.neighbours[n]
				if _, told := differs.neighbours[n]; !told && !stays {
					t.Fatalf("neighbour %v went and is not told", n)
				}
			}
			for _, set := range []string{setMax4, setMax6} {
				a, b := after.connections.sets[set], before.connections.sets[set]
				for _, all := range []elements{a, b} {
					for e := range all {
						if _, told := differs.limits[want{set, e}]; !told && a[e] != b[e] {
							t.Fatalf("the limit of %q is another and not told", e)
						}
					}
				}
			}
		}
	})
	t.Logf("%d wishes were worked in", worked)
	if worked < 50 {
		t.Errorf("only %d wishes were worked in", worked)
	}
}
