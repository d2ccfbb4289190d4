package guard

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// far are addresses that are of no managed network: the host's own, and nobody's.
var (
	hostFar4, nobodyFar4 = netip4(203, 0, 113, 1), netip4(192, 0, 2, 5)
	hostFar6, nobodyFar6 = netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::5")
	nobodyLocal          = netip.MustParseAddr("fe80::5")
)

// seen counts what the host's stack is given by the bridges and their ports: packets to it
// and through it, and ARP.
const seen = `
add table inet seen
add counter inet seen total
add chain inet seen input { type filter hook input priority 0; }
add chain inet seen forward { type filter hook forward priority 0; }
add rule inet seen input iifname != "lo" counter name total
add rule inet seen forward counter name total
add table arp seen
add counter arp seen total
add chain arp seen input { type filter hook input priority 0; }
add rule arp seen input counter name total
`

func (h *host) seen() (n int) {
	h.t.Helper()
	var list struct {
		Nftables []struct{ Counter *struct{ Packets int } }
	}
	h.check(json.Unmarshal([]byte(output(h.t, "nft", "-j", "list", "counters")), &list))
	for _, o := range list.Nftables {
		if o.Counter != nil {
			n += o.Counter.Packets
		}
	}
	return n
}

// silent has a container send nothing of its own accord.
func (b *box) silent() *box {
	b.inside(func() {
		b.host.check(os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("1"), 0))
		run(b.host.t, "ip", "addr", "flush", "dev", "eth0")
	})
	return b
}

// unusual are frames to the host without any address of the bridge's network: to groups, to
// all, and to the port's own MAC.
func unusual(a *box, own MAC) map[string][]byte {
	datagram := udpPacket(1, 2)
	out := map[string][]byte{}
	targets := map[string]MAC{"all": broadcast, "all_hosts": group4(netip4(224, 0, 0, 1)), "a_group": group4(netip4(239, 255, 255, 250)),
		"all_nodes": group6(allNodes), "the_port": own}
	for last := range byte(16) {
		// The second is flow control, which the bridge drops.
		if last != 1 {
			targets[fmt.Sprintf("link-local_group_%d", last)] = MAC{1, 0x80, 0xc2, 0, 0, last}
		}
	}
	for name, to := range targets {
		out[name+"/IPv4"] = ether(to, nobody, 0x800, ip4(nobodyFar4, hostFar4, 17, datagram))
		out[name+"/IPv6"] = ether(to, nobody, 0x86dd, ip6(nobodyFar6, hostFar6, 17, datagram))
		out[name+"/IPv6_link-local"] = ether(to, nobody, 0x86dd, ip6(nobodyLocal, hostFar6, 17, datagram))
		out[name+"/IPv6_to_a_group"] = ether(to, nobody, 0x86dd, ip6(nobodyLocal, allNodes, 17, datagram))
		out[name+"/IPv6_atomic_fragment"] = ether(to, nobody, 0x86dd, ip6(nobodyFar6, hostFar6, 44, fragment6(17, 0, false), datagram))
		out[name+"/ARP_request"] = ether(to, nobody, 0x806, arpPacket(1, nobody, nobodyFar4, MAC{}, hostFar4))
		out[name+"/ARP_answer"] = ether(to, nobody, 0x806, arpPacket(2, nobody, nobodyFar4, MAC{}, hostFar4))
		out[name+"/VLAN_0"] = ether(to, nobody, 0x8100, []byte{0, 0, 8, 0}, ip4(nobodyFar4, hostFar4, 17, datagram))
		out[name+"/ARP_in_VLAN_0"] = ether(to, nobody, 0x8100, []byte{0, 0, 8, 6}, arpPacket(1, nobody, nobodyFar4, MAC{}, hostFar4))
	}
	out["all/DHCP"] = ether(broadcast, a.mac, 0x800, ip4(none4, all4, 17, udpPacket(68, 67, dhcpRequest(a.mac))))
	out["all/gratuitous_ARP"] = ether(broadcast, nobody, 0x806, arpPacket(1, nobody, nobodyFar4, MAC{}, nobodyFar4))
	out["all_hosts/IGMP_query"] = ether(group4(netip4(224, 0, 0, 1)), nobody, 0x800, ip4(nobodyFar4, netip4(224, 0, 0, 1), 2, igmpPacket(0x11)))
	for name, typ := range map[string]byte{"MLD_query": 130, "router_solicitation": 133, "router_advertisement": 134, "solicitation": 135, "advertisement": 136, "redirect": 137} {
		out["all_nodes/"+name] = ether(group6(allNodes), nobody, 0x86dd, ip6(nobodyLocal, allNodes, 58, icmp6Packet(typ, hostFar6.AsSlice(), hostFar6.AsSlice())))
		out["the_port/"+name] = ether(own, nobody, 0x86dd, ip6(nobodyLocal, allNodes, 58, icmp6Packet(typ, hostFar6.AsSlice(), hostFar6.AsSlice())))
	}
	return out
}

