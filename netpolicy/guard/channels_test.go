package guard

import (
	"bytes"
	"net/netip"
	"slices"
)

// Frames that policies do not judge, with something in them that is none of their
// business, and errors about the connections of others.

var (
	all4   = netip.MustParseAddr("255.255.255.255")
	mdns4  = netip.MustParseAddr("224.0.0.251")
	igmpv3 = netip.MustParseAddr("224.0.0.22")
	mldv2  = netip.MustParseAddr("ff02::16")
	burden = bytes.Repeat([]byte("burden "), 50)
)

// group4 is the MAC of an IPv4 multicast group.
func group4(a netip.Addr) MAC {
	b := a.As4()
	return MAC{1, 0, 0x5e, b[1] & 0x7f, b[2], b[3]}
}

// options puts options into the header of an IPv4 packet.
func options(p []byte, opts ...byte) []byte {
	q := slices.Concat(p[:20], opts, p[20:])
	n := len(q)
	q[0], q[2], q[3] = 0x45+byte(len(opts)/4), byte(n>>8), byte(n)
	return q
}

// routerAlert4 is the option of reports.
var routerAlert4 = []byte{0x94, 4, 0, 0}

// report4 is a report of IGMPv3 about n groups.
func report4(n int, more ...byte) []byte {
	p := []byte{0x22, 0, 0, 0, 0, 0, 0, byte(n)}
	for i := range n {
		p = append(p, 4, 0, 0, 0, 239, 0, 0, byte(i))
	}
	return append(p, more...)
}

// report6 is a report of MLDv2 about n groups.
func report6(n int) []byte {
	p := with(icmp6Packet(143), 7, byte(n))
	for i := range n {
		p = append(append(p, 4, 0, 0, 0), netip.AddrFrom16([16]byte{0: 0xff, 1: 5, 15: byte(i)}).AsSlice()...)
	}
	return p
}

func igmpTo(mac MAC, from, to netip.Addr, message []byte, behind ...[]byte) func(a, v, c *box) []byte {
	return func(a, v, c *box) []byte {
		if !from.IsValid() {
			from = a.ip4
		}
		return ether(mac, a.mac, 0x800, append([][]byte{options(ip4(from, to, 2, message), routerAlert4...)}, behind...)...)
	}
}

// quote is an error message that quotes a packet.
func quote(typ byte, quoted []byte) []byte {
	return append([]byte{typ, 1, 0, 0, 0, 0, 5, 0}, quoted...)
}

func flow4(from, to netip.Addr) []byte { return ip4(from, to, 17, udpPacket(5000, 53)) }
func flow6(from, to netip.Addr) []byte { return ip6(from, to, 17, udpPacket(5000, 53)) }

func errorTo4(v, a *box, message []byte) []byte {
	return ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 1, message))
}

func errorTo6(v, a *box, next byte, parts ...[]byte) []byte {
	return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, next, parts...))
}

func discover(to MAC, dst netip.Addr, op byte, extra int, behind ...[]byte) func(a, v, c *box) []byte {
	return func(a, v, c *box) []byte {
		if to == (MAC{}) {
			to = v.mac
		}
		if !dst.IsValid() {
			dst = v.ip4
		}
		q := append(with(dhcpRequest(a.mac), 0, op), make([]byte, extra)...)
		return ether(to, a.mac, 0x800, append([][]byte{ip4(none4, dst, 17, udpPacket(68, 67, q))}, behind...)...)
	}
}

// fromNowhere is a packet without a source.
func fromNowhere(to MAC, dst netip.Addr, protocol byte, body []byte) func(a, v, c *box) []byte {
	return func(a, v, c *box) []byte { return ether(to, a.mac, 0x800, ip4(none4, dst, protocol, body)) }
}

