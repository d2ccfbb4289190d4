package guard

import (
	"net/netip"
	"testing"
)

// TestServers: what a DHCP server sends to a relay leaves the bridge, and nothing of it
// stays there.
func TestServers(t *testing.T) {
	h := newHost(t, 2)
	a, v := h.boxes[0], h.boxes[1]
	host := &box{host: h, mac: h.mac, socket: packetSocket(t, bridgeName, 3)}
	w := h.wish()
	w.Bridges = []Bridge{{Index: h.bridge, Name: bridgeName,
		Subnets: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24"), netip.MustParsePrefix("fd00:30::/64")}}}
	d := h.driver()
	h.apply(d, w)
	answer := make([]byte, 240)
	four := func(to netip.Addr, ports ...uint16) []byte {
		return ether(h.mac, a.mac, 0x800, ip4(a.ip4, to, 17, udpPacket(ports[0], ports[1], answer)))
	}
	six := func(to netip.Addr, ports ...uint16) []byte {
		return ether(h.mac, a.mac, 0x86dd, ip6(a.ip6, to, 17, udpPacket(ports[0], ports[1], answer)))
	}
	relay4, relay6 := netip4(192, 0, 2, 1), netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		name   string
		frame  []byte
		passes bool
	}{
		{"to_a_relay", four(relay4, 67, 67), true},
		{"to_a_relay_of_IPv6", six(relay6, 547, 547), true},
		{"a_client_asks_its_server", four(relay4, 68, 67), true},
		{"TCP_to_that_port", ether(h.mac, a.mac, 0x800, ip4(a.ip4, relay4, 6, []byte{0, 67, 0, 67}, make([]byte, 16))), true},
		{"to_a_client", four(relay4, 67, 68), false},
		{"to_a_neighbour_by_the_bridge", four(v.ip4, 67, 67), false},
		{"to_all_of_the_network", four(netip4(172, 30, 0, 255), 67, 67), false},
		{"to_the_bridge", four(gateway4, 67, 67), false},
		{"to_all", four(all4, 67, 67), false},
		{"to_a_group", four(mdns4, 67, 67), false},
		{"to_another_port", four(relay4, 67, 53), false},
		{"to_a_client_of_IPv6", six(relay6, 547, 546), false},
		{"to_a_neighbour_of_IPv6", six(v.ip6, 547, 547), false},
		{"to_a_link_local_address", six(v.mac.LinkLocal(), 547, 547), false},
		{"to_a_group_of_IPv6", six(netip.MustParseAddr("ff02::1:2"), 547, 547), false},
	} {
		h.run(t, c.name, func(t *testing.T) {
			before := violations(t, d, a)
			if got := arrivedAt(host, a, c.frame); got != c.passes {
				t.Errorf("it arrived: %v", got)
			}
			if after := violations(t, d, a); (after == before) != c.passes {
				t.Errorf("counted %+v, before %+v", after, before)
			}
		})
	}
}
