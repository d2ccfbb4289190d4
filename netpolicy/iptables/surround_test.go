package iptables

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"netguard/netpolicy"
)

func TestReadOthers(t *testing.T) {
	forBackends(t, "names_rules_that_untrack", func(t *testing.T) {
		d := open(t)
		before := all(t)
		if o, err := d.ReadOthers(t.Context()); err != nil || len(o.Untracked(nil)) != 0 {
			t.Fatalf("%+v, %v", o, err)
		}
		same(t, "kernel", before, all(t))
		forked := d.forked
		if _, err := d.ReadOthers(t.Context()); err != nil || d.forked != forked {
			t.Errorf("%d programs run though nothing changed: %v", d.forked-forked, err)
		}
		for _, cmd := range cmds(d) {
			run(t, cmd, "-t", "raw", "-A", "PREROUTING", "-p", "udp", "--dport", "53", "-j", "CT", "--notrack")
			run(t, cmd, "-t", "raw", "-A", "OUTPUT", "-p", "tcp", "--sport", "8000:8100", "-j", "CT", "--notrack")
		}
		run(t, "nft", "add table inet early; add chain inet early pre { type filter hook prerouting priority -300; }; add rule inet early pre udp dport 99 notrack")
		o, err := d.ReadOthers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for want, s := range map[int]*netpolicy.Service{5: nil, 3: {Proto: netpolicy.UDP, Port: 53}, 1: {Proto: netpolicy.UDP, Port: 54}} {
			if got := o.Untracked(s); len(got) != want || !slices.Contains(got, "table inet early, chain pre") {
				t.Errorf("%v: %q", s, got)
			}
		}
		if got := o.Untracked(&netpolicy.Service{Proto: netpolicy.TCP, Port: 8080}); len(got) != 3 || !strings.Contains(got[0], "IPv4 raw OUTPUT") {
			t.Errorf("%q", got)
		}
	})
	// What each of these does to answers, integration.TestUntracked shows.
	for name, c := range map[string]struct{ script, want string }{
		"by_its_older_name":             {"iptables -t raw -A PREROUTING -j NOTRACK", "IPv4 raw PREROUTING"},
		"in_a_chain_that_is_gone_to":    {"iptables -t raw -N OPS; iptables -t raw -A OPS -j CT --notrack; iptables -t raw -A OUTPUT -p udp -g OPS", "IPv4 raw OPS"},
		"some_chains_further":           {"ip6tables -t raw -N A; ip6tables -t raw -N B; ip6tables -t raw -A B -j CT --notrack; ip6tables -t raw -A A -j B; ip6tables -t raw -A PREROUTING -j A", "IPv6 raw B"},
		"legacy":                        {"ip6tables-legacy -t raw -A PREROUTING -j CT --notrack", "IPv6 raw PREROUTING"},
		"by_some_of_its_ports":          {"iptables -t raw -A PREROUTING -p udp -m multiport --sports 1,50:60 -j CT --notrack", "IPv4 raw PREROUTING"},
		"by_other_ports":                {"iptables -t raw -A PREROUTING -p udp -m multiport --sports 1,54:60 -j CT --notrack", ""},
		"behind_a_rule_for_other_ports": {"iptables -t raw -N OPS; iptables -t raw -A OPS -j CT --notrack; iptables -t raw -A PREROUTING -p tcp --dport 53 -j OPS", ""},
		"where_nothing_leads_to":        {"iptables -t raw -N OPS; iptables -t raw -A OPS -j CT --notrack", ""},
		"in_a_chain_of_nftables":        {"nft add table inet ops; nft add chain inet ops mine; nft add chain inet ops pre '{ type filter hook prerouting priority raw; }'; nft add rule inet ops mine notrack; nft add rule inet ops pre jump mine", "table inet ops, chain mine"},
		"by_a_map_of_nftables":          {"nft add table ip ops; nft add chain ip ops mine; nft add chain ip ops pre '{ type filter hook output priority raw; }'; nft add rule ip ops mine notrack; nft add rule ip ops pre udp sport vmap '{ 53 : jump mine }'", "table ip ops, chain mine"},
		"on_a_bridge":                   {"nft add table bridge ops; nft add chain bridge ops pre '{ type filter hook prerouting priority -300; }'; nft add rule bridge ops pre notrack", "table bridge ops, chain pre"},
		"at_a_device":                   {"nft add table netdev ops; nft add chain netdev ops pre '{ type filter hook ingress device lo priority 0; }'; nft add rule netdev ops pre notrack", "table netdev ops, chain pre"},
		"too_late":                      {"nft add table inet ops; nft add chain inet ops pre '{ type filter hook prerouting priority filter; }'; nft add rule inet ops pre notrack", ""},
	} {
		t.Run("untracked_"+name, func(t *testing.T) {
			namespace(t)
			d := open(t)
			run(t, "sh", "-ec", c.script)
			o, err := d.ReadOthers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := o.Untracked(&netpolicy.Service{Proto: netpolicy.UDP, Port: 53})
			if (len(got) == 0) != (c.want == "") || len(got) > 0 && (len(got) > 1 || !strings.HasPrefix(got[0], c.want)) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	forBackends(t, "tells_where_nat_leads", func(t *testing.T) {
		d := open(t)
		for i, cmd := range cmds(d) {
			to, loopback := []string{"10.77.28.2:80", "[fd00:28::2]:80"}[i], []string{"127.0.0.0/8", "::1/128"}[i]
			for _, rule := range []string{"-N DOCKER", "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER", "-A OUTPUT ! -d " + loopback + " -m addrtype --dst-type LOCAL -j DOCKER",
				"-A DOCKER -i brc -j RETURN", "-A DOCKER ! -i brb -p tcp -m tcp --dport 8080 -j DNAT --to-destination " + to} {
				run(t, cmd, append([]string{"-t", "nat"}, strings.Fields(rule)...)...)
			}
		}
		o, err := d.ReadOthers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			in, dst string
			port    uint16
			want    bool
		}{
			{"-", "198.51.100.1", 8080, true}, {"", "198.51.100.1", 8080, true}, {"", "127.0.0.1", 8080, false}, {"bra", "198.51.100.1", 8080, true},
			{"brb", "198.51.100.1", 8080, false}, {"brc", "198.51.100.1", 8080, false}, {"-", "198.51.100.1", 8081, false}, {"-", "203.0.113.1", 8080, false},
			{"-", "2001:db8::1", 8080, true}, {"brb", "2001:db8::1", 8080, false}, {"", "::1", 8080, false},
		} {
			local := func(a netip.Addr) bool { return a != addr("203.0.113.1") }
			to, led := o.Led(c.in, addr(c.dst), addr(c.dst), netpolicy.Service{Proto: netpolicy.TCP, Port: c.port}, local)
			if led != c.want || led && to.Port() != 80 {
				t.Errorf("%+v: %v %t", c, to, led)
			}
		}
	})
}

// TestLed: a rule may name an address or a range of them, with or without ports.
func TestLed(t *testing.T) {
	for argument, want := range map[string]string{
		"172.17.0.2:81":               "172.17.0.2:81",
		"172.17.0.2":                  "172.17.0.2:80",
		"172.17.0.2-172.17.0.9":       "172.17.0.2:80",
		"172.17.0.2-172.17.0.9:81":    "172.17.0.2:81",
		"172.17.0.2:8000-8010":        "172.17.0.2:8000",
		"fd00::2":                     "[fd00::2]:80",
		"fd00::2-fd00::9":             "[fd00::2]:80",
		"[fd00::2]":                   "[fd00::2]:80",
		"[fd00::2]:81":                "[fd00::2]:81",
		"[fd00::2-fd00::9]:8000-8010": "[fd00::2]:8000",
		"172.17.0.2:8000-8010/80":     "172.17.0.2:8000",
		"172.17.0.2:70-90":            "172.17.0.2:80",
		":81":                         "",
		"172.17.0.2:x":                "",
	} {
		o := &Others{}
		dst := addr("198.51.100.1")
		if strings.Contains(argument, "fd00") {
			dst = addr("2001:db8::1")
		}
		o.nat[index(dst.Is6())] = map[string][]string{"PREROUTING": {"-p tcp -m tcp --dport 80 -j DNAT --to-destination " + argument}}
		to, led := o.Led("-", dst, dst, netpolicy.Service{Proto: netpolicy.TCP, Port: 80}, func(netip.Addr) bool { return false })
		if led != (want != "") || led && to.String() != want {
			t.Errorf("%s: %v %t, want %q", argument, to, led, want)
		}
	}
}