var lengths = []attack{
	{"a_byte_behind_ARP", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, v.ip4), []byte{0})
	}},
	{"ARP_filled_up_with_something", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, v.ip4), make([]byte, 17), []byte{1})
	}},
	{"ARP_reply_filled_up_with_something", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(2, a.mac, a.ip4, v.mac, v.ip4), []byte("eighteen bytes ...")[:18])
	}},
	{"ARP_filled_up_too_far", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, v.ip4), make([]byte, 19))
	}},
	{"payload_behind_ARP", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, v.ip4), burden)
	}},
	{"payload_behind_ARP_to_all", ofARP, func(a, v, c *box) []byte {
		return ether(broadcast, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, v.ip4), burden)
	}},
	{"payload_behind_an_ARP_probe", ofARP, func(a, v, c *box) []byte {
		return ether(broadcast, a.mac, 0x806, arpPacket(1, a.mac, none4, MAC{}, a.ip4), burden)
	}},
	{"ARP_probe_to_one", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(1, a.mac, none4, MAC{}, v.ip4))
	}},
	{"payload_behind_a_neighbour_solicitation", ofND, func(a, v, c *box) []byte {
		return append(nd(a, v, icmp6Packet(135, v.ip6.AsSlice(), ndOptionOf(1, a.mac))), burden...)
	}},
	{"a_byte_behind_a_bare_neighbour_solicitation", ofND, func(a, v, c *box) []byte {
		return append(nd(a, v, icmp6Packet(135, v.ip6.AsSlice())), 0)
	}},
	{"payload_behind_a_neighbour_advertisement", ofND, func(a, v, c *box) []byte {
		return append(nd(a, v, icmp6Packet(136, a.ip6.AsSlice(), ndOptionOf(2, a.mac))), burden...)
	}},
	{"payload_behind_a_router_solicitation", ofND, func(a, v, c *box) []byte {
		return append(nd(a, v, icmp6Packet(133, ndOptionOf(1, a.mac))), burden...)
	}},
	{"payload_behind_the_detection_of_duplicates", ofND, func(a, v, c *box) []byte {
		to := solicited(a.ip6)
		return append(ether(group6(to), a.mac, 0x86dd, ip6(none6, to, 58, icmp6Packet(135, a.ip6.AsSlice()))), burden...)
	}},
}

var strayReports = []attack{
	{"IGMP_report_to_one", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 2, igmpPacket(0x16)))
	}},
	{"IGMP_report_in_a_frame_to_one", ofIP, func(a, v, c *box) []byte {
		return igmpTo(v.mac, a.ip4, igmpv3, report4(1))(a, v, c)
	}},
	{"IGMP_report_in_a_frame_to_all", ofIP, igmpTo(broadcast, netip.Addr{}, igmpv3, report4(1))},
	{"IGMP_report_to_one_in_a_frame_to_a_group", ofIP, func(a, v, c *box) []byte {
		return igmpTo(group4(igmpv3), a.ip4, v.ip4, report4(1))(a, v, c)
	}},
	{"payload_behind_an_IGMP_report", ofIP, igmpTo(group4(igmpv3), netip.Addr{}, igmpv3, report4(2), burden)},
	{"a_byte_behind_an_IGMP_report", ofIP, igmpTo(group4(igmpv3), netip.Addr{}, igmpv3, report4(4), []byte{0})},
	{"IGMP_report_of_an_odd_length", ofIP, igmpTo(group4(igmpv3), netip.Addr{}, igmpv3, report4(4, 'o', 'd', 'd'))},
	{"IGMP_report_from_no_address", ofIP, igmpTo(group4(igmpv3), none4, igmpv3, report4(1))},
	{"multicast_report_in_a_frame_to_one", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), mldv2, 0, routerAlert(58), report6(1), burden))
	}},
	{"multicast_report_to_one_in_a_frame_to_a_group", ofND, func(a, v, c *box) []byte {
		return ether(group6(mldv2), a.mac, 0x86dd, ip6(a.mac.LinkLocal(), v.ip6, 0, routerAlert(58), report6(1)))
	}},
	{"multicast_report_to_one", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 0, routerAlert(58), report6(1)))
	}},
	{"older_multicast_report_in_a_frame_to_one", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, mldv2, 0, routerAlert(58), icmp6Packet(131, mldv2.AsSlice())))
	}},
	{"multicast_report_from_no_address_in_a_frame_to_one", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(none6, mldv2, 0, routerAlert(58), report6(1), burden))
	}},
	{"multicast_report_from_no_address_in_a_frame_to_all", ofND, func(a, v, c *box) []byte {
		return ether(broadcast, a.mac, 0x86dd, ip6(none6, mldv2, 0, routerAlert(58), report6(1)))
	}},
	{"multicast_report_from_no_address_to_one", ofND, func(a, v, c *box) []byte {
		return ether(group6(mldv2), a.mac, 0x86dd, ip6(none6, v.ip6, 0, routerAlert(58), report6(1)))
	}},
	{"payload_behind_a_multicast_report", ofND, func(a, v, c *box) []byte {
		return ether(group6(mldv2), a.mac, 0x86dd, ip6(a.ip6, mldv2, 0, routerAlert(58), report6(1)), burden)
	}},
	{"payload_behind_a_multicast_report_from_no_address", ofND, func(a, v, c *box) []byte {
		return ether(group6(mldv2), a.mac, 0x86dd, ip6(none6, mldv2, 0, routerAlert(58), report6(1)), burden)
	}},
	{"multicast_report_without_router_alert", ofND, func(a, v, c *box) []byte {
		return ether(group6(mldv2), a.mac, 0x86dd, ip6(a.ip6, mldv2, 58, report6(1)))
	}},
	{"multicast_report_behind_destination_options", ofND, func(a, v, c *box) []byte {
		return ether(group6(mldv2), a.mac, 0x86dd, ip6(a.ip6, mldv2, 60, extension(58), report6(1)))
	}},
	{"multicast_report_in_a_first_fragment", ofND, func(a, v, c *box) []byte {
		return ether(group6(mldv2), a.mac, 0x86dd, ip6(a.ip6, mldv2, 0, routerAlert(44), fragment6(58, 0, true), report6(1)))
	}},
}

