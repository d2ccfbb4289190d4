package desired

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/shaper"
)

func subnets(all ...string) (out []netip.Prefix) {
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// front and back are networks, and lan is one that is not managed.
var (
	front = docker.Network{ID: "f", Name: "front", Bridge: "br-f", Subnets: subnets("172.18.0.0/24", "fd00:18::/64"),
		Gateways: []netip.Addr{netip.MustParseAddr("172.18.0.1")}, Reserved: []netip.Addr{netip.MustParseAddr("172.18.0.9")}}
	back = docker.Network{ID: "b", Name: "back", Bridge: "br-b", Subnets: subnets("172.19.0.0/24")}
	lan  = docker.Network{ID: "l", Name: "lan", Bridge: "br-l", Subnets: subnets("172.20.0.0/24")}
)

func joined(name string, n docker.Network, a, label string) endpoint.Endpoint {
	e := endpoint.Endpoint{Key: endpoint.Key{Container: "id-" + name, Network: n.ID}, Network: n, Attachment: docker.Attachment{IPv4: netip.MustParseAddr(a)},
		Container: docker.Container{ID: "id-" + name, Name: name}}
	if label != "" {
		e.Container.Labels = map[string]string{guard.LabelAllow: label}
	}
	return e
}

// hostRoutes is a host with an address and a route of its own within the subnets.
func hostRoutes(a netip.Addr) (link.Route, error) {
	switch a.String() {
	case "172.18.0.251":
		return link.Route{Own: true, Bits: 32, Links: []int{2}, Device: "br-f"}, nil
	case "172.18.0.250", "198.51.100.1":
		return link.Route{Own: true, Bits: 32, Links: []int{1}, Device: "lo"}, nil
	case "172.18.0.77":
		return link.Route{Bits: 28, Links: []int{5}, Device: "eth0"}, nil
	}
	if within(front.Subnets, a) {
		return link.Route{Bits: 24, Links: []int{2}, Device: "br-f"}, nil
	}
	return link.Route{Links: []int{5}, Device: "eth0"}, nil
}

func TestExtraAddresses(t *testing.T) {
	for name, c := range map[string]struct {
		label     string
		permitted []string
		want      string // in the guard's hands
		extra     string // bound to the bridge
		away      string // counts on the bridge alone
		notes     string // parts of them, with a bar between
	}{
		"of_its_own_subnets":                    {"172.18.0.10,fd00:18::10", nil, "172.18.0.10/32 fd00:18::10/128", "172.18.0.10 fd00:18::10", "", ""},
		"none_of_outside":                       {"192.0.2.10,2001:db8::1", nil, "", "", "", "192.0.2.10 is left out: it lies in no subnet of network front (172.18.0.0/24, fd00:18::/64)|add it to guard.allow|2001:db8::1 is left out"},
		"none_of_another_network":               {"172.20.0.10,172.21.0.1", nil, "", "", "", "172.20.0.10 is left out: it lies in no subnet|172.21.0.1 is left out"},
		"one_of_its_other_network_counts_there": {"172.19.0.10", nil, "", "", "", ""},
		"none_of_the_link":                      {"fe80::1,169.254.1.1", nil, "", "", "", "fe80::1 is left out|169.254.1.1 is left out"},
		"no_prefix_without_the_operators_word":  {"172.18.0.10,172.18.0.16/28", nil, "172.18.0.10/32", "172.18.0.10", "", "172.18.0.16/28 is left out: a prefix needs the operator's permission"},
		"a_prefix_with_it":                      {"198.51.100.0/28", []string{"198.51.100.0/24"}, "198.51.100.0/28", "", "198.51.100.0/28", ""},
		"outside_with_it":                       {"198.51.100.7", []string{"198.51.100.0/24"}, "198.51.100.7/32", "", "198.51.100.7/32", ""},
		"of_its_own_subnet_with_it":             {"172.18.0.10", []string{"172.18.0.0/16"}, "172.18.0.10/32", "172.18.0.10", "", ""},
		"not_more_than_it_says":                 {"198.51.100.0/23,172.18.0.10", []string{"198.51.100.0/24"}, "", "", "", "172.18.0.10 is left out: the operator does not permit it|198.51.100.0/23 is left out"},
		"none_of_a_neighbour":                   {"172.18.0.3", nil, "", "", "", "172.18.0.3 is the address of container web"},
		"none_of_a_neighbour_with_it":           {"172.18.0.3", []string{"0.0.0.0/0"}, "", "", "", "172.18.0.3 is the address of container web"},
		"none_of_one_that_is_not_managed":       {"172.20.0.2", []string{"0.0.0.0/0"}, "", "", "", "172.20.0.2 is the address of container other"},
		"its_own_says_nothing":                  {"172.18.0.2", nil, "172.18.0.2/32", "", "", ""},
		"its_own_on_another_network_neither":    {"172.19.0.2", nil, "", "", "", ""},
		"not_the_gateways":                      {"172.18.0.1", []string{"172.18.0.0/16"}, "", "", "", "172.18.0.1 is the address of the bridge"},
		"not_one_that_Docker_does_not_tell_of":  {"172.18.0.251", nil, "", "", "", "172.18.0.251 is the address of the bridge"},
		"not_another_of_the_hosts":              {"172.18.0.250", nil, "", "", "", "172.18.0.250 is left out: it is the host's own address"},
		"not_the_hosts_with_it":                 {"198.51.100.1", []string{"198.51.100.0/24"}, "", "", "", "198.51.100.1 is left out: it is the host's own address"},
		"not_the_network_itself":                {"172.18.0.0,172.18.0.255,fd00:18::", nil, "", "", "", "172.18.0.0 is left out: it is the first or the last|172.18.0.255 is left out|fd00:18:: is left out"},
		"none_that_the_network_reserves":        {"172.18.0.9", nil, "", "", "", "172.18.0.9 is left out: the network reserves it"},
		"unless_the_operator_says_so":           {"172.18.0.9", []string{"172.18.0.9/32"}, "172.18.0.9/32", "172.18.0.9", "", ""},
		"none_that_the_host_reaches_elsewhere":  {"172.18.0.77", nil, "", "", "", "172.18.0.77 is left out: the host reaches it by eth0 and not on network front"},
		"there_it_counts_on_the_bridge_alone":   {"172.18.0.77", []string{"172.18.0.77/32"}, "172.18.0.77/32", "", "172.18.0.77/32", ""},
		"none_that_nobody_can_have":             {"127.0.0.1,255.255.255.255,0.0.0.1", []string{"0.0.0.0/0"}, "", "", "", "127.0.0.1 is left out: no container can have it|255.255.255.255 is left out|0.0.0.1 is left out"},
		"everything_with_the_operators_word":    {"0.0.0.0/0", []string{"0.0.0.0/0"}, "0.0.0.0/0", "", "0.0.0.0/0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			all := []endpoint.Endpoint{joined("evil", front, "172.18.0.2", c.label), joined("evil", back, "172.19.0.2", c.label),
				joined("web", front, "172.18.0.3", ""), joined("other", lan, "172.20.0.2", "172.20.0.10")}
			endpoints := desired(pointers(all...), &config.Config{Exclude: []string{lan.Name}}, shaper.Hashed)
			extraAddresses{subnets(c.permitted...), hostRoutes, map[string]int{"br-f": 2, "br-b": 3}, nil}.decide(endpoints)
			d := endpoints[0]
			if got := texts(d.Allow.Prefixes); got != c.want {
				t.Errorf("the guard allows %q, want %q", got, c.want)
			}
			if got := texts(d.Extra); got != c.extra {
				t.Errorf("bound to the bridge are %q, want %q", got, c.extra)
			}
			if got := texts(d.away()); got != c.away {
				t.Errorf("on the bridge alone count %q, want %q", got, c.away)
			}
			notes := strings.Join(d.notes, "\n")
			for _, note := range strings.Split(c.notes, "|") {
				if !strings.Contains(notes, note) || c.notes == "" && notes != "" {
					t.Errorf("notes %q, want %q", notes, note)
				}
			}
			if len(d.Wrong) > 0 {
				t.Errorf("it is quarantined: %q", d.Wrong)
			}
			if got, _ := new(compiler).parties(endpoints); slices.ContainsFunc(got[2:], func(e *netpolicy.Endpoint) bool { return len(e.Extra)+len(e.Away) > 0 }) {
				t.Errorf("others have %+v", got[2:])
			}
		})
	}
}

