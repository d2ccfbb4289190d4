package netpolicy

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// on gives an endpoint a bridge and addresses beyond its own.
func on(e Endpoint, bridge string, extra ...string) Endpoint {
	e.Bridge = bridge
	for _, text := range extra {
		if a, err := netip.ParseAddr(text); err == nil {
			e.Extra = append(e.Extra, a)
		} else {
			e.Away = append(e.Away, netip.MustParsePrefix(text))
		}
	}
	return e
}

func contested(endpoints []Endpoint, policies []Policy) []string {
	var out []string
	for _, s := range Compile(World{Endpoints: refs(endpoints), Policies: policies, Places: true}).States {
		for _, c := range s.Contested {
			out = append(out, s.Container+" "+c.Prefix.String()+" of "+c.By)
		}
	}
	return out
}

func TestContested(t *testing.T) {
	since := func(e Endpoint, at int64) Endpoint { e.Since = at; return e }
	service := func(e Endpoint, s string) Endpoint { e.Service = s; return e }
	labelled := func(e Endpoint, key, value string) Endpoint { e.Labels = map[string]string{key: value}; return e }
	const vip = "10.0.0.200"
	lb1, lb2 := service(on(managed("lb1", "n", "10.0.0.2"), "br-n", vip), "lb"), service(on(managed("lb2", "n", "10.0.0.3"), "br-n", vip), "lb")
	evil := since(on(managed("evil", "n", "10.0.0.4"), "br-n", vip), 9)
	db := managed("db", "n", "10.0.0.5")
	const lets = `{name: db, select: {service: db}, ingress: [{from: [{service: lb}]}]}`
	for name, c := range map[string]struct {
		policies  string
		endpoints []Endpoint
		want      []string
	}{
		"a_pair_that_policies_treat_alike_has_it":    {lets, []Endpoint{lb1, lb2, db}, nil},
		"and_everybody_without_policies":             {"", []Endpoint{lb1, lb2, evil, db}, nil},
		"a_third_that_would_get_a_right_does_not":    {lets, []Endpoint{evil, lb1, lb2, db}, []string{"evil 10.0.0.200/32 of lb1"}},
		"nor_one_that_is_closed_by_its_label":        {"", []Endpoint{lb1, labelled(evil, "netguard.egress", "[]"), lb2}, []string{"evil 10.0.0.200/32 of lb1"}},
		"nor_one_whose_label_lists":                  {"", []Endpoint{lb1, labelled(evil, "netguard.ingress", "[{from: [{service: x}]}]"), lb2}, []string{"evil 10.0.0.200/32 of lb1"}},
		"nor_one_that_a_guardrail_is_about":          {`{name: g, select: {}, deny: [{egress: {to: [{service: evil}]}}]}`, []Endpoint{lb1, evil}, []string{"evil 10.0.0.200/32 of lb1"}},
		"nor_one_that_is_a_peer_in_a_label":          {"", []Endpoint{lb1, evil, labelled(db, "netguard.ingress", "[{from: [{service: evil}]}]")}, []string{"evil 10.0.0.200/32 of lb1"}},
		"who_was_first_has_it":                       {lets, []Endpoint{since(lb1, 10), evil, db}, []string{"lb1 10.0.0.200/32 of evil"}},
		"on_another_network_nobody_minds":            {lets, []Endpoint{lb1, on(managed("evil", "m", "10.1.0.4"), "br-m", vip), db}, nil},
		"a_part_of_a_prefix_is_contested":            {lets, []Endpoint{on(lb1, "br-n", "192.0.2.0/24"), on(evil, "br-n", "192.0.2.9/32"), db}, []string{"evil 10.0.0.200/32 of lb1", "evil 192.0.2.9/32 of lb1"}},
		"a_prefix_of_which_one_has_a_part":           {lets, []Endpoint{on(lb1, "br-n", "192.0.2.9/32"), on(evil, "br-n", "192.0.2.0/24", "198.51.100.0/24"), db}, []string{"evil 10.0.0.200/32 of lb1", "evil 192.0.2.0/24 of lb1"}},
		"a_prefix_of_which_two_have_parts":           {lets, []Endpoint{on(lb1, "br-n", "192.0.2.9/32"), since(on(managed("x", "n", "10.0.0.9"), "br-n", "192.0.2.8/32"), 1), on(lb2, "br-n", "192.0.2.0/24"), db}, []string{"lb2 192.0.2.0/24 of x"}},
		"of_one_that_is_not_managed_nothing_counts":  {lets, []Endpoint{lb1, func() Endpoint { e := since(evil, -1); e.Managed = false; return e }(), db}, nil},
		"an_address_of_a_container_takes_no_contest": {lets, []Endpoint{lb1, managed("own", "n", vip), db}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var policies []Policy
			if c.policies != "" {
				policies = mustLoad(t, c.policies)
			}
			if name == "a_prefix_of_which_two_have_parts" {
				c.endpoints[2].Since = 2
			}
			if got := contested(c.endpoints, policies); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	t.Run("who_had_it_keeps_it", func(t *testing.T) {
		held := map[Holding]bool{}
		is := func(what string, want string, endpoints ...Endpoint) {
			t.Helper()
			w := World{Endpoints: refs(endpoints), Policies: mustLoad(t, lets), Held: held}
			rs := Compile(w)
			held = rs.Held(refs(endpoints))
			got := ""
			for _, s := range rs.States {
				for range s.Contested {
					got += s.Container + " "
				}
			}
			if got != want {
				t.Errorf("%s: left out are %q, want %q", what, got, want)
			}
		}
		lb1, lb2 := since(lb1, 1), since(lb2, 1)
		is("the pair is first", "evil ", lb1, lb2, evil, db)
		lb1.ID, lb1.Since = "id-lb1-again", 20
		is("one side is made anew", "evil ", evil, lb1, lb2, db)
		lb2.ID, lb2.Since = "id-lb2-again", 21
		is("and the other", "evil ", evil, lb1, lb2, db)
		is("one side alone", "evil ", evil, lb2, db)
		is("nobody else", "", evil, db)
		is("then who is left has it", "lb1 lb2 ", lb1, lb2, evil, db)
	})
	t.Run("the_pair_keeps_what_policies_allow_and_is_not_closed", func(t *testing.T) {
		evil := labelled(evil, "netguard.egress", "[]")
		ask(t, lets, []Endpoint{evil, lb1, lb2, db, managed("other", "n", "10.0.0.6")},
			asked{Forward, vip, "10.0.0.5", 80, true}, asked{Forward, vip, "10.0.0.6", 80, true}, asked{Forward, "10.0.0.4", "10.0.0.6", 80, false})
	})
}

// What is away is the container's on its bridge, and anywhere else it is not.
func TestAwayAddresses(t *testing.T) {
	a, b, c := on(managed("a", "n", "10.0.0.2"), "br-n", "192.0.2.9/32", "10.0.0.0/24", "2001:db8::/64"), on(managed("b", "n", "10.0.0.3", "fd00::3"), "br-n"),
		on(managed("c", "m", "10.1.0.4", "fd00:1::4"), "br-m")
	rs := Compile(World{Places: true, Endpoints: refs([]Endpoint{a, b, c}), Policies: mustLoad(t, `
name: a
select: {service: a}
egress: [{to: [{service: b}], ports: [tcp/80]}]
---
name: b
select: {service: b}
ingress: [{from: [{service: a}]}, {from: [{entity: external}], ports: [tcp/81]}]
---
name: c
select: {service: c}
egress: [{to: [{service: a}], ports: [tcp/80]}, {to: [{entity: external}], ports: [tcp/81]}]
deny: [{ingress: {from: [{service: a}]}}]
`)})
	judge := NewJudge(rs)
	for name, q := range map[string]struct {
		path     Path
		src, dst string
		from, to string
		port     uint16
		want     bool
	}{
		"on_its_bridge_its_policy_lets_it_out":           {Forward, "192.0.2.9", "10.0.0.3", "br-n", "br-n", 80, true},
		"and_by_a_prefix":                                {Forward, "10.0.0.77", "10.0.0.3", "br-n", "br-n", 80, true},
		"and_closes_it":                                  {Forward, "192.0.2.9", "203.0.113.1", "br-n", "", 80, false},
		"and_closes_it_in_IPv6":                          {Forward, "2001:db8::9", "fd00::3", "br-n", "br-n", 81, false},
		"to_the_host":                                    {Input, "192.0.2.9", "10.0.0.1", "br-n", "", 80, false},
		"there_it_is_not_external":                       {Forward, "192.0.2.9", "10.0.0.3", "br-n", "br-n", 81, false},
		"a_guardrail_holds_it":                           {Forward, "192.0.2.9", "10.1.0.4", "br-n", "br-m", 80, false},
		"from_elsewhere_it_is_external":                  {Forward, "192.0.2.9", "10.0.0.3", "", "br-n", 81, true},
		"from_another_bridge_as_well":                    {Forward, "192.0.2.9", "10.0.0.3", "br-m", "br-n", 81, true},
		"from_elsewhere_it_is_no_peer":                   {Forward, "192.0.2.9", "10.0.0.3", "", "br-n", 80, false},
		"nor_does_a_guardrail_mean_it":                   {Forward, "192.0.2.9", "10.1.0.4", "", "br-m", 80, true},
		"to_the_host_from_elsewhere_nothing_is_closed":   {Input, "192.0.2.9", "10.0.0.1", "", "", 80, true},
		"who_may_leave_reaches_it_there":                 {Forward, "10.1.0.4", "192.0.2.9", "br-m", "", 81, true},
		"who_may_reach_the_container_does_not":           {Forward, "10.1.0.4", "192.0.2.9", "br-m", "", 80, false},
		"on_the_bridge_who_may_reach_the_container_does": {Forward, "10.1.0.4", "192.0.2.9", "br-m", "br-n", 80, true},
		"and_who_may_leave_does_not":                     {Forward, "10.1.0.4", "192.0.2.9", "br-m", "br-n", 81, false},
		"a_prefix_takes_nothing_of_a_neighbour":          {Forward, "10.0.0.3", "203.0.113.1", "br-n", "", 80, true},
		"nor_beyond_its_bridge":                          {Forward, "10.1.0.4", "203.0.113.1", "br-m", "", 81, true},
		"containers_are_themselves":                      {Forward, "10.0.0.2", "10.0.0.3", "br-n", "br-n", 80, true},
		"and_count_on_their_bridge":                      {Forward, "10.0.0.2", "10.0.0.3", "br-m", "br-n", 80, false},
		"the_host_reaches_it_on_the_bridge":              {Output, "10.0.0.1", "192.0.2.9", "", "br-n", 80, true},
		"and_elsewhere":                                  {Output, "10.0.0.1", "192.0.2.9", "", "", 80, true},
		"the_host_is_not_let_in_where_policies_close":    {Output, "10.0.0.1", "10.0.0.3", "", "br-n", 80, false},
	} {
		t.Run(name, func(t *testing.T) {
			got := judge.Walk(Packet{Path: q.path, Src: addr(q.src), Dst: addr(q.dst), From: q.from, To: q.to, Proto: TCP, Port: q.port, ICMPType: AnyICMPType})
			if got.Allowed != q.want {
				t.Errorf("allowed: %v, by %+v", got.Allowed, got.Hits)
			}
		})
	}
	t.Run("without_places_nothing_counts", func(t *testing.T) {
		for _, f := range Compile(World{Endpoints: refs([]Endpoint{a, b, c})}).Families() {
			for _, s := range f.Sets {
				for _, m := range s.Members {
					if m.Bridge != "" || s.Kind == Places || !slices.ContainsFunc([]Endpoint{a, b, c}, func(e Endpoint) bool { return slices.Contains(e.Addrs, m.Prefix.Addr()) }) {
						t.Errorf("%v in %s", m, s.Name)
					}
				}
			}
		}
	})
	t.Run("other_rules_have_other_sets", func(t *testing.T) {
		for _, policies := range [][]Policy{nil, mustLoad(t, `{name: c, select: {service: c}, ingress: [{from: [{service: b}]}]}`)} {
			w := World{Endpoints: refs([]Endpoint{a, b, c}), Policies: policies}
			plain := Compile(w)
			w.Places = true
			placed := Compile(w)
			if plain.Generation == placed.Generation {
				t.Error("one generation")
			}
			for _, s := range placed.V4.Sets {
				if slices.ContainsFunc(plain.V4.Sets, func(o Set) bool { return o.Name == s.Name && o.Kind != s.Kind }) {
					t.Errorf("set %s is of two kinds", s.Name)
				}
			}
		}
	})
}

// Where each container has one bridge, the rules of a world of places say what those
// of any other do.
func TestPlacesSayTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, _ := drawWorld(t)
		for i := range w.Endpoints {
			w.Endpoints[i].Bridge = "br-" + w.Endpoints[i].Network
		}
		block := drawBlock(t)
		plain := NewJudge(compile(w, block))
		w.Places = true
		placed := compile(w, block)
		judge := NewJudge(placed)
		for _, f := range placed.Families() {
			for _, s := range f.Sets {
				checkSet(t, f, s)
			}
		}
		ends := append(slices.Clone(w.Endpoints), &Endpoint{Addrs: []netip.Addr{addr("192.0.2.9"), addr("2001:db8::9")}})
		for i := range ends {
			for j := range ends {
				for _, src := range ends[i].Addrs {
					for _, dst := range ends[j].Addrs {
						if i == j || src.Is6() != dst.Is6() {
							continue
						}
						p := Packet{Src: src, Dst: dst, From: ends[i].Bridge, To: ends[j].Bridge, Proto: TCP, Port: 80, ICMPType: AnyICMPType}
						if got, want := judge.Walk(p).Allowed, plain.Walk(p).Allowed; got != want {
							t.Fatalf("%+v is allowed: %v, and by address alone: %v", p, got, want)
						}
					}
				}
			}
		}
	})
}
