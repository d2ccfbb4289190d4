package netpolicy

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Corners that a random world rarely has.

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

func managed(name, network string, addrs ...string) Endpoint {
	e := Endpoint{Workload: Workload{ID: "id-" + name, Name: name, Service: name}, Network: network, Managed: true}
	for _, a := range addrs {
		e.Addrs = append(e.Addrs, addr(a))
	}
	return e
}

type asked struct {
	path     Path
	src, dst string
	port     uint16
	want     bool
}

func ask(t *testing.T, policies string, endpoints []Endpoint, all ...asked) {
	t.Helper()
	judge := NewJudge(Compile(World{Endpoints: refs(endpoints), Policies: mustLoad(t, policies)}))
	for _, q := range all {
		got := judge.Walk(Packet{Path: q.path, Src: addr(q.src), Dst: addr(q.dst), Proto: TCP, Port: q.port, ICMPType: AnyICMPType})
		if got.Allowed != q.want {
			t.Errorf("%s from %s to %s:%d is allowed: %v, by %+v", q.path, q.src, q.dst, q.port, got.Allowed, got.Hits)
		}
	}
}

func TestExtraAddresses(t *testing.T) {
	a, b, c := managed("a", "n", "10.0.0.2"), managed("b", "n", "10.0.0.3"), managed("c", "n", "10.0.0.4")
	const policies = `
name: no-egress
select: {service: a}
egress: []
---
name: only-b
select: {service: c}
ingress: [{from: [{service: b}]}]
`
	t.Run("are_the_containers", func(t *testing.T) {
		a, b := a, b
		a.Extra, b.Extra = []netip.Addr{addr("192.0.2.10")}, []netip.Addr{addr("192.0.2.11")}
		ask(t, policies, []Endpoint{a, b, c},
			asked{Forward, "192.0.2.10", "10.0.0.3", 80, false},
			asked{Forward, "192.0.2.10", "198.51.100.1", 80, false},
			asked{Forward, "192.0.2.11", "10.0.0.4", 80, true},
			asked{Forward, "192.0.2.12", "10.0.0.4", 80, false})
	})
	t.Run("of_somebody_else_are_not_believed", func(t *testing.T) {
		a := a
		a.Extra = []netip.Addr{addr("10.0.0.3")} // would close b, and take its rights
		ask(t, policies, []Endpoint{a, b, c},
			asked{Forward, "10.0.0.3", "198.51.100.1", 80, true},
			asked{Forward, "10.0.0.3", "10.0.0.4", 80, true})
	})
	t.Run("of_a_container_that_is_not_managed_are_not_believed", func(t *testing.T) {
		b := b
		b.Managed, b.Extra = false, []netip.Addr{addr("192.0.2.11")}
		ask(t, `{name: c, select: {service: c}, ingress: [{from: [{entity: external}]}]}`, []Endpoint{b, c},
			asked{Forward, "10.0.0.3", "10.0.0.4", 80, false},
			asked{Forward, "192.0.2.11", "10.0.0.4", 80, true})
	})
	t.Run("that_no_container_can_have_are_left_out", func(t *testing.T) {
		c := c
		c.Extra = []netip.Addr{addr("127.0.0.1"), addr("0.0.0.0"), addr("224.0.0.1"), addr("::"), {}}
		rs := Compile(World{Endpoints: refs([]Endpoint{c})})
		for _, f := range rs.Families() {
			for _, s := range f.Sets {
				for _, m := range s.Members {
					if m.Prefix.Addr() != addr("10.0.0.4") {
						t.Errorf("%v in %s", m, s.Name)
					}
				}
			}
		}
	})
	t.Run("written_as_IPv6_are_IPv4", func(t *testing.T) {
		a := a
		a.Addrs = []netip.Addr{addr("::ffff:10.0.0.2")}
		ask(t, policies, []Endpoint{a, b, c}, asked{Forward, "10.0.0.2", "10.0.0.3", 80, false})
	})
}

// A link-local address is one of the container's, so that a neighbour on the
// bridge does not get around a policy by it.
func TestLinkLocalAddresses(t *testing.T) {
	a, b := managed("a", "n", "10.0.0.2", "fe80::2"), managed("b", "n", "10.0.0.3", "fe80::3")
	ask(t, `{name: b, select: {service: b}, ingress: []}`, []Endpoint{a, b},
		asked{Forward, "fe80::2", "fe80::3", 80, false}, asked{Forward, "fe80::3", "fe80::2", 80, true})
}