func TestExtraAddressesBesideAnUplink(t *testing.T) {
	for _, permitted := range [][]netip.Prefix{nil, subnets("172.18.0.0/24")} {
		endpoints := desired(pointers(joined("vip", front, "172.18.0.2", "172.18.0.10")), &config.Config{}, shaper.Hashed)
		extraAddresses{permitted, hostRoutes, map[string]int{"br-f": 2}, map[string]ownPorts{"br-f": {all: []string{"eth0"}}}}.decide(endpoints)
		d := endpoints[0]
		if said := strings.Join(d.notes, "\n"); (len(d.Extra) == 1) != (permitted != nil) || (said == "") != (permitted != nil) || said != "" && !strings.Contains(said, "bridge br-f holds eth0") {
			t.Errorf("with %v: %v, %q", permitted, d.Extra, said)
		}
	}
}

func TestExtraAddressesAwaitTheRules(t *testing.T) {
	const label = "172.18.0.10,172.18.0.11"
	endpoints := desired(pointers(joined("vip", front, "172.18.0.2", label)), &config.Config{}, shaper.Hashed)
	d := endpoints[0]
	d.await(&Ruling{named: map[endpoint.Key][]netip.Prefix{d.Key: subnets("172.18.0.10/32")}})
	if got := texts(d.Allow.Prefixes); got != "172.18.0.10/32" {
		t.Errorf("the guard allows %q before policies hold for all", got)
	}
	if d.await(nil); len(d.Allow.Prefixes) > 0 || len(d.notes) > 0 {
		t.Errorf("%v, %q", d.Allow.Prefixes, d.notes)
	}
}

