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