var servers = []attack{
	{"DHCP_offer_from_another_port", ofDHCP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 17, udpPacket(1000, 68, make([]byte, 240))))
	}},
	{"DHCP_offer_to_all_from_another_port", ofDHCP, func(a, v, c *box) []byte {
		return ether(broadcast, a.mac, 0x800, ip4(a.ip4, all4, 17, udpPacket(1000, 68, make([]byte, 240))))
	}},
	{"DHCP_offer_to_all_in_a_frame_to_one", ofDHCP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(a.ip4, all4, 17, udpPacket(1000, 68, make([]byte, 240))))
	}},
	{"DHCP_server_to_a_relay_that_is_a_neighbour", ofDHCP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 17, udpPacket(67, 67, make([]byte, 240))))
	}},
	{"DHCP_server_to_a_relay_behind_a_neighbour", ofDHCP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(a.ip4, netip4(192, 0, 2, 1), 17, udpPacket(67, 67, make([]byte, 240))))
	}},
	{"DHCPv6_advertise_from_another_port", ofDHCP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), v.ip6, 17, udpPacket(1000, 546, []byte{2, 0, 0, 1})))
	}},
	{"DHCPv6_advertise_from_another_port_behind_options", ofDHCP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), v.ip6, 60, extension(17), udpPacket(1000, 546, []byte{2, 0, 0, 1})))
	}},
}

