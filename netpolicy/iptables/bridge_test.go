package iptables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBridges(t *testing.T) {
	flags := func(t *testing.T, name string) string {
		var out []string
		for _, line := range strings.Fields(run(t, "ip", "-d", "link", "show", name)) {
			if len(out) == 1 || len(out) == 3 || line == "nf_call_iptables" || line == "nf_call_ip6tables" {
				out = append(out, line)
			}
		}
		return strings.Join(out, " ")
	}
	const off, both, v4 = "nf_call_iptables 0 nf_call_ip6tables 0", "nf_call_iptables 1 nf_call_ip6tables 1", "nf_call_iptables 1 nf_call_ip6tables 0"
	forLabs(t, "switches_on_what_is_off_and_back", func(t *testing.T, l *lab) {
		run(t, "ip", "link", "set", "br1", "type", "bridge", "nf_call_iptables", "1")
		before := all(t)
		step := func(d *Driver, wish map[string]bool, br0, br1 string) []string {
			t.Helper()
			switchedOff, err := d.Bridges(wish)
			if err != nil {
				t.Fatal(err)
			}
			if have := flags(t, "br0"); have != br0 {
				t.Errorf("br0: %s, want %s", have, br0)
			}
			if have := flags(t, "br1"); have != br1 {
				t.Errorf("br1: %s, want %s", have, br1)
			}
			return switchedOff
		}
		d := open(t)
		step(d, map[string]bool{"br0": true, "none": true}, both, v4)
		wrote := d.wrote
		step(d, map[string]bool{"br0": true}, both, v4)
		if d.wrote != wrote {
			t.Errorf("the second time wrote %d messages", d.wrote-wrote)
		}
		d = open(t) // after a restart it still knows
		step(d, map[string]bool{"br0": false, "br1": true}, off, both)
		step(d, nil, off, v4)
		step(d, map[string]bool{"br0": true, "br1": true}, both, both)
		run(t, "ip", "link", "set", "br0", "type", "bridge", "nf_call_ip6tables", "0")
		if got := step(d, map[string]bool{"br0": true, "br1": true}, both, both); !slices.Equal(got, []string{"br0"}) {
			t.Errorf("it tells of %q", got)
		}
		// Without its record it would leave them switched on.
		run(t, "ipset", "destroy", "ng4-bridges")
		run(t, "ipset", "destroy", "ng6-bridges")
		if got := step(d, map[string]bool{"br0": true, "br1": true}, both, both); len(got) > 0 {
			t.Errorf("it tells of %q", got)
		}
		if err := d.Cleanup(context.Background()); err != nil {
			t.Fatal(err)
		}
		if have := flags(t, "br0") + flags(t, "br1"); have != off+v4 {
			t.Errorf("after cleanup: %s", have)
		}
		same(t, "kernel", before, all(t))
	})
	forLabs(t, "switches_several_at_once", func(t *testing.T, l *lab) {
		d := open(t)
		if _, err := d.Bridges(map[string]bool{"br0": true, "br1": true}); err != nil {
			t.Error(err)
		}
		if have := flags(t, "br0") + flags(t, "br1"); have != both+both {
			t.Error(have)
		}
	})
	forLabs(t, "leaves_ordinary_traffic_alone", func(t *testing.T, l *lab) {
		d := open(t)
		serve(t, l.b, 80)
		cmd := map[Backend]string{NFT: "iptables-nft", Legacy: "iptables-legacy"}
		apply(t, d, policy("a", nil, nil).wish())
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		ipt := cmd[d.Backend()]
		// A published port, as Docker does it, and the hairpin to it.
		run(t, ipt, "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "-d", "10.77.1.254", "--dport", "8080", "-j", "DNAT", "--to", "10.77.0.2:80")
		run(t, ipt, "-t", "nat", "-A", "POSTROUTING", "-s", "10.77.0.0/24", "!", "-o", "br0", "-j", "MASQUERADE")
		run(t, ipt, "-t", "nat", "-A", "POSTROUTING", "-p", "tcp", "-s", "10.77.0.2", "-d", "10.77.0.2", "--dport", "80", "-j", "MASQUERADE")
		for _, n := range []*node{l.a, l.b, l.c} {
			// ARP and neighbour discovery anew.
			n.do(func() {
				run(t, "ip", "neigh", "flush", "all")
				run(t, "ip", "-6", "neigh", "flush", "all")
			})
		}
		run(t, "bridge", "link", "set", "dev", "vb", "hairpin", "on")
		for i := range familyNames {
			if !reaches(t, l.a, "tcp", netip.AddrPortFrom(l.b.addrs[i], 80), true) || !reaches(t, l.c, "udp", netip.AddrPortFrom(l.b.addrs[i], 80), true) {
				t.Errorf("%s does not pass", familyNames[i])
			}
		}
		published := netip.MustParseAddrPort("10.77.1.254:8080")
		for name, n := range map[string]*node{"another bridge": l.c, "the same bridge": l.a, "the container itself": l.b} {
			if !reaches(t, n, "tcp", published, true) {
				t.Errorf("the published port does not answer %s", name)
			}
		}
		// And what policy says of it is by the container's own port.
		s := policy("b", []*node{l.a}, []*node{l.b}, 80)
		apply(t, d, s.wish())
		if !reaches(t, l.a, "tcp", published, true) || reaches(t, l.c, "tcp", published, false) {
			t.Error("policy does not hold for a published port")
		}
	})
	forLabs(t, "finds_neighbours_even_where_all_is_closed", func(t *testing.T, l *lab) {
		d := open(t)
		serve(t, l.b, 80)
		s := policy("a", nil, []*node{l.a, l.b})
		s.closed = s.db
		apply(t, d, s.wish())
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		for i := range familyNames {
			l.a.do(func() { run(t, "ip", "neigh", "flush", "all") })
			if reaches(t, l.a, "tcp", netip.AddrPortFrom(l.b.addrs[i], 80), false) {
				t.Errorf("%s passes", familyNames[i])
			}
			await(t, 5*time.Second, familyNames[i]+" neighbour is found", func() (found bool) {
				l.a.do(func() { found = strings.Contains(run(t, "ip", "neigh", "show", l.b.addrs[i].String()), "lladdr") })
				return found
			})
		}
	})
	t.Run("as_many_bridges_as_there_are", func(t *testing.T) {
		newLab(t, NFT)
		d := open(t)
		wish := map[string]bool{}
		for i := range 70 { // one prefix takes 64
			name := fmt.Sprintf("many%d", i)
			run(t, "ip", "link", "add", name, "type", "bridge")
			wish[name] = true
		}
		for range 2 {
			if _, err := d.Bridges(wish); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := open(t).Bridges(nil); err != nil {
			t.Fatal(err)
		}
		for name := range wish {
			if have := flags(t, name); have != off {
				t.Errorf("%s: %s", name, have)
			}
		}
	})
	t.Run("one_that_cannot_is_named", func(t *testing.T) {
		err := fmt.Errorf("set: %w", BridgeError{"br0": ErrNoBridgeFilter, "br1": unix.EPERM})
		var some BridgeError
		if !errors.As(err, &some) || some["br1"] != unix.EPERM || some["br2"] != nil || !errors.Is(err, ErrNoBridgeFilter) {
			t.Error(err)
		}
	})
	t.Run("cannot_without_br_netfilter", func(t *testing.T) {
		newLab(t, NFT)
		d := open(t)
		// The kernel of the tests has it built in.
		d.bridgeFilter = "/proc/sys/net/bridge/none"
		if _, err := d.Bridges(map[string]bool{"br0": true}); !errors.Is(err, ErrNoBridgeFilter) {
			t.Errorf("error = %v", err)
		}
		if have := flags(t, "br0"); have != off {
			t.Errorf("br0: %s", have)
		}
	})
}