// A container on two networks answers under the address that it was asked by.
func TestAnswers(t *testing.T) {
	routed := back
	routed.Routed = [2]bool{true, false}
	for name, c := range map[string]struct {
		network docker.Network
		label   string
		want    string
	}{
		"where_it_is_reached_by_that":      {routed, "", "172.19.0.2"},
		"not_where_by_published_ports":     {back, "", ""},
		"unless_a_label_names_it":          {back, "172.19.0.2", "172.19.0.2"},
		"no_label_names_that_of_another":   {back, "172.19.0.3", ""},
		"a_label_names_what_is_so_already": {routed, "172.19.0.2", "172.19.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			all := []endpoint.Endpoint{joined("two", front, "172.18.0.2", c.label), joined("two", c.network, "172.19.0.2", c.label), joined("other", c.network, "172.19.0.3", "")}
			endpoints := desired(pointers(all...), &config.Config{}, shaper.Hashed)
			extraAddresses{nil, hostRoutes, map[string]int{"br-f": 2, "br-b": 3}, nil}.decide(endpoints)
			if got := texts(endpoints[0].answers); got != c.want {
				t.Errorf("it may answer under %q, want %q", got, c.want)
			}
			if len(endpoints[1].answers)+len(endpoints[2].answers) > 0 {
				t.Errorf("and others under %v, %v", endpoints[1].answers, endpoints[2].answers)
			}
			if ps, _ := new(compiler).parties(endpoints); len(ps[0].Extra)+len(ps[0].Away) > 0 || len(homes(endpoints)) != 3 {
				t.Errorf("%+v, %v", ps[0], homes(endpoints))
			}
		})
	}
}

// Who has an address keeps it when somebody comes who was created earlier.
func TestExtraAddressesAreKept(t *testing.T) {
	const label = "172.18.0.10"
	lb, evil := joined("lb", front, "172.18.0.2", label), joined("evil", front, "172.18.0.3", label)
	lb.Container.Created, evil.Container.Created = 9, 1
	evil.Container.Labels["netguard.egress"] = "[]"
	p, catalog := &compiler{}, &netpolicy.Catalog{}
	lost := func(all ...endpoint.Endpoint) (names []string) {
		endpoints := desired(pointers(all...), &config.Config{}, shaper.Hashed)
		extraAddresses{nil, hostRoutes, map[string]int{"br-f": 2}, nil}.decide(endpoints)
		ruling := p.compile(catalog, endpoints, false, 0)
		for i := range endpoints {
			if endpoints[i].narrow(ruling, nil); len(endpoints[i].Extra) == 0 {
				names = append(names, endpoints[i].Container.Name)
			}
		}
		return names
	}
	if got := lost(lb); got != nil {
		t.Errorf("alone it is left out: %q", got)
	}
	for range 2 {
		if got := lost(evil, lb); !slices.Equal(got, []string{"evil"}) {
			t.Errorf("left out are %q", got)
		}
	}
	p = &compiler{}
	if got := lost(evil, lb); !slices.Equal(got, []string{"lb"}) {
		t.Errorf("after a start left out are %q", got)
	}
}

func texts[T interface{ String() string }](all []T) string {
	var out []string
	for _, x := range all {
		out = append(out, x.String())
	}
	return strings.Join(out, " ")
}

func TestExtraAddressesOfRuling(t *testing.T) {
	a := netip.MustParseAddr("172.18.0.10")
	for name, c := range map[string]struct {
		permitted []string
		widened   []netip.Addr
		contested []netpolicy.Contested
		want      string
		note      string
	}{
		"all":                            {nil, nil, nil, "172.18.0.10 172.18.0.11", ""},
		"nothing_that_opens_something":   {nil, []netip.Addr{a}, nil, "172.18.0.11", "172.18.0.10 is left out: a policy allows a CIDR that has it"},
		"unless_the_operator_permits_it": {[]string{"172.18.0.0/24"}, []netip.Addr{a}, nil, "172.18.0.10 172.18.0.11", ""},
		"nothing_of_who_was_first": {[]string{"172.18.0.0/24"}, nil, []netpolicy.Contested{{Prefix: netip.PrefixFrom(a, 32), By: "lb"}}, "172.18.0.11",
			"172.18.0.10 is left out: container lb has it, which named it first"},
	} {
		t.Run(name, func(t *testing.T) {
			endpoints := desired(pointers(joined("vip", front, "172.18.0.2", "172.18.0.10,172.18.0.11")), &config.Config{}, shaper.Hashed)
			permitted := subnets(c.permitted...)
			extraAddresses{permitted, hostRoutes, map[string]int{"br-f": 2}, nil}.decide(endpoints)
			d := endpoints[0]
			d.narrow(&Ruling{widened: map[endpoint.Key][]netip.Addr{d.Key: c.widened}, Rules: &netpolicy.RuleSet{States: []*netpolicy.State{{Contested: c.contested}}},
				at: func() map[endpoint.Key]int { return map[endpoint.Key]int{d.Key: 0} }}, permitted)
			if got := texts(d.Extra); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if notes := strings.Join(d.notes, "\n"); !strings.Contains(notes, c.note) || c.note == "" && notes != "" {
				t.Errorf("notes %q", notes)
			}
		})
	}
}