// TestUnknownPort has a port that nobody has seen send to the host, in frames that carry no
// address of the bridge's network.
func TestUnknownPort(t *testing.T) {
	h := newHost(t, 0)
	for _, name := range []string{"all", bridgeName} {
		h.check(os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("0"), 0))
	}
	run(t, "ip", "link", "set", "lo", "up")
	run(t, "ip", "addr", "add", hostFar4.String()+"/32", "dev", "lo")
	run(t, "ip", "addr", "add", hostFar6.String()+"/128", "dev", "lo", "nodad")
	h.addBridge("br-else", MAC{2, 0, 0, 0, 0, 10})
	h.check(os.WriteFile("/proc/sys/net/ipv4/conf/br-else/rp_filter", []byte("0"), 0))
	d := h.driver()
	w := h.wish()
	w.FragmentRate = DefaultFragmentRate
	w.Bridges = []Bridge{{Index: h.bridge, Name: bridgeName, Subnets: []netip.Prefix{netip.PrefixFrom(gateway4, 24).Masked(), netip.PrefixFrom(gateway6, 64).Masked()}}}
	h.apply(d, w)
	late, other := h.addBox(bridgeName, "late", 51).silent(), h.addBox("br-else", "other", 52).silent()
	run(t, "sh", "-c", "nft -f - <<'E'\n"+seen+"E")

	other.mac = MAC{2, 0, 0, 0, 1, 52}
	frames, theirs := unusual(late, late.outer()), unusual(other, other.outer())
	// reach sends all of them, and names those that do not do as they should.
	reach := func(t *testing.T, from *box, frames map[string][]byte, want bool) {
		t.Helper()
		before := h.seen()
		for _, frame := range frames {
			from.send(frame)
		}
		after := h.seen()
		if want && after == before+len(frames) || !want && after == before {
			return
		}
		for name, frame := range frames {
			before := h.seen()
			from.send(frame)
			if (h.seen() != before) != want {
				t.Errorf("%s reached the host: %v", name, !want)
			}
		}
		t.Errorf("%d of %d reached the host", after-before, len(frames))
	}
	open := w
	open.Open = true
	h.run(t, "open", func(t *testing.T) {
		h.apply(d, open)
		reach(t, late, frames, true)
	})
	// Nobody's IP or ARP is in a link-local group.
	maps.DeleteFunc(theirs, func(name string, _ []byte) bool { return strings.HasPrefix(name, "link-local") })
	for _, filter := range []string{"0", "1"} {
		h.run(t, "bridge-nf-call-iptables="+filter, func(t *testing.T) {
			for _, name := range []string{"iptables", "ip6tables"} {
				if err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte(filter), 0); err != nil && filter == "1" {
					t.Skip("no br_netfilter")
				}
			}
			h.apply(d, w)
			if !d.features.BridgeNames {
				// The host's own frames have told which bridge the port is on.
				run(t, "nft", "flush", "set", "bridge", TableName, setUnknown)
			}
			reach(t, late, frames, false)
			reach(t, other, theirs, true)
		})
	}
	h.run(t, "clean-up_leaves_nothing", func(t *testing.T) {
		h.check(d.Cleanup())
		if left := output(t, "nft", "list", "tables"); strings.Contains(left, TableName) {
			t.Error(left)
		}
	})
}

// outer is the MAC of the host's end.
func (b *box) outer() MAC {
	l, err := net.InterfaceByName(b.name)
	b.host.check(err)
	return MAC(l.HardwareAddr)
}

