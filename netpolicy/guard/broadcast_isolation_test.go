package guard

import (
	"net/netip"
	"slices"
	"testing"
)

// TestBroadcastIsolation is about ports that policies close for what reaches them: what is for all,
// or for a group, goes past policies.
func TestBroadcastIsolation(t *testing.T) {
	h := newHost(t, 3)
	a, v, other := h.boxes[0], h.boxes[1], h.boxes[2]
	d := h.driver()
	open := h.wish()
	open.Bridges = []Bridge{{Index: h.bridge, Name: bridgeName,
		Subnets: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24"), netip.MustParsePrefix("fd00:30::/64")}}}
	shut := open
	shut.Ports = slices.Clone(open.Ports)
	shut.edit(slices.IndexFunc(shut.Ports, func(p *Port) bool { return p.Index == v.port })).Isolated = true

	mDNS4, mDNS6, all4, wide := netip4(224, 0, 0, 251), netip.MustParseAddr("ff02::fb"), netip4(172, 30, 0, 255), netip4(255, 255, 255, 255)
	datagram := udpPacket(1, 2)
	datagrams := func(from *box) map[string]func(to MAC) []byte {
		four := func(to netip.Addr) func(MAC) []byte {
			return func(mac MAC) []byte { return ether(mac, from.mac, 0x800, ip4(from.ip4, to, 17, datagram)) }
		}
		six := func(to netip.Addr, next byte, payload ...[]byte) func(MAC) []byte {
			return func(mac MAC) []byte { return ether(mac, from.mac, 0x86dd, ip6(from.ip6, to, next, payload...)) }
		}
		return map[string]func(MAC) []byte{
			"to_all": four(wide), "to_all_of_the_network": four(all4), "to_all_as_it_was": four(netip4(172, 30, 0, 0)), "mDNS": four(mDNS4),
			"mDNS_over_IPv6": six(mDNS6, 17, datagram), "IPv6_to_all": six(allNodes, 17, datagram),
			"behind_options": six(allNodes, 60, extension(17), datagram), "behind_hop_by_hop": six(allNodes, 0, routerAlert(17), datagram),
			"echo_to_all": six(allNodes, 58, icmp6Packet(128)), "echo_behind_options": six(allNodes, 60, extension(58), icmp6Packet(128)),
		}
	}
	group := MAC{0x33, 0x33, 0, 0, 0, 1}
	all := func(name string, want bool) {
		for _, from := range []*box{a, {host: h, mac: h.mac, ip4: gateway4, ip6: gateway6}} {
			sender := "from_a_neighbour/"
			if from != a {
				sender = "from_the_host/"
			}
			for what, frame := range datagrams(from) {
				h.run(t, name+"/"+sender+what, func(t *testing.T) {
					if from != a {
						from.socket = packetSocket(t, bridgeName, 0)
					}
					for way, to := range map[string]MAC{"broadcast": broadcast, "group": group, "its own": v.mac} {
						if got := arrivedAt(v, from, frame(to)); got != want {
							t.Errorf("to the %s MAC it arrived: %v", way, got)
						}
					}
					if !arrivedAt(other, from, frame(broadcast)) {
						t.Error("another one does not get it")
					}
				})
			}
		}
	}
	h.apply(d, open)
	all("open", true)
	monitor := shut
	monitor.Mode = Monitor
	h.apply(d, monitor)
	all("monitor", true)
	h.apply(d, shut)
	all("isolated", false)
	h.run(t, "is_no_violation", func(t *testing.T) {
		if got := violations(t, d, a); got != (Violations{}) {
			t.Errorf("counted %+v", got)
		}
	})
	notFor := []string{"broadcast", "mDNS", "mDNS_over_IPv6", "DHCP_discover", "DHCP_client_that_says_much", "DHCPv6_solicit"}
	for _, f := range honest {
		if !slices.Contains(notFor, f.name) {
			h.run(t, "what_IP_needs_arrives/"+f.name, func(t *testing.T) {
				if !deliver(t, a, v, f.frame(a, v)) {
					t.Error("it was dropped")
				}
			})
		}
	}
	h.run(t, "an_answer_of_DHCP_arrives", func(t *testing.T) {
		host := &box{host: h, socket: packetSocket(t, bridgeName, 0)}
		if !arrivedAt(v, host, ether(broadcast, h.mac, 0x800, ip4(gateway4, wide, 17, udpPacket(67, 68)))) {
			t.Error("it was dropped")
		}
	})
	sender := &box{host: h, mac: h.mac, ip4: gateway4, ip6: gateway6}
	// foreign sends packets for addresses that are not the container's here.
	foreign := func(name string, v *box, want func(to netip.Addr) bool) {
		for _, to := range []string{"192.0.2.1", "198.51.100.7", "10.50.0.255", "0.0.0.0", "0.0.0.1", "127.0.0.1", "169.254.1.1",
			"240.0.0.1", a.ip4.String(), "::", "::1", "::ffff:172.30.0.2", "2001:db8::1", "fd00:99::1", "fe80::99", a.ip6.String()} {
			addr := netip.MustParseAddr(to)
			for whose, from := range map[string]*box{"a_neighbour": a, "the_host": sender} {
				h.run(t, name+"/from_"+whose+"/to_"+to, func(t *testing.T) {
					if from == sender {
						from.socket = packetSocket(t, bridgeName, 0)
					}
					frames := [][]byte{ether(v.mac, from.mac, 0x800, ip4(from.ip4, addr, 17, datagram))}
					if addr.Is4() {
						frames = append(frames, ether(v.mac, from.mac, 0x800, fragment4(ip4(from.ip4, addr, 17, datagram), 9, false)))
						if !want(addr) && from == sender {
							frames = append(frames, ether(v.mac, from.mac, 0x800, ip4(from.ip4, addr, 17, udpPacket(67, 68))),
								ether(v.mac, from.mac, 0x800, ip4(from.ip4, addr, 2, igmpPacket(0x16))))
						}
					} else {
						frames = [][]byte{ether(v.mac, from.mac, 0x86dd, ip6(from.ip6, addr, 17, datagram)),
							ether(v.mac, from.mac, 0x86dd, ip6(from.ip6, addr, 60, extension(17), datagram)),
							ether(v.mac, from.mac, 0x86dd, ip6(from.ip6, addr, 44, fragment6(17, 9, false), datagram))}
						if !want(addr) && from == sender {
							frames = append(frames, ether(v.mac, from.mac, 0x86dd, ip6(from.ip6, addr, 58, icmp6Packet(135, addr.AsSlice()))))
						}
					}
					for i, frame := range frames {
						if got := arrivedAt(v, from, frame); got != want(addr) {
							t.Errorf("frame %d arrived: %v", i, got)
						}
					}
				})
			}
		}
	}
	no := func(netip.Addr) bool { return false }
	foreign("not_its_address", v, no)
	router := shut
	router.Ports = slices.Clone(shut.Ports)
	victim := slices.IndexFunc(router.Ports, func(p *Port) bool { return p.Index == v.port })
	router.edit(victim).Allow.Prefixes = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}
	routed := func(to netip.Addr) bool {
		return to == netip4(192, 0, 2, 1) || to == netip.MustParseAddr("2001:db8::1")
	}
	h.apply(d, router)
	foreign("a_router_gets_what_its_label_allows", v, routed)
	router.edit(victim).Guarded = false
	h.apply(d, router)
	foreign("unguarded_too", v, routed)
	h.run(t, "an_unguarded_port_gets_what_is_for_it", func(t *testing.T) {
		for _, frame := range [][]byte{ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 17, datagram)),
			ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 17, datagram))} {
			if !arrivedAt(v, a, frame) {
				t.Error("it was dropped")
			}
		}
	})
	h.apply(d, shut)
	h.run(t, "an_unguarded_port_is_shut_too", func(t *testing.T) {
		w := shut
		w.Ports = slices.Clone(shut.Ports)
		w.edit(slices.IndexFunc(w.Ports, func(p *Port) bool { return p.Index == v.port })).Guarded = false
		h.apply(d, w)
		if arrivedAt(v, a, datagrams(a)["mDNS"](broadcast)) {
			t.Error("it arrived")
		}
	})
	h.apply(d, open)
	all("open_again", true)
}

