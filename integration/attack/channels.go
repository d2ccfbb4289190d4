package attack

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
)

// Burden is hidden data that does not belong into a message.
var Burden = bytes.Repeat([]byte("payload "), 100)

// Discover is the question of a DHCP client.
func Discover(client MAC) []byte {
	return Ether(Broadcast, client, EtherIPv4, UDP4(port(None4, 68), port(All4, 67), DHCPRequest(client)))
}

// Report4 is a report of IGMPv3 about one group, in a frame to a MAC.
func Report4(to, from MAC, sender netip.Addr, behind ...[]byte) []byte {
	m := []byte{0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 0, 0, 9}
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return Ether(to, from, EtherIPv4, append([][]byte{IPv4(sender, ReportGroup4, igmp, m)}, behind...)...)
}

// Report6 is a report of MLDv2 about one group, in a frame to a MAC.
func Report6(to, from MAC, sender netip.Addr, behind ...[]byte) []byte {
	record := append([]byte{0, 0, 0, 1, 4, 0, 0, 0}, netip.MustParseAddr("ff05::9").AsSlice()...)
	alert := []byte{icmpv6, 0, 5, 2, 0, 0, 1, 0}
	return Ether(to, from, EtherIPv6, append([][]byte{IPv6(sender, ReportGroup6, 0, alert, ICMPv6(sender, ReportGroup6, 143, record))}, behind...)...)
}

// Unreachable is an error message of a type about a packet. If the type is "too big", it
// says that the path takes 552 bytes of IPv4, and 1280 of IPv6.
func Unreachable(from, to netip.Addr, typ byte, quoted []byte) []byte {
	if from.Is6() {
		return IPv6(from, to, icmpv6, ICMPv6(from, to, typ, []byte{0, 0, 5, 0}, quoted))
	}
	m := append([]byte{typ, 4, 0, 0, 0, 0, 2, 40}, quoted...)
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return IPv4(from, to, icmp, m)
}

// channels are frames that no policy covers, with hidden data.
var channels = []Attack{
	{"payload_behind_ARP", OfARP, func(s Scene) []byte {
		return append(arp(s, ARP(Request, s.Attacker.MAC, s.Attacker.IPv4, MAC{}, s.Victim.IPv4)), Burden...)
	}},
	{"payload_behind_ARP_to_all", OfARP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherARP, ARP(Request, s.Attacker.MAC, s.Attacker.IPv4, MAC{}, s.Victim.IPv4), Burden)
	}},
	{"ARP_filled_up_with_something", OfARP, func(s Scene) []byte {
		return append(arp(s, ARP(Reply, s.Attacker.MAC, s.Attacker.IPv4, s.Victim.MAC, s.Victim.IPv4)), Burden[:18]...)
	}},
	{"payload_behind_a_neighbour_solicitation", OfND, func(s Scene) []byte {
		return append(nd(s, 135, make([]byte, 4), s.Victim.IPv6.AsSlice(), MACOption(1, s.Attacker.MAC)), Burden...)
	}},
	{"payload_behind_a_neighbour_advertisement", OfND, func(s Scene) []byte {
		return append(nd(s, 136, ndOverride, s.Attacker.IPv6.AsSlice(), MACOption(2, s.Attacker.MAC)), Burden...)
	}},
	{"IGMP_report_in_a_frame_to_one", OfIP, func(s Scene) []byte { return Report4(s.Victim.MAC, s.Attacker.MAC, s.Attacker.IPv4) }},
	{"payload_behind_an_IGMP_report_in_a_frame_to_one", OfIP, func(s Scene) []byte {
		return Report4(s.Victim.MAC, s.Attacker.MAC, s.Attacker.IPv4, Burden)
	}},
	{"multicast_report_in_a_frame_to_one", OfND, func(s Scene) []byte {
		return Report6(s.Victim.MAC, s.Attacker.MAC, s.Attacker.MAC.LinkLocal())
	}},
	{"payload_behind_a_multicast_report_from_no_address_in_a_frame_to_one", OfND, func(s Scene) []byte {
		return Report6(s.Victim.MAC, s.Attacker.MAC, None6, Burden)
	}},
	{"detection_of_duplicates_in_a_frame_to_one", OfND, func(s Scene) []byte {
		to := Solicited(s.Attacker.IPv6)
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(None6, to, icmpv6,
			ICMPv6(None6, to, 135, make([]byte, 4), s.Attacker.IPv6.AsSlice())))
	}},
	{"DHCP_client_in_a_frame_to_one", OfDHCP, func(s Scene) []byte {
		return slices.Concat(s.Victim.MAC[:], Discover(s.Attacker.MAC)[6:])
	}},
	{"DHCP_client_to_one", OfDHCP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, UDP4(port(None4, 68), port(s.Victim.IPv4, 67), DHCPRequest(s.Attacker.MAC)))
	}},
	{"DHCP_client_that_says_too_much", OfDHCP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherIPv4, UDP4(port(None4, 68), port(All4, 67), DHCPRequest(s.Attacker.MAC), Burden))
	}},
	{"DHCP_offer_from_another_port", OfDHCP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, UDP4(port(s.Attacker.IPv4, 1000), port(s.Victim.IPv4, 68), make([]byte, 240)))
	}},
	{"DHCP_offer_to_all_from_another_port", OfDHCP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherIPv4, UDP4(port(s.Attacker.IPv4, 1000), port(All4, 68), make([]byte, 240)))
	}},
	{"DHCPv6_advertise_from_another_port", OfDHCP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6,
			UDP6(port(s.Attacker.MAC.LinkLocal(), 1000), port(s.Victim.IPv6, 546), []byte{2, 0, 0, 1}))
	}},
	{"UDP_from_no_address_to_all", OfIP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherIPv4, UDP4(port(None4, 9), port(All4, 9), Burden))
	}},
}

// quotes a connection of the victim with a third party.
func forged(s Scene, typ byte, quoted []byte) []byte {
	v, a := s.Victim.IPv4, s.Attacker.IPv4
	if quoted[0]>>4 == 6 {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, Unreachable(s.Attacker.IPv6, s.Victim.IPv6, typ, quoted))
	}
	return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, Unreachable(a, v, typ, quoted))
}

// forgedErrors are ICMP errors about connections that do not belong to the attacker.
var forgedErrors = []Attack{
	{"unreachable_about_anothers_connection", OfIP, func(s Scene) []byte { return forged(s, 3, talk(s.Victim.IPv4, s.Third.IPv4)) }},
	{"time_exceeded_about_a_connection_to_the_world", OfIP, func(s Scene) []byte {
		return forged(s, 11, talk(s.Victim.IPv4, netip.MustParseAddr("203.0.113.9")))
	}},
	{"redirect_of_IPv4", OfIP, func(s Scene) []byte { return forged(s, 5, talk(s.Victim.IPv4, s.Attacker.IPv4)) }},
	{"packet_too_big_about_anothers_connection", OfIP, func(s Scene) []byte { return forged(s, 2, talk(s.Victim.IPv6, s.Third.IPv6)) }},
	{"unreachable_about_the_gateway", OfIP, func(s Scene) []byte { return forged(s, 1, talk(s.Victim.IPv6, s.Gateway.IPv6)) }},
}
