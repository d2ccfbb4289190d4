package netpolicy

import (
	"net/netip"
	"slices"
	"testing"
)

func TestWidened(t *testing.T) {
	addrs := func(list ...string) []netip.Addr {
		var out []netip.Addr
		for _, a := range list {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	all := []Endpoint{
		{Workload: Workload{ID: "db", Name: "db"}, Network: "n", Managed: true, Addrs: addrs("172.18.0.2")},
		{Workload: Workload{ID: "vip", Name: "vip"}, Network: "n", Managed: true, Addrs: addrs("172.18.0.3", "fd00::3", "fe80::3"),
			Extra: addrs("192.0.2.10", "198.51.100.1", "2001:db8::1")},
	}
	for name, test := range map[string]struct {
		policy string
		want   []netip.Addr
	}{
		"by_no_policy":                    {"{name: p, select: {container: db}, ingress: []}", nil},
		"by_an_ingress_CIDR":              {"{name: p, select: {container: db}, ingress: [{from: [{cidr: 192.0.2.0/24}]}]}", addrs("192.0.2.10")},
		"by_an_egress_CIDR":               {"{name: p, select: {container: db}, egress: [{to: [{cidr: '2001:db8::/32'}]}]}", addrs("2001:db8::1")},
		"not_by_one_with_it_apart":        {"{name: p, select: {container: db}, ingress: [{from: [{cidr: 192.0.2.0/24, except: [192.0.2.8/29]}]}]}", nil},
		"not_by_one_that_it_is_in_anyway": {"{name: p, select: {container: db}, ingress: [{from: [{cidr: 0.0.0.0/0}]}]}", nil},
		"not_by_a_guardrail":              {"{name: p, select: {container: db}, deny: [{ingress: {from: [{cidr: 192.0.2.0/24}]}}]}", nil},
		"by_a_guardrail_about_its_own":    {"{name: p, select: {container: db}, deny: [{ingress: {from: [{cidr: 172.18.0.3/32}]}}]}", addrs("192.0.2.10", "198.51.100.1")},
		"not_by_a_label":                  {"{name: p, select: {container: db}, ingress: [{from: [{container: vip}]}]}", nil},
	} {
		t.Run(name, func(t *testing.T) {
			loaded := Load(texts("p.yaml", test.policy))
			if faults := loaded.Faults(); len(faults) > 0 {
				t.Fatal(faults)
			}
			rs := Compile(World{Endpoints: refs(all), Policies: loaded.Policies()})
			if got := rs.Widened(refs(all)); got[0] != nil || !slices.Equal(got[1], test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}