var sourceless = []attack{
	{"DHCP_client_in_a_frame_to_one", ofDHCP, discover(MAC{}, all4, 1, 0)},
	{"DHCP_client_to_one", ofDHCP, discover(MAC{}, netip.Addr{}, 1, 0)},
	{"DHCP_client_to_one_in_a_frame_to_all", ofDHCP, discover(broadcast, netip.Addr{}, 1, 0)},
	{"DHCP_client_to_all_of_the_network", ofDHCP, discover(broadcast, netip4(172, 30, 0, 255), 1, 0)},
	{"DHCP_client_in_a_frame_to_a_group", ofDHCP, discover(group4(mdns4), all4, 1, 0)},
	{"DHCP_client_that_answers", ofDHCP, discover(broadcast, all4, 2, 0)},
	{"DHCP_client_that_says_too_much", ofDHCP, discover(broadcast, all4, 1, 576-28-240+1)},
	{"payload_behind_a_DHCP_client", ofDHCP, discover(broadcast, all4, 1, 0, burden)},
	{"DHCP_client_in_a_first_fragment", ofIP, func(a, v, c *box) []byte {
		return ether(broadcast, a.mac, 0x800, fragment4(ip4(none4, all4, 17, udpPacket(68, 67, dhcpRequest(a.mac))), 0, true))
	}},
	{"later_fragment_from_no_address", ofIP, func(a, v, c *box) []byte {
		return ether(broadcast, a.mac, 0x800, fragment4(ip4(none4, all4, 17, burden), 1, false))
	}},
	{"UDP_from_no_address_to_all", ofIP, fromNowhere(broadcast, all4, 17, udpPacket(68, 68, burden))},
	{"UDP_from_no_address_to_a_group", ofIP, fromNowhere(group4(mdns4), mdns4, 17, udpPacket(5353, 5353, burden))},
	{"UDP_from_no_address_to_none", ofDHCP, fromNowhere(broadcast, none4, 17, udpPacket(68, 67, burden))},
	{"TCP_from_no_address", ofIP, fromNowhere(broadcast, all4, 6, append([]byte{0, 68, 0, 67}, make([]byte, 16)...))},
	{"echo_from_no_address", ofIP, fromNowhere(broadcast, all4, 1, []byte{8, 0, 0, 0, 0, 1, 0, 1})},
	{"another_protocol_from_no_address", ofIP, fromNowhere(broadcast, all4, 47, burden)},
	{"UDP_from_no_address_of_IPv6_to_a_group", ofIP, func(a, v, c *box) []byte {
		return ether(group6(allNodes), a.mac, 0x86dd, ip6(none6, allNodes, 17, udpPacket(546, 547, burden)))
	}},
	{"echo_from_no_address_of_IPv6", ofND, func(a, v, c *box) []byte {
		return ether(group6(allNodes), a.mac, 0x86dd, ip6(none6, allNodes, 58, icmp6Packet(128)))
	}},
	{"detection_of_duplicates_in_a_frame_to_one", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(none6, solicited(a.ip6), 58, icmp6Packet(135, a.ip6.AsSlice())))
	}},
	{"detection_of_duplicates_to_all", ofND, func(a, v, c *box) []byte {
		return ether(group6(allNodes), a.mac, 0x86dd, ip6(none6, allNodes, 58, icmp6Packet(135, a.ip6.AsSlice())))
	}},
	{"detection_of_duplicates_to_one", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(none6, v.ip6, 58, icmp6Packet(135, a.ip6.AsSlice())))
	}},
	{"router_solicitation_from_no_address_to_one", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(none6, v.ip6, 58, icmp6Packet(133)))
	}},
	{"router_solicitation_from_no_address_in_a_frame_to_one", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(none6, allRouter, 58, icmp6Packet(133)))
	}},
}

