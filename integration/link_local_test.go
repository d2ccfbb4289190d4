package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"testing"

	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// Addresses that are of no managed network: the host's own, and nobody's.
var (
	hostFar   = attack.Party{IPv4: netip.MustParseAddr("203.0.113.1"), IPv6: netip.MustParseAddr("2001:db8:1::1")}
	nobodyFar = attack.Party{IPv4: netip.MustParseAddr("192.0.2.5"), IPv6: netip.MustParseAddr("2001:db8:2::5"), MAC: attack.Nobody}
)

// hearing counts what the host's stack is given of attack.ToHost, for itself or to be
// forwarded.
var hearing = fmt.Sprintf(`
add table inet reached
add counter inet reached total
add chain inet reached input { type filter hook input priority -10; }
add chain inet reached forward { type filter hook forward priority -10; }
add rule inet reached input udp dport %[1]d counter name total
add rule inet reached input ip6 saddr fe80::5 icmpv6 type != mld-listener-report counter name total
add rule inet reached forward udp dport %[1]d counter name total
add table arp reached
add counter arp reached total
add chain arp reached input { type filter hook input priority 0; }
add rule arp reached input arp daddr ip { %[2]s, 198.18.98.1 } counter name total
`, attack.HostPort, hostFar.IPv4)

func reachedHost(t *testing.T, e *Engine) (n int) {
	t.Helper()
	var list struct {
		Nftables []struct{ Counter *struct{ Packets int } }
	}
	for _, family := range []string{"inet", "arp"} {
		if err := json.Unmarshal([]byte(e.Output("nft", "-j", "list", "counters", "table", family, "reached")), &list); err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Nftables {
			if o.Counter != nil {
				n += o.Counter.Packets
			}
		}
	}
	return n
}

// TestLinkLocalGroups has a container that starts while no agent runs send to the host
// what names none of the network's addresses: in frames to groups, to all, and to its veth's
// own MAC; and IP in frames to link-local groups, LLDP's among them, which a bridge hands
// over as if they had come in by the port, past its hooks.
func TestLinkLocalGroups(t *testing.T) {
	t.Parallel()
	e := Start(t)
	for _, name := range []string{"all", "default"} {
		// Without the detection of duplicates the bridge has its address at once.
		e.Output("sysctl", "-qw", "net.ipv4.conf."+name+".rp_filter=0", "net.ipv6.conf."+name+".accept_dad=0")
	}
	e.Network("net", Subnet("198.18.98.0/24"), Subnet("fd00:98::/64"))
	e.Output("ip", "addr", "add", hostFar.IPv4.String()+"/32", "dev", "lo")
	e.Output("ip", "addr", "add", hostFar.IPv6.String()+"/128", "dev", "lo", "nodad")
	e.Output("sh", "-c", "nft -f - <<'E'\n"+hearing+"E")
	// reach sends all frames of a container, and names those that reach the host.
	reach := func(c *Container, own bool) (sent, n int, names []string) {
		a := enter(t, c, "net")
		var tap *attack.Port
		var end *net.Interface
		veth := c.Veth("net")
		if err := e.Do(func() (err error) {
			if end, err = net.InterfaceByName(veth); err == nil {
				tap, err = attack.Open(veth)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer tap.Close()
		host := gateway(t, e, e.ExistingNetwork("net"), c)
		frames := attack.ToHost(nobodyFar, hostFar, attack.MAC(end.HardwareAddr))
		if own {
			for name, f := range attack.ToHost(a.party(), host, attack.MAC(end.HardwareAddr)) {
				frames["from its own address: "+name] = f
			}
		}
		number := 0
		send := func(all ...[]byte) int {
			before := reachedHost(t, e)
			number++
			last := attack.Ether(attack.MAC{2, 0xff, 0, 0, 0, 1}, attack.Nobody, 0x88b5, fmt.Appendf(make([]byte, 46), "last %d.", number))
			if err := a.port.Send(append(all, last)...); err != nil {
				t.Fatal(err)
			}
			if _, err := tap.Hears(nil, last, deadline()); err != nil {
				t.Fatal(err)
			}
			return reachedHost(t, e) - before
		}
		var all [][]byte
		for f := range maps.Values(frames) {
			all = append(all, f)
		}
		if n = send(all...); n > 0 && n < len(all) {
			for name, f := range frames {
				if (send(f) > 0) == (n < len(all)/2) {
					names = append(names, name)
				}
			}
		}
		return len(all), n, names
	}
	if sent, n, names := reach(e.Run("before", On("net")), true); n < sent {
		t.Fatalf("without netguard %d of %d frames reached the host, and not %q", n, sent, names)
	}
	a := e.Agent()
	a.AwaitStatus("all are admitted", AllAdmitted)
	a.Kill()
	for i := range 2 {
		if _, n, names := reach(e.Run(fmt.Sprintf("late%d", i), On("net")), true); n != 0 {
			t.Errorf("%d frames of a container that came while no agent ran reached the host: %q", n, names)
		}
	}
	// Of one that is admitted, what has its own address passes.
	a.Start()
	a.AwaitStatus("all are admitted", AllAdmitted)
	if _, n, names := reach(e.Run("known", On("net")), false); n != 0 {
		t.Errorf("%d frames of a container that is admitted reached the host: %q", n, names)
	}
}
