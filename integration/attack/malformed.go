package attack

import "net/netip"

// malformed are frames with misleading headers, and messages that only look like those of
// a neighbour.
var malformed = []Attack{
	{"gratuitous_ARP_request_for_the_gateway", OfARP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherARP, ARP(1, s.Attacker.MAC, s.Gateway.IPv4, MAC{}, s.Gateway.IPv4))
	}},
	{"inverse_ARP", OfARP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherARP, ARP(9, s.Attacker.MAC, s.Attacker.IPv4, s.Victim.MAC, s.Victim.IPv4))
	}},
	{"ARP_operation_0", OfARP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherARP, ARP(0, s.Attacker.MAC, s.Attacker.IPv4, s.Victim.MAC, s.Victim.IPv4))
	}},
	{"IPv4_whose_header_is_too_short", OfIP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, Sum4(With(IPv4(s.Attacker.IPv4, s.Victim.IPv4, 17, Datagram(67, 68)), 0, 0x44)))
	}},
	{"IPv4_whose_header_is_longer_than_it", OfIP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, Sum4(With(IPv4(s.Attacker.IPv4, s.Victim.IPv4, 17, Datagram(67, 68)), 0, 0x4f)))
	}},
	{"PIM_hello", OfIP, func(s Scene) []byte {
		routers := netip.MustParseAddr("224.0.0.13")
		return Ether(Group4(routers), s.Attacker.MAC, EtherIPv4, IPv4(s.Attacker.IPv4, routers, 103, []byte{0x20, 0, 0xdf, 0xff}))
	}},
	{"IGMP_query_in_a_later_fragment", OfIP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, Fragment4(IPv4(s.Attacker.IPv4, s.Victim.IPv4, 2, IGMP(0x11)), 1, false))
	}},
	{"IGMP_report_in_a_fragment", OfIP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, Fragment4(IPv4(s.Attacker.IPv4, s.Victim.IPv4, 2, IGMP(0x16)), 0, true))
	}},
	{"ICMPv6_from_another_container", OfIP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(s.Third.IPv6, s.Victim.IPv6, 58, Message6(128)))
	}},
	{"IPv6_that_is_longer_than_its_frame", OfIP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, With(IPv6(s.Attacker.IPv6, s.Victim.IPv6, 60, Extension(17)), 4, 4, 0))
	}},
	{"IPv6_fragment_that_hides_its_protocol", OfIP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.IPv6, s.Victim.IPv6, 44, Fragment6(60, 1, false), bareAdvertisement()))
	}},
	{"first_fragment_that_hides_the_type", OfND, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.IPv6, s.Victim.IPv6, 44, Fragment6(60, 0, true), LastExtension(58)))
	}},
	{"ICMPv6_that_is_too_short_for_a_type", OfND, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.IPv6, s.Victim.IPv6, 60, LastExtension(58)))
	}},
	{"multicast_query_with_router_alert", OfND, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.MAC.LinkLocal(), AllNodes, 0, RouterAlert6(58), Message6(130, make([]byte, 16))))
	}},
	{"multicast_router_advertisement", OfND, func(s Scene) []byte { return ownND(s, Message6(151)) }},
	{"neighbour_advertisement_with_a_second_option", OfND, func(s Scene) []byte {
		return ownND(s, Message6(136, s.Attacker.IPv6.AsSlice(), MACOption(2, s.Attacker.MAC), MACOption(2, s.Third.MAC)))
	}},
	{"neighbour_advertisement_for_a_neighbour_without_a_MAC", OfND, func(s Scene) []byte {
		return ownND(s, Message6(136, s.Third.IPv6.AsSlice()))
	}},
	{"neighbour_advertisement_from_no_address", OfND, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(None6, s.Victim.IPv6, 58, Message6(136, s.Attacker.IPv6.AsSlice(), MACOption(2, s.Attacker.MAC))))
	}},
	{"neighbour_solicitation_with_a_target_option", OfND, func(s Scene) []byte {
		return ownND(s, Message6(135, s.Victim.IPv6.AsSlice(), MACOption(2, s.Attacker.MAC)))
	}},
	{"neighbour_solicitation_that_was_routed", OfND, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, With(IPv6(s.Attacker.IPv6, s.Victim.IPv6, 58, Message6(135, s.Victim.IPv6.AsSlice())), 7, 64))
	}},
	{"detection_of_duplicates_with_a_MAC", OfND, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(None6, Solicited(s.Attacker.IPv6), 58, Message6(135, s.Attacker.IPv6.AsSlice(), MACOption(1, s.Attacker.MAC))))
	}},
	{"multicast_query_from_no_address", OfND, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(None6, AllNodes, 0, RouterAlert6(58), Message6(130, make([]byte, 16))))
	}},
	{"DHCP_offer_in_a_first_fragment", OfDHCP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, Fragment4(IPv4(s.Attacker.IPv4, s.Victim.IPv4, 17, Datagram(67, 68)), 0, true))
	}},
	{"DHCPv6_advertise_behind_destination_options", OfDHCP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.MAC.LinkLocal(), s.Victim.IPv6, 60, Extension(17), Datagram(547, 546, []byte{2, 0, 0, 1})))
	}},
	plain("MACsec", 0x88e5), plain("loopback", 0x9000),
}

// ownND is a message of neighbour discovery from the attacker's own address.
func ownND(s Scene, message ...[]byte) []byte {
	return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.IPv6, s.Victim.IPv6, icmpv6, message...))
}

func bareAdvertisement() []byte { return Message6(134, make([]byte, 8)) }