// TestReports: what says that it is a report of groups is for a group.
func TestReports(t *testing.T) {
	h := newHost(t, 2)
	a, v := h.boxes[0], h.boxes[1]
	d := h.driver()
	h.apply(d, h.wish())
	for name, frame := range map[string]func(to netip.Addr) []byte{
		"behind_options":  func(to netip.Addr) []byte { return ip6(a.ip6, to, 0, routerAlert(58), icmp6Packet(143)) },
		"from_no_address": func(to netip.Addr) []byte { return ip6(none6, to, 0, routerAlert(58), icmp6Packet(143)) },
		"of_MLDv1":        func(to netip.Addr) []byte { return ip6(a.ip6, to, 0, routerAlert(58), icmp6Packet(131)) },
		"of_MLDv1_bare":   func(to netip.Addr) []byte { return ip6(a.ip6, to, 0, extension(58), icmp6Packet(132)) },
	} {
		h.run(t, name, func(t *testing.T) {
			before := violations(t, d, a)
			if arrivedAt(v, a, ether(v.mac, a.mac, 0x86dd, frame(v.ip6))) {
				t.Error("one that is for a container arrived")
			}
			expect(t, before, violations(t, d, a), ofND)
			if !arrivedAt(v, a, ether(group6(allRouter), a.mac, 0x86dd, frame(allRouter))) {
				t.Error("one that is for a group did not")
			}
		})
	}
}