var forgedErrors = []attack{
	{"redirect_of_IPv4", ofIP, func(a, v, c *box) []byte { return errorTo4(v, a, quote(5, flow4(v.ip4, a.ip4))) }},
	{"error_about_what_it_sent_itself", ofIP, func(a, v, c *box) []byte { return errorTo4(v, a, quote(3, flow4(a.ip4, v.ip4))) }},
	{"error_about_nothing", ofIP, func(a, v, c *box) []byte { return errorTo4(v, a, quote(3, nil)) }},
	{"error_whose_quote_is_too_short", ofIP, func(a, v, c *box) []byte { return errorTo4(v, a, quote(3, flow4(v.ip4, a.ip4)[:19])) }},
	{"error_in_a_first_fragment", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, fragment4(ip4(a.ip4, v.ip4, 1, quote(3, flow4(v.ip4, c.ip4))), 0, true))
	}},
	{"error_in_a_first_fragment_without_its_quote", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, fragment4(ip4(a.ip4, v.ip4, 1, quote(3, nil)), 0, true))
	}},
	{"error_behind_options", ofIP, func(a, v, c *box) []byte {
		// Where the quote's destination would be without them, there is its own.
		q := with(options(flow4(v.ip4, c.ip4), 1, 1, 1, 1), 12, a.ip4.AsSlice()...)
		return ether(v.mac, a.mac, 0x800, options(ip4(a.ip4, v.ip4, 1, quote(3, q)), 1, 1, 1, 1))
	}},
	{"error_about_a_packet_with_options", ofIP, func(a, v, c *box) []byte {
		return errorTo4(v, a, quote(3, options(flow4(v.ip4, c.ip4), slices.Concat(a.ip4.AsSlice(), a.ip4.AsSlice())...)))
	}},
	{"error_to_all", ofIP, func(a, v, c *box) []byte {
		return ether(broadcast, a.mac, 0x800, ip4(a.ip4, v.ip4, 1, quote(3, flow4(v.ip4, c.ip4))))
	}},
	{"error_of_IPv6_about_nothing", ofIP, func(a, v, c *box) []byte { return errorTo6(v, a, 58, quote(1, nil)) }},
	{"error_of_IPv6_whose_quote_is_too_short", ofIP, func(a, v, c *box) []byte {
		return errorTo6(v, a, 58, quote(2, flow6(v.ip6, a.ip6)[:39]))
	}},
	{"error_of_IPv6_about_the_link_local_address_of_another", ofIP, func(a, v, c *box) []byte {
		return errorTo6(v, a, 58, quote(1, flow6(v.mac.LinkLocal(), c.mac.LinkLocal())))
	}},
	{"error_of_IPv6_behind_hop_by_hop", ofIP, func(a, v, c *box) []byte {
		return errorTo6(v, a, 0, extension(58), quote(2, flow6(v.ip6, c.ip6)))
	}},
	{"error_of_IPv6_behind_destination_options", ofIP, func(a, v, c *box) []byte {
		return errorTo6(v, a, 60, extension(60), extension(58), quote(1, flow6(v.ip6, c.ip6)))
	}},
	{"error_of_IPv6_in_an_atomic_fragment", ofIP, func(a, v, c *box) []byte {
		return errorTo6(v, a, 44, fragment6(58, 0, false), quote(2, flow6(v.ip6, c.ip6)))
	}},
	{"error_of_IPv6_in_a_first_fragment", ofIP, func(a, v, c *box) []byte {
		return errorTo6(v, a, 44, fragment6(58, 0, true), quote(2, flow6(v.ip6, a.ip6)))
	}},
	{"error_of_IPv6_in_a_first_fragment_without_its_quote", ofIP, func(a, v, c *box) []byte {
		return errorTo6(v, a, 44, fragment6(58, 0, true), quote(2, nil))
	}},
	{"error_of_IPv6_with_two_fragment_headers", ofIP, func(a, v, c *box) []byte {
		return errorTo6(v, a, 44, fragment6(44, 0, false), fragment6(58, 0, true), quote(2, flow6(v.ip6, c.ip6)))
	}},
}

func init() {
	for name, typ := range map[string]byte{"unreachable": 3, "source_quench": 4, "time_exceeded": 11, "parameter_problem": 12} {
		forgedErrors = append(forgedErrors, attack{name + "_about_anothers_connection", ofIP, func(a, v, c *box) []byte {
			return errorTo4(v, a, quote(typ, flow4(v.ip4, c.ip4)))
		}}, attack{name + "_about_a_connection_to_the_world", ofIP, func(a, v, c *box) []byte {
			return errorTo4(v, a, quote(typ, flow4(v.ip4, netip4(203, 0, 113, 9))))
		}})
	}
	for name, typ := range map[string]byte{"type_0": 0, "unreachable": 1, "packet_too_big": 2, "time_exceeded": 3, "parameter_problem": 4, "type_5": 5, "type_100": 100, "type_127": 127} {
		forgedErrors = append(forgedErrors, attack{name + "_of_IPv6_about_anothers_connection", ofIP, func(a, v, c *box) []byte {
			return errorTo6(v, a, 58, quote(typ, flow6(v.ip6, c.ip6)))
		}})
	}
	attacks = slices.Concat(attacks, lengths, strayReports, servers, sourceless, forgedErrors)
}
