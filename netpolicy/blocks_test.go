package netpolicy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// steps counts the rules that a packet meets.
func steps(rs *RuleSet, p Packet) int {
	j := NewJudge(rs)
	f := &j.families[index(p.Src.Is6())]
	n := 0
	for chain := f.Entry[p.Path]; ; {
		for i := range f.chains[chain] {
			r := &f.chains[chain][i]
			n++
			if !f.matches(r, &p) {
				continue
			}
			if r.Verdict != Goto {
				return n
			}
			chain = r.Goto
			break
		}
	}
}

// crowd is n containers of n services, each with a policy about it.
func crowd(n int, policy func(i int) string) World {
	var w World
	var sources []Source
	for i := range n {
		w.Endpoints = append(w.Endpoints, refs([]Endpoint{managed(fmt.Sprintf("s%d-1", i), "n", fmt.Sprintf("10.0.%d.%d", i/250, 2+i%250))})...)
		w.Endpoints[i].Service = fmt.Sprintf("s%d", i)
		if i%400 == 0 {
			sources = append(sources, Source{Name: fmt.Sprintf("%03d.yaml", i)})
		}
		s := &sources[len(sources)-1]
		s.Data = append(s.Data, "---\n"+policy(i)+"\n"...)
	}
	c := Load(sources)
	if len(c.Faults()) > 0 {
		panic(c.Faults())
	}
	w.Policies = c.Policies()
	return w
}

// A packet does not meet a rule for each policy.
func TestManyPoliciesAreNotMetOneByOne(t *testing.T) {
	const n = 400
	neighbour := func(i int) int { return (i + 1) % n }
	for name, policy := range map[string]func(i int) string{
		"each_about_its_own_service": func(i int) string {
			return fmt.Sprintf("{name: p%d, select: {service: s%d}, ingress: [{from: [{service: s%d}]}]}", i, i, neighbour(i))
		},
		"both_ends": func(i int) string {
			return fmt.Sprintf("{name: p%d, select: {service: s%d}, ingress: [{from: [{service: s%d}]}], egress: [{to: [{service: s%d}]}]}", i, i, neighbour(i), (i+n-1)%n)
		},
		"all_about_one": func(i int) string {
			return fmt.Sprintf("{name: p%d, select: {service: s0}, ingress: [{from: [{service: s%d}], ports: [tcp/%d]}]}", i, neighbour(i), 1+i)
		},
		"CIDRs_of_one": func(i int) string {
			return fmt.Sprintf("{name: p%d, select: {service: s0}, ingress: [{from: [{cidr: 172.16.%d.%d/32}]}]}", i, i/250, i%250)
		},
		"with_one_about_everybody": func(i int) string {
			if i == n/2 {
				return "{name: all, select: {}, ingress: [{from: [{entity: host}]}]}"
			}
			return fmt.Sprintf("{name: p%d, select: {service: s%d}, ingress: [{from: [{service: s%d}]}]}", i, i, neighbour(i))
		},
		"guardrails": func(i int) string {
			return fmt.Sprintf("{name: p%d, select: {service: s%d}, deny: [{ingress: {from: [{service: s%d}]}}]}", i, i, neighbour(i))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := crowd(n, policy)
			rs := Compile(w)
			judge := NewJudge(compile(w, 1<<30))
			parted := NewJudge(rs)
			most := 0
			for i := range 100 {
				for _, j := range []int{neighbour(i), i + 100} {
					p := Packet{Src: w.Endpoints[j].Addrs[0], Dst: w.Endpoints[i].Addrs[0], Proto: TCP, Port: 80}
					if i%2 == 1 { // somebody outside, to the first
						p.Src, p.Dst = netip.MustParseAddr("172.16.0.7"), w.Endpoints[0].Addrs[0]
					}
					most = max(most, steps(rs, p))
					if is, want := parted.Walk(p), judge.Walk(p); is.Allowed != want.Allowed {
						t.Fatalf("%+v is %v, want %v", p, is.Allowed, want.Allowed)
					}
				}
			}
			rules := 0
			for _, c := range rs.V4.Chains {
				rules += len(c.Rules)
			}
			if most > 100 {
				t.Errorf("a packet meets %d rules", most)
			}
			t.Logf("%d rules at most, %d chains, %d rules, %d sets", most, len(rs.V4.Chains), rules, len(rs.V4.Sets))
		})
	}
}

