package netpolicy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"netguard/netpolicy/conformance"
)

func caseNamed(t *testing.T, name string) conformance.Case {
	t.Helper()
	all := conformance.Cases()
	i := slices.IndexFunc(all, func(c conformance.Case) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("there is no case %s", name)
	}
	return all[i]
}

func mustLoad(t testing.TB, text string) []Policy {
	t.Helper()
	c := Load(texts("test.yaml", text))
	if faults := c.Faults(); len(faults) > 0 {
		t.Fatal(faults)
	}
	return c.Policies()
}

// What an operator reads who is about to apply policies.
func TestPlanReads(t *testing.T) {
	tiers := caseNamed(t, "three_tiers")
	for _, test := range []struct{ name, before, after string }{
		{"from_nothing", "", tiers.Policies},
		{"to_nothing", tiers.Policies, ""},
		{"a_port_more", tiers.Policies, strings.ReplaceAll(tiers.Policies, "tcp/5432", "tcp/5432-5433")},
		{"a_guardrail_more", tiers.Policies, tiers.Policies + `
---
name: no-client
select: {}
deny: [{ingress: {from: [{cidr: 198.51.100.0/24, except: [198.51.100.128/25]}]}}]
`},
		{"renamed", tiers.Policies, strings.ReplaceAll(tiers.Policies, "name: db", "name: database")},
	} {
		t.Run(test.name, func(t *testing.T) {
			endpoints := hostOf(tiers)
			before := Compile(World{Endpoints: refs(endpoints), Policies: mustLoad(t, test.before)})
			after := Compile(World{Endpoints: refs(endpoints), Policies: mustLoad(t, test.after)})
			d := Plan(before, after, refs(endpoints), []netip.Addr{conformance.HostAddr(conformance.Subnet4(0)), conformance.HostAddr(conformance.Subnet6(0))})
			var b strings.Builder
			for _, e := range d.Endpoints {
				b.WriteString(e.Sentence + "\n")
			}
			for _, c := range d.Connections {
				b.WriteString(c.Sentence + "\n")
			}
			golden(t, "testdata/plan_"+test.name+".golden", b.String())
		})
	}
}

func TestPlan(t *testing.T) {
	t.Run("of_no_change_is_empty", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			w, _ := drawWorld(t)
			rs := Compile(w)
			if d := Plan(rs, rs, w.Endpoints, nil); !d.Empty() {
				t.Fatalf("%+v", d)
			}
		})
	})
	t.Run("names_replicas_that_reach_each_other", func(t *testing.T) {
		one, two := managed("db-1", "n", "10.0.0.2"), managed("db-2", "n", "10.0.0.3")
		one.Service, two.Service = "db", "db"
		endpoints := []Endpoint{one, two}
		after := Compile(World{Endpoints: refs(endpoints), Policies: mustLoad(t, "{name: db, select: {service: db}, ingress: [{from: [{entity: host}, {entity: external}]}]}")})
		d := Plan(Compile(World{Endpoints: refs(endpoints)}), after, refs(endpoints), nil)
		if len(d.Connections) != 1 || d.Connections[0].Sentence != "db-1, db-2 may no longer reach db-1, db-2 on n by everything over IPv4: denied by policy db" {
			t.Errorf("%+v", d.Connections)
		}
	})
	t.Run("parts_the_world_at_both_ends_of_a_CIDR", func(t *testing.T) {
		endpoints := []Endpoint{managed("a", "n", "10.0.0.2")}
		after := Compile(World{Endpoints: refs(endpoints), Policies: mustLoad(t, "{name: a, select: {service: a}, egress: [{to: [{cidr: 0.0.0.0/1}]}]}")})
		d := Plan(Compile(World{Endpoints: refs(endpoints)}), after, refs(endpoints), []netip.Addr{addr("10.0.0.1")})
		if len(d.Connections) != 1 || d.Connections[0].Sentence != "a may no longer reach the rest of the world on n by everything over IPv4: denied by policy a" {
			t.Errorf("%+v", d.Connections)
		}
	})
	t.Run("names_every_connection_that_changes", func(t *testing.T) {
		changed, same := 0, 0
		rapid.Check(t, func(t *rapid.T) {
			w, _ := drawWorld(t)
			before := Compile(w)
			other, _ := drawWorld(t)
			w.Policies, w.Broken = other.Policies, nil
			after := Compile(w)
			d := Plan(before, after, w.Endpoints, []netip.Addr{netip.MustParseAddr(hosts[0]), netip.MustParseAddr(hosts[2])})
			was, is := NewJudge(before), NewJudge(after)
			for range 20 {
				ipv6 := rapid.Bool().Draw(t, "ipv6")
				src, dst := somewhere(t, "src", w.Endpoints, ipv6), somewhere(t, "dst", w.Endpoints, ipv6)
				if src.endpoint == nil || dst.endpoint == nil || src.addr == dst.addr || src.endpoint.Network != dst.endpoint.Network {
					continue
				}
				s := drawConn(t)
				packet, ok := s.packet(Packet{Src: src.addr, Dst: dst.addr}, ipv6)
				if !ok {
					continue
				}
				then, now := was.Walk(packet).Allowed, is.Walk(packet).Allowed
				named := slices.ContainsFunc(d.Connections, func(c ConnectionChange) bool {
					return c.Allowed == now && slices.Contains(c.From, src.endpoint.Name) && slices.Contains(c.To, dst.endpoint.Name) &&
						slices.Contains(c.Networks, src.endpoint.Network) &&
						(c.Family == "" || c.Family == familyName(ipv6)) && covers(c.Service, s)
				})
				if named != (then != now) {
					t.Fatalf("%+v was %v and is %v, which the plan names: %v\n%+v", packet, then, now, named, d.Connections)
				}
				if then != now {
					changed++
				} else {
					same++
				}
			}
		})
		if changed == 0 || same == 0 {
			t.Errorf("%d connections changed, %d did not", changed, same)
		}
	})
}

// covers tells whether a text of services speaks of one.
func covers(text string, s Service) bool {
	if text == "everything" {
		return true
	}
	if rest, ok := strings.CutPrefix(text, "everything but "); ok {
		return !covers(rest, s)
	}
	for word := range strings.SplitSeq(text, ", ") {
		word = strings.Replace(word, "icmpv6", "icmp", 1)
		switch {
		case word == s.String(), word == s.Proto.String():
			return true
		case s.Proto.HasPorts() && strings.HasPrefix(word, s.Proto.String()+"/"):
			if p, err := parsePort(word); err == nil && newPorts([]portSpec{p}).contain(s.Proto, s.Port) {
				return true
			}
		}
	}
	return false
}
