package guard

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// TestServers: what a DHCP server sends beyond the host leaves the bridge, and nothing of
// it stays there but what the operator's word allows.
func TestServers(t *testing.T) {
	h := newHost(t, 2)
	a, v := h.boxes[0], h.boxes[1]
	host := &box{host: h, mac: h.mac, socket: packetSocket(t, bridgeName, 3)}
	w := h.wish()
	w.Bridges = []Bridge{{Index: h.bridge, Name: bridgeName,
		Subnets: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24"), netip.MustParsePrefix("fd00:30::/64")}}}
	d := h.driver()
	answer := make([]byte, 240)
	four := func(by MAC, to netip.Addr, ports ...uint16) []byte {
		return ether(by, a.mac, 0x800, ip4(a.ip4, to, 17, udpPacket(ports[0], ports[1], answer)))
	}
	six := func(by MAC, to netip.Addr, ports ...uint16) []byte {
		from := a.ip6
		if to.IsLinkLocalUnicast() {
			from = a.mac.LinkLocal()
		}
		return ether(by, a.mac, 0x86dd, ip6(from, to, 17, udpPacket(ports[0], ports[1], answer)))
	}
	relay4, relay6, group6 := netip4(192, 0, 2, 1), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("ff02::1:2")
	tests := []struct {
		name  string
		at    *box
		frame []byte
		// passes says whether it arrives without the operator's word, served with it.
		passes, served bool
	}{
		{"to_a_relay", host, four(h.mac, relay4, 67, 67), true, true},
		{"to_a_relay_of_IPv6", host, six(h.mac, relay6, 547, 547), true, true},
		{"a_client_asks_its_server", host, four(h.mac, relay4, 68, 67), true, true},
		{"TCP_to_that_port", host, ether(h.mac, a.mac, 0x800, ip4(a.ip4, relay4, 6, []byte{0, 67, 0, 67}, make([]byte, 16))), true, true},
		{"to_a_client_beyond_the_host", host, four(h.mac, relay4, 67, 68), true, true},
		{"from_another_port_to_a_client_beyond_the_host", host, four(h.mac, relay4, 53, 68), true, true},
		{"to_another_port_beyond_the_host", host, four(h.mac, relay4, 67, 53), true, true},
		{"to_a_client_of_IPv6_beyond_the_host", host, six(h.mac, relay6, 547, 546), true, true},
		{"from_another_port_to_a_client_of_IPv6_beyond_the_host", host, six(h.mac, relay6, 53, 546), true, true},
		{"to_a_client_by_the_bridge", host, four(h.mac, v.ip4, 67, 68), false, false},
		{"to_a_neighbour_by_the_bridge", host, four(h.mac, v.ip4, 67, 67), false, true},
		{"to_all_of_the_network", host, four(h.mac, netip4(172, 30, 0, 255), 67, 67), false, true},
		{"to_the_bridge", host, four(h.mac, gateway4, 67, 67), false, true},
		{"to_the_bridge_as_a_client", host, four(h.mac, gateway4, 67, 68), false, false},
		{"to_all_by_the_bridge", host, four(h.mac, all4, 67, 68), false, false},
		{"to_a_group_by_the_bridge", host, four(h.mac, mdns4, 67, 68), false, false},
		{"to_a_client_of_IPv6_by_the_bridge", host, six(h.mac, v.ip6, 547, 546), false, false},
		{"to_a_link_local_address_by_the_bridge", host, six(h.mac, v.mac.LinkLocal(), 547, 546), false, false},
		{"to_a_group_of_IPv6_by_the_bridge", host, six(h.mac, group6, 547, 546), false, false},
		{"to_a_client", v, four(v.mac, v.ip4, 67, 68), false, true},
		{"to_a_client_at_the_address_that_it_is_to_get", v, four(v.mac, netip4(172, 30, 0, 200), 67, 68), false, true},
		{"to_all", v, four(MAC(everybody), all4, 67, 68), false, true},
		{"to_a_relay_on_the_bridge", v, four(v.mac, v.ip4, 67, 67), false, true},
		{"to_a_client_of_IPv6", v, six(v.mac, v.mac.LinkLocal(), 547, 546), false, true},
		{"to_a_relay_of_IPv6_on_the_bridge", v, six(v.mac, v.ip6, 547, 547), false, true},
		{"from_another_port_to_a_client", v, four(v.mac, v.ip4, 53, 68), false, false},
		{"from_another_port_to_a_client_of_IPv6", v, six(v.mac, v.ip6, 53, 546), false, false},
		{"to_another_port", v, four(v.mac, v.ip4, 67, 53), false, false},
		{"from_an_address_that_is_not_its_own", v, ether(v.mac, a.mac, 0x800, ip4(gateway4, v.ip4, 17, udpPacket(67, 68, answer))), false, false},
		{"a_router_advertisement", v, ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), v.ip6, 58, routerAdvertisement())), false, false},
	}
	for _, served := range []bool{false, true} {
		name := "without_the_operators_word"
		if served {
			name = "with_it"
		}
		w.edit(0).DHCPServer = served
		h.apply(d, w)
		h.run(t, name, func(t *testing.T) {
			for _, c := range tests {
				passes := c.passes
				if served {
					passes = c.served
				}
				before := violations(t, d, a)
				if got := arrivedAt(c.at, a, c.frame); got != passes {
					t.Errorf("%s arrived: %v", c.name, got)
				}
				if after := violations(t, d, a); (after == before) != passes {
					t.Errorf("%s: counted %+v, before %+v", c.name, after, before)
				}
			}
			// The word is about one of them.
			if arrivedAt(a, v, ether(MAC(everybody), v.mac, 0x800, ip4(v.ip4, all4, 17, udpPacket(67, 68, answer)))) {
				t.Error("a neighbour's answer arrived")
			}
		})
	}
}

