package netpolicy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// editable gives policies of so many services, the text of one of which has other ports.
func editable(t *testing.T, services, edited int, asks, answers string) *RuleSet {
	var text strings.Builder
	var w World
	for i := range services {
		host, own := "udp/7", "tcp/80"
		if i == edited {
			host, own = asks, answers
		}
		name := func(n int) string { return fmt.Sprintf("s%02d", n%services) }
		fmt.Fprintf(&text, "---\nname: %[1]s\nselect: {service: %[1]s}\ningress: [{from: [{service: %[2]s}], ports: [%[4]s]}]\n"+
			"egress: [{to: [{service: %[3]s}], ports: [tcp/80]}, {to: [{entity: host}], ports: [%[5]s]}]\n", name(i), name(i+1), name(i+services-1), own, host)
		w.Endpoints = append(w.Endpoints, &Endpoint{Workload: Workload{ID: name(i), Name: name(i), Service: name(i)}, Network: "n", Managed: true,
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}})
	}
	w.Policies = mustLoad(t, text.String())
	return Compile(w)
}

// An edit of what a service may do is about few chains and no set: the others have the names,
// and so the rules, that they had.
func TestEditChangesFewChains(t *testing.T) {
	for name, c := range map[string]struct {
		asks, answers string
		chains        string // by path and stage, that change
	}{
		"what_it_may_ask_the_host": {asks: "udp/7, udp/8", answers: "tcp/80", chains: "I IE"},
		"what_may_reach_it":        {asks: "udp/7", answers: "tcp/80, tcp/81", chains: "F FE FEL FI I P PE PEL PI"},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := editable(t, 40, 7, "udp/7", "tcp/80"), editable(t, 40, 7, c.asks, c.answers)
			if before.Generation == after.Generation {
				t.Fatal("one generation")
			}
			for i, f := range after.Families() {
				was := before.Families()[i]
				changed, rules, all := map[string]bool{}, 0, 0
				for _, chain := range f.Chains {
					all += len(chain.Rules)
					j := slices.IndexFunc(was.Chains, func(o Chain) bool { return o.Name == chain.Name })
					if j < 0 {
						changed[chainCode(chain.Name)] = true
						rules += len(chain.Rules)
					} else if !slices.EqualFunc(was.Chains[j].Rules, chain.Rules, sameRule) {
						t.Errorf("chain %s has other rules", chain.Name)
					}
				}
				for code := range changed {
					if !slices.Contains(strings.Fields(c.chains), code) {
						t.Errorf("chain %s changed", code)
					}
				}
				if rules == 0 || name == "what_it_may_ask_the_host" && rules > all/2 {
					t.Errorf("%d of %d rules changed", rules, all)
				}
			}
		})
	}
}

func sameRule(a, b Rule) bool { return string(a.appendTo(nil)) == string(b.appendTo(nil)) }

// Sets that two generations share have the same members in both, whatever the policies are.
func TestScopedSetsAreTheSameInTwoGenerations(t *testing.T) {
	shared, scoped := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w, _ := drawWorld(t)
		other := w
		if more, _ := drawWorld(t); sometimes(t, "other", 2) {
			other.Policies = more.Policies
		} else {
			n := rapid.IntRange(0, len(w.Policies)).Draw(t, "fewer")
			other.Policies = w.Policies[:n]
		}
		for _, world := range []*World{&w, &other} {
			if broken := drawSelector(t, false); sometimes(t, "broken", 2) {
				world.Broken = []Broken{{Policy: "bad", Select: Selector{project: broken.Project, service: broken.Service}}}
			}
		}
		other.Places = sometimes(t, "places", 5)
		a, b := Compile(w), Compile(other)
		for i, f := range a.Families() {
			for _, s := range f.Sets {
				j := slices.IndexFunc(b.Families()[i].Sets, func(o Set) bool { return o.Name == s.Name })
				if !s.Scoped || j < 0 || a.Generation == b.Generation {
					continue
				}
				if scoped++; len(s.Members) > 0 {
					shared++
				}
				if got := b.Families()[i].Sets[j]; got.Kind != s.Kind || !slices.Equal(got.Members, s.Members) {
					t.Fatalf("%s (%s) has %v, and %v in another generation", s.Name, s.About, s.Members, got.Members)
				}
			}
		}
	})
	if shared == 0 {
		t.Errorf("of %d sets in two generations none has members", scoped)
	}
}
