package desired

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"netguard/agent/config"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy/guard"
	"netguard/shaper"
)

func addrs(all ...string) (out []netip.Addr) {
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// lives is an endpoint of front with a port.
func lives(name string, number byte) endpoint.Endpoint {
	e := joined(name, front, netip.AddrFrom4([4]byte{172, 18, 0, number}).String(), "")
	e.Attachment.MAC = net.HardwareAddr{2, 0x42, 0, 0, 0, number}
	e.Port = &link.Port{Index: int(number), Seen: uint64(number)}
	return e
}

func TestLinkLocalsThatDockerGives(t *testing.T) {
	for name, c := range map[string]struct {
		given     []netip.Addr
		permitted []netip.Prefix
		uplink    bool
		want      string
		note      string
	}{
		"count":                            {addrs("169.254.1.1", "169.254.1.2", "fe80::77"), nil, false, "169.254.1.1/32 169.254.1.2/32 fe80::77/128", ""},
		"beside_what_operators_permit":     {addrs("169.254.1.1"), subnets("192.0.2.0/24"), false, "169.254.1.1/32", ""},
		"not_a_neighbours":                 {addrs("fe80::42:ff:fe00:3"), nil, false, "", "it is the address of container web"},
		"its_own_says_nothing":             {addrs("fe80::42:ff:fe00:2"), nil, false, "", ""},
		"not_a_clouds":                     {addrs("169.254.169.254"), nil, false, "", "cloud's metadata service"},
		"unless_the_operator_says_so":      {addrs("169.254.169.254"), subnets("169.254.0.0/16"), false, "169.254.169.254/32", ""},
		"not_the_hosts":                    {addrs("fe80::250"), subnets("fe80::/64"), false, "", "it is the host's own address"},
		"not_what_the_host_reaches":        {addrs("169.254.77.77"), nil, false, "", "the host reaches it by eth0"},
		"not_beside_an_uplink":             {addrs("169.254.1.1"), nil, true, "", "bridge br-f holds eth0"},
		"beside_one_if_the_operator_likes": {addrs("169.254.1.1"), subnets("169.254.0.0/16"), true, "169.254.1.1/32", ""},
	} {
		t.Run(name, func(t *testing.T) {
			all := []endpoint.Endpoint{lives("box", 2), lives("web", 3)}
			all[0].Container.LocalAddrs = map[string][]netip.Addr{"front": c.given}
			x := localWords(c.permitted)
			if c.uplink {
				x.own = map[string]ownPorts{"br-f": {all: []string{"eth0"}}}
			}
			endpoints := desired(pointers(all...), &config.Config{}, shaper.Hashed)
			l := linkLocals{}
			must(t, l.decide(endpoints, x, nothingBefore))
			d := endpoints[0]
			if got := texts(d.Allow.Prefixes); got != c.want || texts(d.away()) != c.want {
				t.Errorf("it has %q, on its bridge alone %q, want %q", got, texts(d.away()), c.want)
			}
			if said := strings.Join(d.notes, " "); (said == "") != (c.note == "") || !strings.Contains(said, c.note) {
				t.Errorf("notes %q, want %q", said, c.note)
			}
			if l.ever != (c.want != "") {
				t.Errorf("ever: %v", l.ever)
			}
		})
	}
}

func nothingBefore() (guard.Earlier, error) { return guard.Earlier{}, nil }

func localWords(permitted []netip.Prefix) extraAddresses {
	return extraAddresses{permitted: permitted, bridges: map[string]int{"br-f": 2}, route: func(a netip.Addr) (link.Route, error) {
		switch a.String() {
		case "fe80::250":
			return link.Route{Own: true, Bits: 128}, nil
		case "169.254.77.77":
			return link.Route{Bits: 24, Links: []int{5}, Device: "eth0"}, nil
		}
		return link.Route{Links: []int{5}, Device: "eth0"}, nil
	}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLinkLocalsThatContainersSay is a story of who has an address.
func TestLinkLocalsThatContainersSay(t *testing.T) {
	const x = "fe80::a:b:c:d"
	has := func(e endpoint.Endpoint, since uint64, all ...string) endpoint.Endpoint {
		p := *e.Port
		for _, a := range all {
			p.LinkLocals = append(p.LinkLocals, link.LinkLocal{Addr: netip.MustParseAddr(a), Since: since})
		}
		e.Port = &p
		return e
	}
	one, two, other := lives("one", 2), lives("two", 3), lives("other", 4)
	free := other
	free.Container.Labels = map[string]string{endpoint.Label: "false"}
	given := two
	given.Container.LocalAddrs = map[string][]netip.Addr{"front": addrs(x)}
	far := two
	far.Network, far.Key.Network = back, back.ID
	l := linkLocals{}
	before := func() (guard.Earlier, error) {
		return guard.Earlier{LinkLocals: map[int]map[netip.Addr]bool{3: {netip.MustParseAddr("fe80::e"): true}}}, nil
	}
	for _, step := range []struct {
		name string
		all  []endpoint.Endpoint
		want string // who has what
		note string
	}{
		{"the_first", []endpoint.Endpoint{has(one, 9, x), two}, "one " + x + "/128", ""},
		{"keeps_it", []endpoint.Endpoint{has(one, 9, x), has(two, 1, x)}, "one " + x + "/128", "container one had it first"},
		{"on_another_bridge_it_is_anothers", []endpoint.Endpoint{has(one, 9, x), has(far, 10, x)}, "one " + x + "/128, two " + x + "/128", ""},
		{"until_it_is_gone", []endpoint.Endpoint{one, has(two, 1, x)}, "two " + x + "/128", ""},
		{"as_the_other_does", []endpoint.Endpoint{has(one, 1, x), has(two, 10, x)}, "two " + x + "/128", "container two had it first"},
		{"nobody", []endpoint.Endpoint{one, two}, "", ""},
		{"the_earlier_one", []endpoint.Endpoint{has(one, 12, x), has(two, 11, x)}, "two " + x + "/128", "container two had it first"},
		{"nobody_again", []endpoint.Endpoint{one, two}, "", ""},
		{"together_is_for_none", []endpoint.Endpoint{has(one, 13, x), has(two, 13, x)}, "", "more than one container has it"},
		{"what_an_earlier_agent_knew", []endpoint.Endpoint{has(one, 13, "fe80::e"), has(two, 13, "fe80::e")}, "two fe80::e/128", "container two had it first"},
		{"not_a_neighbours_own", []endpoint.Endpoint{has(one, 14, "fe80::42:ff:fe00:3"), two}, "", "it is the address of container two"},
		{"not_the_hosts", []endpoint.Endpoint{has(one, 14, "fe80::250"), two}, "", "it is the host's own address"},
		{"not_what_docker_gave_another", []endpoint.Endpoint{has(one, 14, x), given}, "two " + x + "/128", "container two was given it"},
		{"though_it_came_later", []endpoint.Endpoint{has(one, 14, x), has(given, 15, x)}, "two " + x + "/128", "container two was given it"},
		{"not_one_of_who_is_left_alone", []endpoint.Endpoint{has(one, 20, "fe80::f"), has(free, 16, "fe80::f")}, "", "container other had it first"},
	} {
		endpoints := desired(pointers(step.all...), &config.Config{AllowOptOut: true}, shaper.Hashed)
		must(t, l.decide(endpoints, localWords(nil), before))
		var got, notes []string
		for i := range endpoints {
			if p := endpoints[i].Allow.Prefixes; len(p) > 0 {
				got = append(got, endpoints[i].Container.Name+" "+texts(p))
			}
			notes = append(notes, endpoints[i].notes...)
		}
		if strings.Join(got, ", ") != step.want {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
		if said := strings.Join(notes, " "); (said == "") != (step.note == "") || !strings.Contains(said, step.note) {
			t.Errorf("%s: notes %q, want %q", step.name, said, step.note)
		}
	}
}