// Two endpoints with one address, on bridges of their own.
func TestOneAddressOfTwo(t *testing.T) {
	a, b, c := managed("a", "n", "10.0.0.2", "fe80::1"), managed("b", "m", "10.1.0.2", "fe80::1"), managed("c", "n", "10.0.0.3", "fe80::3")
	both := []Endpoint{a, b, c}
	t.Run("an_allow_needs_both", func(t *testing.T) {
		ask(t, `{name: c, select: {service: c}, ingress: [{from: [{service: a}]}]}`, both,
			asked{Forward, "10.0.0.2", "10.0.0.3", 80, true}, asked{Forward, "fe80::1", "fe80::3", 80, false})
	})
	t.Run("a_deny_needs_one", func(t *testing.T) {
		ask(t, `{name: c, select: {service: c}, deny: [{ingress: {from: [{service: a}]}}]}`, both,
			asked{Forward, "fe80::1", "fe80::3", 80, false}, asked{Forward, "10.1.0.2", "10.0.0.3", 80, true})
	})
	t.Run("one_that_is_closed_closes_it", func(t *testing.T) {
		ask(t, `{name: b, select: {service: b}, egress: []}`, both,
			asked{Forward, "fe80::1", "fe80::3", 80, false}, asked{Forward, "10.0.0.2", "10.0.0.3", 80, true})
	})
}

func TestPublishedPorts(t *testing.T) {
	a, b := managed("a", "n", "10.0.0.2", "fd00::2"), managed("b", "n", "10.0.0.3")
	b.Published = []Publish{{HostPort: 8080, Port: 80, Proto: TCP}}
	const (
		host4, host6 = "10.0.0.1", "fd00::1"
		onlyHost     = `{name: b, select: {service: b}, ingress: [{from: [{entity: host}]}]}`
	)
	t.Run("are_no_way_around_ingress", func(t *testing.T) {
		ask(t, onlyHost, []Endpoint{a, b},
			asked{Output, host4, "10.0.0.3", 80, true}, // docker-proxy
			asked{Input, "10.0.0.2", host4, 8080, false},
			asked{Input, "fd00::2", host6, 8080, false},
			asked{Input, "198.51.100.7", host4, 8080, false},
			asked{Input, "10.0.0.2", host4, 8081, true})
	})
	t.Run("are_no_way_around_egress", func(t *testing.T) {
		ask(t, `{name: a, select: {service: a}, egress: [{to: [{entity: host}]}]}`, []Endpoint{a, b},
			asked{Input, "10.0.0.2", host4, 8080, false},
			asked{Input, "10.0.0.2", host4, 22, true})
	})
	t.Run("count_by_the_containers_port", func(t *testing.T) {
		ask(t, `{name: a, select: {service: a}, egress: [{to: [{service: b}], ports: [tcp/80]}]}`, []Endpoint{a, b},
			asked{Input, "10.0.0.2", host4, 8080, true},
			asked{Input, "fd00::2", host6, 8080, true},
			asked{Input, "10.0.0.2", host4, 80, false})
	})
	t.Run("are_open_where_everyone_is", func(t *testing.T) {
		ask(t, `{name: a, select: {service: a}, egress: [{to: [{entity: any}], ports: [tcp/80]}]}`, []Endpoint{a, b},
			asked{Input, "10.0.0.2", host4, 8080, true}, asked{Input, "10.0.0.2", host4, 443, false})
	})
	t.Run("are_no_way_around_a_guardrail", func(t *testing.T) {
		for _, deny := range []string{
			"{egress: {to: [{service: b}]}}", "{egress: {to: [{cidr: 10.0.0.3/32}], ports: [tcp/80]}}", "{egress: {to: [{entity: host}], ports: [tcp/8080]}}",
		} {
			ask(t, `{name: a, select: {service: a}, deny: [`+deny+`]}`, []Endpoint{a, b},
				asked{Input, "10.0.0.2", host4, 8080, false},
				asked{Input, "fd00::2", host6, 8080, false}, // docker-proxy goes on over IPv4
				asked{Input, "10.0.0.2", host4, 8081, true})
		}
		ask(t, `{name: b, select: {service: b}, deny: [{ingress: {from: [{service: a}], ports: [tcp/80]}}]}`, []Endpoint{a, b},
			asked{Input, "10.0.0.2", host4, 8080, false}, asked{Input, "10.0.0.9", host4, 8080, true})
	})
	t.Run("on_one_address_of_the_host_are_not_on_another", func(t *testing.T) {
		b := b
		b.Published = []Publish{{HostIP: addr("192.0.2.1"), HostPort: 8080, Port: 80, Proto: TCP}}
		ask(t, onlyHost, []Endpoint{a, b},
			asked{Input, "10.0.0.2", "192.0.2.1", 8080, false}, asked{Input, "10.0.0.2", "192.0.2.2", 8080, true})
	})
	t.Run("of_two_protocols_are_apart", func(t *testing.T) {
		b := b
		b.Published = []Publish{{HostPort: 8080, Port: 80, Proto: UDP}}
		ask(t, onlyHost, []Endpoint{a, b}, asked{Input, "10.0.0.2", host4, 8080, true})
	})
	t.Run("that_may_lead_to_two_need_both", func(t *testing.T) {
		b, c := b, managed("c", "n", "10.0.0.4")
		b.Published = []Publish{{HostIP: addr("192.0.2.1"), HostPort: 8080, Port: 80, Proto: TCP}}
		c.Published = []Publish{{HostIP: addr("0.0.0.0"), HostPort: 8080, Port: 80, Proto: TCP}}
		ask(t, `{name: b, select: {service: b}, ingress: [{from: [{service: a}]}]}`, []Endpoint{a, b, c},
			asked{Input, "10.0.0.2", "192.0.2.1", 8080, true}, asked{Input, "10.0.0.9", "192.0.2.1", 8080, false})
		ask(t, `{name: a, select: {service: a}, egress: [{to: [{service: b}]}]}`, []Endpoint{a, b, c},
			asked{Input, "10.0.0.2", "192.0.2.1", 8080, false})
	})
	t.Run("of_a_container_on_two_networks_ask_of_the_closed_one", func(t *testing.T) {
		front, back := managed("b", "front", "10.0.0.3"), managed("b", "back", "10.2.0.3")
		front.Published = []Publish{{HostPort: 8080, Port: 80, Proto: TCP}}
		back.Published = front.Published
		ask(t, `{name: b, select: {service: b, network: back}, ingress: [{from: [{service: a}]}]}`, []Endpoint{a, front, back},
			asked{Input, "10.0.0.2", host4, 8080, true}, asked{Input, "10.0.0.9", host4, 8080, false})
	})
}

