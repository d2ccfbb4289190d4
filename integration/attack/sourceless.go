package attack

import "net/netip"

// servers are a DHCP server's messages in unusual forms.
var servers = []Attack{
	{"DHCP_offer_to_all_in_a_frame_to_one", OfDHCP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, IPv4(s.Attacker.IPv4, All4, 17, Datagram(1000, 68, make([]byte, 240))))
	}},
	{"DHCP_server_to_a_relay_that_is_a_neighbour", OfDHCP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, IPv4(s.Attacker.IPv4, s.Victim.IPv4, 17, Datagram(67, 67, make([]byte, 240))))
	}},
	{"DHCP_server_to_a_relay_behind_a_neighbour", OfDHCP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, IPv4(s.Attacker.IPv4, netip.MustParseAddr("192.0.2.1"), 17, Datagram(67, 67, make([]byte, 240))))
	}},
	{"DHCPv6_advertise_from_another_port_behind_options", OfDHCP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.MAC.LinkLocal(), s.Victim.IPv6, 60, Extension(17), Datagram(1000, 546, []byte{2, 0, 0, 1})))
	}},
}

// sourceless are packets without a source address. Only DHCP clients and duplicate address
// detection may send such packets.
var sourceless = []Attack{
	{"DHCP_client_to_one_in_a_frame_to_all", OfDHCP, discover(Broadcast, netip.Addr{}, 1, 0)},
	{"DHCP_client_to_all_of_the_network", OfDHCP, func(s Scene) []byte {
		b := s.Attacker.IPv4.As4()
		b[3] = 255
		return discover(Broadcast, netip.AddrFrom4(b), 1, 0)(s)
	}},
	{"DHCP_client_in_a_frame_to_a_group", OfDHCP, discover(Group4(MDNS4), All4, 1, 0)},
	{"DHCP_client_that_answers", OfDHCP, discover(Broadcast, All4, 2, 0)},
	{"DHCP_client_that_says_a_byte_too_much", OfDHCP, discover(Broadcast, All4, 1, 576-28-240+1)},
	{"payload_behind_a_DHCP_client", OfDHCP, discover(Broadcast, All4, 1, 0, Burden)},
	{"DHCP_client_in_a_first_fragment", OfIP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherIPv4, Fragment4(IPv4(None4, All4, 17, Datagram(68, 67, DHCPRequest(s.Attacker.MAC))), 0, true))
	}},
	{"later_fragment_from_no_address", OfIP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherIPv4, Fragment4(IPv4(None4, All4, 17, Burden), 1, false))
	}},
	{"UDP_from_no_address_to_all", OfIP, fromNowhere(Broadcast, All4, 17, Datagram(68, 68, Burden))},
	{"UDP_from_no_address_to_a_group", OfIP, fromNowhere(Group4(MDNS4), MDNS4, 17, Datagram(5353, 5353, Burden))},
	{"UDP_from_no_address_to_none", OfDHCP, fromNowhere(Broadcast, None4, 17, Datagram(68, 67, Burden))},
	{"TCP_from_no_address", OfIP, fromNowhere(Broadcast, All4, 6, append([]byte{0, 68, 0, 67}, make([]byte, 16)...))},
	{"echo_from_no_address", OfIP, fromNowhere(Broadcast, All4, 1, []byte{8, 0, 0, 0, 0, 1, 0, 1})},
	{"another_protocol_from_no_address", OfIP, fromNowhere(Broadcast, All4, 47, Burden)},
	{"UDP_from_no_address_of_IPv6_to_a_group", OfIP, func(s Scene) []byte {
		return Ether(Group(AllNodes), s.Attacker.MAC, EtherIPv6, IPv6(None6, AllNodes, 17, Datagram(546, 547, Burden)))
	}},
	{"echo_from_no_address_of_IPv6", OfND, func(s Scene) []byte {
		return Ether(Group(AllNodes), s.Attacker.MAC, EtherIPv6, IPv6(None6, AllNodes, 58, Message6(128)))
	}},
	{"detection_of_duplicates_to_all", OfND, func(s Scene) []byte {
		return Ether(Group(AllNodes), s.Attacker.MAC, EtherIPv6, IPv6(None6, AllNodes, 58, Message6(135, s.Attacker.IPv6.AsSlice())))
	}},
	{"detection_of_duplicates_to_one", OfND, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(None6, s.Victim.IPv6, 58, Message6(135, s.Attacker.IPv6.AsSlice())))
	}},
	{"router_solicitation_from_no_address_to_one", OfND, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(None6, s.Victim.IPv6, 58, Message6(133)))
	}},
	{"router_solicitation_from_no_address_in_a_frame_to_one", OfND, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(None6, AllRouters, 58, Message6(133)))
	}},
}

// discover is a DHCP client's question, in a frame to a MAC, to an address. The default
// for both is the victim's.
func discover(to MAC, dst netip.Addr, op byte, extra int, behind ...[]byte) func(s Scene) []byte {
	return func(s Scene) []byte {
		mac, address := to, dst
		if mac == (MAC{}) {
			mac = s.Victim.MAC
		}
		if !address.IsValid() {
			address = s.Victim.IPv4
		}
		return DiscoverTo(mac, s.Attacker.MAC, address, op, extra, behind...)
	}
}

// fromNowhere is a packet without a source address.
func fromNowhere(to MAC, dst netip.Addr, protocol byte, body []byte) func(s Scene) []byte {
	return func(s Scene) []byte { return Ether(to, s.Attacker.MAC, EtherIPv4, IPv4(None4, dst, protocol, body)) }
}