// TestClients: answers to clients leave the host, and come neither to the host itself nor
// back to a managed bridge, whatever routes it has.
func TestClients(t *testing.T) {
	h := newHost(t, 3)
	a, v, out := h.boxes[0], h.boxes[1], h.boxes[2]
	for _, knob := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		h.check(os.WriteFile("/proc/sys/net/"+knob, []byte("1"), 0))
	}
	// Else the sender is told of a shorter way to the second one.
	for _, name := range []string{"all", bridgeName} {
		h.check(os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/send_redirects", []byte("0"), 0))
	}
	a.inside(func() { run(t, "sysctl", "-qw", "net.ipv6.conf.eth0.accept_redirects=0") })
	// The third one is a machine beyond the host.
	run(t, "ip", "link", "set", out.name, "nomaster", "down")
	run(t, "ip", "link", "set", out.name, "addrgenmode", "eui64", "up")
	run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", out.name)
	run(t, "ip", "addr", "add", "2001:db8::1/64", "dev", out.name, "nodad")
	out.inside(func() {
		run(t, "ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
		run(t, "ip", "addr", "add", "2001:db8::2/64", "dev", "eth0", "nodad")
	})
	run(t, "ip", "addr", "add", "203.0.113.1/32", "dev", "lo")
	// A route leads to an address of the second one that no network of Docker's has.
	run(t, "ip", "route", "add", "198.51.100.9/32", "dev", bridgeName)
	run(t, "ip", "route", "add", "2001:db8:9::9/128", "dev", bridgeName)
	v.inside(func() {
		run(t, "ip", "addr", "add", "198.51.100.9/32", "dev", "eth0")
		run(t, "ip", "addr", "add", "2001:db8:9::9/128", "dev", "eth0", "nodad")
	})
	a.inside(func() { run(t, "ip", "route", "add", "default", "via", gateway6.String()) })
	w := h.wish()
	w.Ports = w.Ports[:2]
	w.Bridges = []Bridge{{Index: h.bridge, Name: bridgeName,
		Subnets: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24"), netip.MustParsePrefix("fd00:30::/64")}}}
	back := []netip.Prefix{netip.MustParsePrefix("198.51.100.9/32"), netip.MustParsePrefix("2001:db8:9::9/128")}
	w.edit(1).Allow = Allow{Prefixes: back}
	// arrives sends a datagram, and one after it to a port that nothing is said of.
	got := func(at *box, to netip.Addr, from, port int) bool {
		var all []*net.UDPConn
		defer func() {
			for _, c := range all {
				_ = c.Close()
			}
		}()
		open := func(in *box, local net.UDPAddr) *net.UDPConn {
			f := func() {
				c, err := opened(func() (*net.UDPConn, error) { return net.ListenUDP("udp", &local) })
				h.check(err)
				all = append(all, c)
			}
			if in == nil {
				f()
			} else {
				in.inside(f)
			}
			return all[len(all)-1]
		}
		asked, last := open(at, net.UDPAddr{Port: port}), open(at, net.UDPAddr{Port: 4000})
		sender := open(a, net.UDPAddr{Port: from})
		buf := make([]byte, 10)
		for until := time.Now().Add(arrives); time.Now().Before(until); {
			for _, p := range []int{port, 4000} {
				_, err := sender.WriteToUDP([]byte("answer"), &net.UDPAddr{IP: to.AsSlice(), Port: p})
				h.check(err)
			}
			_ = last.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if _, err := last.Read(buf); err == nil {
				_ = asked.SetReadDeadline(time.Now().Add(time.Millisecond))
				_, err := asked.Read(buf)
				return err == nil
			}
		}
		t.Fatalf("nothing of what is sent to %s arrives", to)
		return false
	}
	d := h.driver()
	tests := []struct {
		name       string
		at         *box
		to         netip.Addr
		from, port int
		passes     bool
	}{
		{"a_machine_beyond", out, netip4(192, 0, 2, 2), 67, 68, true},
		{"a_machine_beyond_from_another_port", out, netip4(192, 0, 2, 2), 5353, 68, true},
		{"a_machine_beyond_by_IPv6", out, netip.MustParseAddr("2001:db8::2"), 547, 546, true},
		{"a_relay_of_the_host", nil, netip4(203, 0, 113, 1), 67, 67, true},
		{"the_host", nil, netip4(203, 0, 113, 1), 67, 68, false},
		{"the_host_from_another_port", nil, netip4(203, 0, 113, 1), 5353, 68, false},
		{"the_host_by_IPv6", nil, netip.MustParseAddr("2001:db8::1"), 547, 546, false},
		{"back_to_a_neighbour", v, back[0].Addr(), 67, 68, false},
		{"back_to_a_neighbour_by_IPv6", v, back[1].Addr(), 547, 546, false},
	}
	for _, c := range tests {
		if c.from != 67 && c.from != 547 {
			continue
		}
		if !got(c.at, c.to, c.from, c.port) {
			t.Errorf("without netguard %s did not get it", c.name)
		}
	}
	h.apply(d, w)
	for _, c := range tests {
		if at := got(c.at, c.to, c.from, c.port); at != c.passes {
			t.Errorf("%s got it: %v", c.name, at)
		}
	}
	// Beside a port that is not guarded answers come in that are honest.
	w.Ports = append(w.Ports, &Port{Index: out.port, Name: out.name, Bridge: h.bridge, BridgeName: bridgeName, Admitted: true})
	h.apply(d, w)
	for _, c := range tests {
		if (c.port == 68 || c.port == 546) && c.at != v {
			before := violations(t, d, a)
			if _, err := a.datagram(c.to, c.from, c.port); err != nil {
				t.Error(err)
			}
			h.await("it is refused at the port", func() bool { return violations(t, d, a).DHCP > before.DHCP })
		}
	}
}

// datagram sends one datagram.
func (b *box) datagram(to netip.Addr, from, port int) (n int, err error) {
	b.inside(func() {
		var c *net.UDPConn
		if c, err = opened(func() (*net.UDPConn, error) {
			return net.DialUDP("udp", &net.UDPAddr{Port: from}, &net.UDPAddr{IP: to.AsSlice(), Port: port})
		}); err == nil {
			n, err = c.Write([]byte("answer"))
			_ = c.Close()
		}
	})
	return n, err
}