func TestGuardrailsWithTheHost(t *testing.T) {
	a := managed("a", "n", "10.0.0.2")
	ask(t, `{name: a, select: {service: a}, deny: [{ingress: {from: [{entity: host}], ports: [tcp/22]}}, {egress: {to: [{cidr: 10.0.0.1/32}]}}]}`, []Endpoint{a},
		asked{Output, "10.0.0.1", "10.0.0.2", 22, false}, asked{Output, "10.0.0.1", "10.0.0.2", 23, true},
		asked{Input, "10.0.0.2", "10.0.0.1", 22, false}, asked{Input, "10.0.0.2", "10.0.0.5", 22, true},
		asked{Forward, "10.0.0.3", "10.0.0.2", 22, true})
}

func TestSharedNetworkNamespace(t *testing.T) {
	a := managed("a", "n", "10.0.0.2")
	a.Shared = []Workload{{ID: "id-s", Name: "s", Service: "s", Labels: map[string]string{labelEgress: "[]"}}}
	b := managed("b", "n", "10.0.0.3")
	t.Run("a_label_of_either_closes_both", func(t *testing.T) {
		ask(t, "", []Endpoint{a, b}, asked{Forward, "10.0.0.2", "10.0.0.3", 80, false}, asked{Forward, "10.0.0.3", "10.0.0.2", 80, true})
	})
	t.Run("labels_that_differ_lock_it", func(t *testing.T) {
		a := a
		a.Labels = map[string]string{labelEgress: "[{}]"}
		rs := Compile(World{Endpoints: refs([]Endpoint{a})})
		if len(rs.States[0].Locked) != 1 {
			t.Error(rs.States[0])
		}
	})
	t.Run("labels_that_agree_do_not", func(t *testing.T) {
		a := a
		a.Labels = map[string]string{labelEgress: "[ ]"}
		if rs := Compile(World{Endpoints: refs([]Endpoint{a})}); len(rs.States[0].Locked) != 0 || len(rs.States[0].Policies[Egress]) != 1 {
			t.Error(rs.States[0])
		}
	})
}

func TestStates(t *testing.T) {
	a, b, c := managed("a", "n", "10.0.0.2"), managed("b", "n", "10.0.0.3"), managed("c", "n", "10.0.0.4")
	a.Labels = map[string]string{labelIngress: "[]"}
	b.Labels = map[string]string{labelIngress: "none"}
	c.Managed = false
	rs := Compile(World{
		Endpoints: refs([]Endpoint{a, b, c}),
		Policies:  mustLoad(t, "name: one\nselect: {}\ningress: []\n---\nname: two\nselect: {service: a}\ningress: []\negress: []\n"),
		Broken:    []Broken{{Policy: "bad", File: "bad.yaml", Select: Selector{service: "b"}}},
	})
	want := []*State{
		{Container: "a", ID: "id-a", Network: "n", Policies: [2][]string{{"one", "two", "label netguard.ingress"}, {"two"}}},
		{Container: "b", ID: "id-b", Network: "n", Policies: [2][]string{{"one"}, nil}, Locked: []string{labelFaults(b.Workload)[0].Error(), "policy bad in bad.yaml has a fault"}},
		{Container: "c", ID: "id-c", Network: "n"},
	}
	if diff := cmp.Diff(want, rs.States); diff != "" {
		t.Error(diff)
	}
}
