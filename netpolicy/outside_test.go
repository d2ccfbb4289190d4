package netpolicy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestOutside(t *testing.T) {
	for name, c := range map[string]struct {
		peers string // of a rule, and of one that denies
		deny  string
		taken []netip.Addr
		want  string
	}{
		"nothing_is_named":       {peers: "{entity: external}", want: "203.0.113.1 2001:db8:ffff::1"},
		"all_is_no_name":         {peers: "{cidr: 0.0.0.0/0}, {cidr: '::/0'}", want: "203.0.113.1 2001:db8:ffff::1"},
		"a_part_of_it":           {peers: "{cidr: 203.0.113.0/28}, {cidr: '2001:db8:ffff::1/128'}", want: "203.0.113.17 2001:db8:ffff::"},
		"all_of_it":              {peers: "{cidr: 203.0.113.0/24}, {cidr: '2001:db8::/32'}", want: "198.51.100.1 2000::1"},
		"what_a_rule_denies":     {deny: "{cidr: 203.0.113.0/24}", want: "198.51.100.1 2001:db8:ffff::1"},
		"an_exception":           {peers: "{cidr: 0.0.0.0/0, except: [203.0.113.0/24]}", want: "198.51.100.1 2001:db8:ffff::1"},
		"somebody's":             {taken: []netip.Addr{netip.MustParseAddr("203.0.113.1")}, want: "203.0.113.0 2001:db8:ffff::1"},
		"all_that_is_documented": {peers: "{cidr: 192.0.0.0/2}, {cidr: 0.0.0.0/7}", want: "2.0.0.1 2001:db8:ffff::1"},
		"everything":             {peers: "{cidr: 0.0.0.0/1}, {cidr: 128.0.0.0/1}", want: "2001:db8:ffff::1"},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := Load([]Source{{Name: "a.yaml", Data: []byte(fmt.Sprintf("name: a\nselect: {}\ningress: [{from: [%s]}]\ndeny: [{egress: {to: [%s]}}]\n", orNobody(c.peers), orNobody(c.deny)))}})
			if len(c2.Faults()) > 0 {
				t.Fatal(c2.Faults())
			}
			e := Endpoint{Workload: Workload{ID: "x", Name: "x"}, Network: "n", Managed: true, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}
			rs := Compile(World{Endpoints: refs([]Endpoint{e}), Policies: c2.Policies()})
			var got []string
			for _, a := range rs.Outside(c.taken) {
				got = append(got, a.String())
			}
			if text := strings.Join(got, " "); text != c.want {
				t.Errorf("%s, want %s", text, c.want)
			}
		})
	}
}

func orNobody(peers string) string {
	if peers == "" {
		return "{service: nobody}"
	}
	return peers
}
