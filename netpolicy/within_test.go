package netpolicy

import (
	"net/netip"
	"slices"
	"testing"
)

func TestWithin(t *testing.T) {
	endpoint := func(name, network, addr string) Endpoint {
		return Endpoint{Workload: Workload{ID: name, Name: name}, Network: network, Managed: true, Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
	}
	all := []Endpoint{
		endpoint("a", "front", "172.18.0.2"), endpoint("b", "front", "172.18.0.3"), endpoint("c", "front", "172.18.0.4"),
		endpoint("alone", "back", "172.19.0.2"),
	}
	for name, test := range map[string]struct {
		policy string
		want   []bool
	}{
		"nothing":                {"{name: p, select: {container: none}, ingress: []}", []bool{false, false, false, false}},
		"whom_a_policy_isolates": {"{name: p, select: {container: a}, ingress: []}", []bool{true, false, false, false}},
		"not_a_guardrail_about_what_is_elsewhere": {
			"{name: p, select: {}, deny: [{egress: {to: [{cidr: 169.254.169.254/32}]}}]}", []bool{false, false, false, false}},
		"nor_one_about_the_host":      {"{name: p, select: {}, deny: [{egress: {to: [{entity: host}]}}]}", []bool{false, false, false, false}},
		"nor_one_about_the_outside":   {"{name: p, select: {}, deny: [{egress: {to: [{entity: external}]}}]}", []bool{false, false, false, false}},
		"both_ends_of_a_guardrail":    {"{name: p, select: {container: a}, deny: [{egress: {to: [{container: b}]}}]}", []bool{true, true, false, false}},
		"all_of_one_about_everybody":  {"{name: p, select: {}, deny: [{egress: {to: [{entity: any}], ports: [tcp/22]}}]}", []bool{true, true, true, false}},
		"a_CIDR_that_its_network_has": {"{name: p, select: {container: a}, deny: [{egress: {to: [{cidr: 172.18.0.4/30}]}}]}", []bool{true, false, true, false}},
	} {
		t.Run(name, func(t *testing.T) {
			loaded := Load(texts("p.yaml", test.policy))
			if faults := loaded.Faults(); len(faults) > 0 {
				t.Fatal(faults)
			}
			rs := Compile(World{Endpoints: refs(all), Policies: loaded.Policies()})
			if got := rs.Within(refs(all)); !slices.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}