// TestUnknownPortRemembered has a port that nobody has seen send to neighbours and to the
// bridge, with a port on it that is known.
func TestUnknownPortRemembered(t *testing.T) {
	h := newHost(t, 1)
	known := h.boxes[0].silent()
	run(t, "ip", "link", "set", bridgeName, "type", "bridge", "mcast_snooping", "1")
	d, w := h.driver(), h.wish()
	w.Bridges = []Bridge{{Index: h.bridge, Name: bridgeName, Subnets: []netip.Prefix{netip.PrefixFrom(gateway4, 24).Masked(), netip.PrefixFrom(gateway6, 64).Masked()}}}
	h.apply(d, w)
	one, two := h.addBox(bridgeName, "one", 51).silent(), h.addBox(bridgeName, "two", 52).silent()
	if d.features.BridgeNames {
		t.Skip("rules see which bridge a port is on: nothing need be remembered")
	}
	open := w
	open.Open = true
	// Neither frame has an address of the bridge's network.
	toTwo := ether(MAC{2, 0xcc, 0, 0, 0, 2}, nobody, 0x88b5, make([]byte, 46))
	toAll := ether(broadcast, nobody, 0x88b5, make([]byte, 46))
	learned := func() int {
		return strings.Count(output(t, "bridge", "fdb", "show", "brport", one.name), "02:dd:")
	}
	flood := func() {
		for i := range byte(100) {
			one.send(ether(MAC{2, 0xee, 0, 0, 0, 1}, MAC{2, 0xdd, 0, 0, 0, i}, 0x88b5, make([]byte, 46)))
		}
	}
	h.run(t, "open", func(t *testing.T) {
		h.apply(d, open)
		flood()
		if n := learned(); n != 100 {
			t.Errorf("the bridge learned %d MACs", n)
		}
		for name, frame := range map[string][]byte{"to_one": toTwo, "to_all": toAll} {
			if !arrivedAt(two, one, frame) {
				t.Errorf("%s did not arrive", name)
			}
		}
	})
	// Each is about groups that nobody is in; the first of them goes to all.
	report := func(from *box) {
		for n := 0; n < 6000; n += 100 {
			from.send(ether(group4(igmpv3), nobody, 0x800, ip4(nobodyFar4, igmpv3, 2, reportOf(n, 100))))
		}
	}
	h.run(t, "its_reports_of_groups_count_until_then", func(t *testing.T) {
		doomed := h.addBox(bridgeName, "doomed", 53).silent()
		h.boxes = h.boxes[:len(h.boxes)-1]
		report(doomed)
		if text := output(t, "ip", "-d", "link", "show", bridgeName); !strings.Contains(text, "mcast_snooping 0") {
			t.Error("6,000 groups do not turn snooping off where admission is open")
		}
		run(t, "ip", "link", "del", doomed.name)
		h.await("room in the table", func() bool { return !strings.Contains(output(t, "bridge", "mdb", "show"), "grp 239.") })
		run(t, "ip", "link", "set", bridgeName, "type", "bridge", "mcast_snooping", "1")
		h.apply(d, w)
		report(one)
		if n := strings.Count(output(t, "bridge", "mdb", "show"), " port "+one.name+" grp 239."); n > 100 {
			t.Errorf("the bridge counts %d groups", n)
		}
		if text := output(t, "ip", "-d", "link", "show", bridgeName); !strings.Contains(text, "mcast_snooping 1") {
			t.Error("snooping is off")
		}
		// The bridge has its settings; the port is unknown again.
		run(t, "nft", "flush", "set", "bridge", TableName, setUnknown)
	})
	h.run(t, "closed", func(t *testing.T) {
		h.apply(d, w)
		if arrivedAt(known, one, toAll) {
			t.Error("it arrived at one that is known")
		}
		run(t, "ip", "link", "set", "dev", one.name, "type", "bridge_slave", "fdb_flush")
		flood()
		if n := learned(); n != 0 {
			t.Errorf("the bridge learned %d MACs", n)
		}
		for name, frame := range map[string][]byte{"to_one": toTwo, "to_all": toAll} {
			if arrivedAt(two, one, frame) {
				t.Errorf("%s arrived", name)
			}
			if arrivedAt(one, two, frame) {
				t.Errorf("%s of the other one arrived", name)
			}
		}
	})
	h.run(t, "admitted_they_talk", func(t *testing.T) {
		w.Ports = h.wish().Ports
		h.apply(d, w)
		if !deliver(t, one, two, between(one, two)["IPv4"]) {
			t.Error("it did not arrive")
		}
	})
}