// Chains that are parted say of every packet what one chain says, and who says so.
func TestBlocksMeanTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, _ := drawWorld(t)
		whole, parted := NewJudge(compile(w, 1<<30)), NewJudge(compile(w, rapid.IntRange(1, 4).Draw(t, "block")))
		for range 30 {
			ipv6 := rapid.Bool().Draw(t, "ipv6")
			src, dst := somewhere(t, "src", w.Endpoints, ipv6), somewhere(t, "dst", w.Endpoints, ipv6)
			p, ok := drawConn(t).packet(Packet{Path: pathOf(src, dst), Src: src.addr, Dst: dst.addr}, ipv6)
			if !ok {
				continue
			}
			if is, want := parted.Walk(p), whole.Walk(p); !sameTrace(is, want) {
				t.Fatalf("%+v: %+v, want %+v", p, is, want)
			}
		}
	})
}

// way is the longest way from a chain.
func way(f *Family, chain string, known map[string]int) int {
	if n, ok := known[chain]; ok {
		return n
	}
	n := 0
	for _, c := range f.Chains {
		if c.Name != chain {
			continue
		}
		for _, r := range c.Rules {
			if r.Verdict == Goto {
				n = max(n, way(f, r.Goto, known))
			}
		}
	}
	known[chain] = n + 1
	return n + 1
}

// No way is longer than nf_tables takes.
func TestWaysAreShort(t *testing.T) {
	longest := 0
	rapid.Check(t, func(t *rapid.T) {
		w, _ := drawWorld(t)
		rs := compile(w, drawBlock(t))
		for _, f := range rs.Families() {
			for _, entry := range f.Entry {
				n := way(f, entry, map[string]int{})
				if longest = max(longest, n); n > maxWay {
					t.Fatalf("a way of %d chains", n)
				}
			}
		}
	})
	t.Logf("the longest has %d chains", longest)
}

// A prefix within another is asked about by both of their rules.
func TestBlocksOfOverlappingCIDRs(t *testing.T) {
	var text strings.Builder
	cidrs := []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "192.0.2.0/24"}
	for i, c := range cidrs {
		fmt.Fprintf(&text, "---\n{name: p%d, select: {}, ingress: [{from: [{cidr: %s}], ports: [tcp/%d]}]}\n", i, c, 80+i)
	}
	to := managed("to", "n", "172.16.0.2")
	judge := NewJudge(compile(World{Endpoints: refs([]Endpoint{to}), Policies: mustLoad(t, text.String())}, 1))
	for _, from := range []string{"10.9.9.9", "10.1.9.9", "10.1.2.9", "10.1.2.3", "192.0.2.1", "203.0.113.1"} {
		for i, c := range cidrs {
			p := Packet{Src: addr(from), Dst: to.Addrs[0], Proto: TCP, Port: uint16(80 + i)}
			if got, want := judge.Walk(p).Allowed, prefixOf(c).Contains(p.Src); got != want {
				t.Errorf("%s by tcp/%d is %v, want %v", from, p.Port, got, want)
			}
		}
	}
}

// An address goes from one container to another, of another block: what a
// guardrail of either refuses is refused throughout.
func TestBlocksOfGuardrailsWhileMembersChange(t *testing.T) {
	var text strings.Builder
	for i := range 5 {
		fmt.Fprintf(&text, "---\n{name: p%d, select: {service: s%d}, deny: [{egress: {}}]}\n", i, i)
	}
	policies := mustLoad(t, text.String())
	as := func(service string) *RuleSet {
		e := managed("x", "n", "10.0.0.2")
		e.Service = service
		return compile(World{Endpoints: refs([]Endpoint{e}), Policies: policies}, 1)
	}
	p := Packet{Src: addr("10.0.0.2"), Dst: addr("10.0.0.3"), Proto: TCP, Port: 80}
	for i := range 5 {
		for j := range 5 {
			before, after := as(fmt.Sprint("s", i)), as(fmt.Sprint("s", j))
			var have [2]map[string][]Member
			for k, f := range before.Families() {
				have[k] = map[string][]Member{}
				for _, s := range f.Sets {
					have[k][s.Name] = s.Members
				}
			}
			for _, c := range after.V4.Changes(have[0]) {
				if c.Delete {
					have[0][c.Set] = nil
				} else {
					have[0][c.Set] = append(have[0][c.Set], c.Members...)
				}
				if NewJudge(withMembers(after, have)).Walk(p).Allowed {
					t.Errorf("from s%d to s%d it passes after %+v", i, j, c)
				}
			}
		}
	}
}
