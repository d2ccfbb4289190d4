package attack

import (
	"net/netip"
	"slices"
)

// Kind is a kind of violation, as `netguard status -o json` calls it.
type Kind string

// The kinds.
const (
	OfMAC       Kind = "mac"
	OfARP       Kind = "arp"
	OfIP        Kind = "ip"
	OfND        Kind = "nd"
	OfDHCP      Kind = "dhcp"
	OfEthertype Kind = "ethertype"
	OfStorm     Kind = "storm"
)

// Party is a host on a network.
type Party struct {
	MAC  MAC
	IPv4 netip.Addr
	IPv6 netip.Addr
}

// Scene names the parties: an attacker, the victim that receives the frames, the
// party that the attacker imitates, and the bridge.
type Scene struct {
	Attacker, Victim, Third, Gateway Party
}

// Attack is a frame that reaches the victim on an unguarded bridge, and must not
// reach it on a guarded one.
type Attack struct {
	Name  string
	Kind  Kind
	Frame func(s Scene) []byte
}

func port(a netip.Addr, p uint16) netip.AddrPort { return netip.AddrPortFrom(a, p) }

// talk is a datagram with irrelevant content.
func talk(from, to netip.Addr) []byte {
	if from.Is4() {
		return UDP4(port(from, 40000), port(to, 40001))
	}
	return UDP6(port(from, 40000), port(to, 40001))
}

// nd is a message of neighbour discovery from the attacker's own address.
func nd(s Scene, typ byte, rest ...[]byte) []byte {
	from, to := s.Attacker.IPv6, s.Victim.IPv6
	return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(from, to, icmpv6, ICMPv6(from, to, typ, rest...)))
}

// flags of a neighbour advertisement: solicited, override.
var ndOverride = []byte{0x60, 0, 0, 0}

// RouterAdvertisement says "I am your router".
func RouterAdvertisement(from, to netip.Addr) []byte {
	// Hop limit, flags, a lifetime of half an hour, no timers.
	return ICMPv6(from, to, 134, []byte{64, 0, 7, 8}, make([]byte, 8))
}

// advertise is a router advertisement behind extension headers.
func advertise(s Scene, next byte, headers ...[]byte) []byte {
	from, to := s.Attacker.MAC.LinkLocal(), s.Victim.IPv6
	return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6,
		IPv6(from, to, next, append(headers, RouterAdvertisement(from, to))...))
}

// arp is a message from the attacker's MAC to the victim.
func arp(s Scene, message []byte) []byte {
	return Ether(s.Victim.MAC, s.Attacker.MAC, EtherARP, message)
}

// from is a packet with another's address in a frame of the attacker.
func from(s Scene, a netip.Addr) []byte {
	if a.Is4() {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, talk(a, s.Victim.IPv4))
	}
	return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, talk(a, s.Victim.IPv6))
}

// own is a correct frame, to be wrapped into something else.
func own(s Scene) []byte { return from(s, s.Attacker.IPv4) }

// All are the attacks that consist of one frame.
var All = slices.Concat(macs, arps, addresses, discovery, dhcp, encapsulations, channels, forgedErrors,
	malformed, lengths, strayReports, servers, sourceless, quotations, errorsOfAllTypes())

var macs = []Attack{
	{"IPv4_from_a_random_MAC", OfMAC, func(s Scene) []byte {
		return Ether(s.Victim.MAC, Nobody, EtherIPv4, talk(s.Attacker.IPv4, s.Victim.IPv4))
	}},
	{"IPv6_from_a_random_MAC", OfMAC, func(s Scene) []byte {
		return Ether(s.Victim.MAC, Nobody, EtherIPv6, talk(s.Attacker.IPv6, s.Victim.IPv6))
	}},
	{"all_of_a_neighbours_identity", OfMAC, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Third.MAC, EtherIPv4, talk(s.Third.IPv4, s.Victim.IPv4))
	}},
	{"all_of_the_gateways_identity", OfMAC, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Gateway.MAC, EtherIPv4, talk(s.Gateway.IPv4, s.Victim.IPv4))
	}},
	{"ARP_from_a_neighbours_MAC", OfMAC, func(s Scene) []byte {
		return Ether(Broadcast, s.Third.MAC, EtherARP, ARP(Request, s.Third.MAC, s.Third.IPv4, MAC{}, s.Third.IPv4))
	}},
	{"ARP_from_the_gateways_MAC", OfMAC, func(s Scene) []byte {
		return Ether(Broadcast, s.Gateway.MAC, EtherARP, ARP(Reply, s.Gateway.MAC, s.Gateway.IPv4, MAC{}, s.Gateway.IPv4))
	}},
}

var arps = []Attack{
	{"gratuitous_ARP_for_the_gateway", OfARP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherARP, ARP(Reply, s.Attacker.MAC, s.Gateway.IPv4, Broadcast, s.Gateway.IPv4))
	}},
	{"gratuitous_ARP_request_for_a_neighbour", OfARP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherARP, ARP(Request, s.Attacker.MAC, s.Third.IPv4, MAC{}, s.Third.IPv4))
	}},
	{"ARP_reply_for_a_neighbour", OfARP, func(s Scene) []byte {
		return arp(s, ARP(Reply, s.Attacker.MAC, s.Third.IPv4, s.Victim.MAC, s.Victim.IPv4))
	}},
	{"ARP_request_from_a_neighbour", OfARP, func(s Scene) []byte {
		return arp(s, ARP(Request, s.Attacker.MAC, s.Third.IPv4, MAC{}, s.Victim.IPv4))
	}},
	{"ARP_reply_with_a_neighbours_MAC_inside", OfARP, func(s Scene) []byte {
		return arp(s, ARP(Reply, s.Third.MAC, s.Attacker.IPv4, s.Victim.MAC, s.Victim.IPv4))
	}},
	{"ARP_reply_with_a_foreign_MAC_inside", OfARP, func(s Scene) []byte {
		return arp(s, ARP(Reply, Nobody, s.Gateway.IPv4, s.Victim.MAC, s.Victim.IPv4))
	}},
	{"ARP_of_IEEE_802_hardware", OfARP, func(s Scene) []byte {
		return arp(s, With(ARP(Reply, s.Attacker.MAC, s.Gateway.IPv4, s.Victim.MAC, s.Victim.IPv4), 0, 0, 6))
	}},
	{"ARP_of_odd_hardware", OfARP, func(s Scene) []byte {
		return arp(s, With(ARP(Reply, s.Attacker.MAC, s.Attacker.IPv4, s.Victim.MAC, s.Victim.IPv4), 0, 0xff, 0xfe))
	}},
	{"ARP_for_another_protocol", OfARP, func(s Scene) []byte {
		return arp(s, With(ARP(Reply, s.Attacker.MAC, s.Attacker.IPv4, s.Victim.MAC, s.Victim.IPv4), 2, 0x86, 0xdd))
	}},
	{"ARP_with_odd_lengths", OfARP, func(s Scene) []byte {
		return arp(s, With(ARP(Reply, s.Attacker.MAC, s.Attacker.IPv4, s.Victim.MAC, s.Victim.IPv4), 4, 8, 4))
	}},
	{"ARP_reply_from_no_address", OfARP, func(s Scene) []byte {
		return arp(s, ARP(Reply, s.Attacker.MAC, None4, s.Victim.MAC, s.Victim.IPv4))
	}},
	{"ARP_probe_with_a_neighbours_MAC", OfARP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherARP, ARP(Request, s.Third.MAC, None4, MAC{}, s.Third.IPv4))
	}},
	{"reverse_ARP_operation", OfARP, func(s Scene) []byte {
		return arp(s, ARP(4, s.Attacker.MAC, s.Attacker.IPv4, s.Victim.MAC, s.Victim.IPv4))
	}},
}

var addresses = []Attack{
	{"IPv4_from_a_neighbours_address", OfIP, func(s Scene) []byte { return from(s, s.Third.IPv4) }},
	{"IPv4_from_the_gateways_address", OfIP, func(s Scene) []byte { return from(s, s.Gateway.IPv4) }},
	{"IPv4_from_a_stranger", OfIP, func(s Scene) []byte { return from(s, netip.MustParseAddr("203.0.113.9")) }},
	{"IPv4_from_no_address", OfIP, func(s Scene) []byte { return from(s, None4) }},
	{"IPv4_broadcast_from_a_neighbours_address", OfIP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherIPv4, talk(s.Third.IPv4, All4))
	}},
	{"TCP_from_a_neighbours_address", OfIP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, IPv4(s.Third.IPv4, s.Victim.IPv4, tcp, make([]byte, 20)))
	}},
	{"IGMP_query", OfIP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, IPv4(s.Attacker.IPv4, s.Victim.IPv4, igmp, []byte{0x11, 0, 0, 0, 224, 0, 0, 9}))
	}},
	{"IPv6_from_a_neighbours_address", OfIP, func(s Scene) []byte { return from(s, s.Third.IPv6) }},
	{"IPv6_from_the_gateways_address", OfIP, func(s Scene) []byte { return from(s, s.Gateway.IPv6) }},
	{"IPv6_from_a_stranger", OfIP, func(s Scene) []byte { return from(s, netip.MustParseAddr("2001:db8::9")) }},
	{"IPv6_from_a_neighbours_link-local_address", OfIP, func(s Scene) []byte { return from(s, s.Third.MAC.LinkLocal()) }},
	{"IPv6_from_no_address", OfIP, func(s Scene) []byte { return from(s, None6) }},
}

var discovery = []Attack{
	{"router_advertisement", OfND, func(s Scene) []byte { return advertise(s, icmpv6) }},
	{"router_advertisement_to_all", OfND, func(s Scene) []byte {
		from := s.Attacker.MAC.LinkLocal()
		return Ether(Group(AllNodes), s.Attacker.MAC, EtherIPv6, IPv6(from, AllNodes, icmpv6, RouterAdvertisement(from, AllNodes)))
	}},
	{"router_advertisement_behind_hop_by_hop", OfND, func(s Scene) []byte { return advertise(s, 0, Extension(icmpv6)) }},
	{"router_advertisement_behind_destination_options", OfND, func(s Scene) []byte {
		return advertise(s, 60, Extension(60), Extension(icmpv6))
	}},
	{"router_advertisement_behind_a_routing_header", OfND, func(s Scene) []byte { return advertise(s, 43, Extension(icmpv6)) }},
	{"router_advertisement_in_an_atomic_fragment", OfND, func(s Scene) []byte { return advertise(s, 44, Fragment6(icmpv6, 0, false)) }},
	{"router_advertisement_in_a_first_fragment", OfND, func(s Scene) []byte { return advertise(s, 44, Fragment6(icmpv6, 0, true)) }},
	{"redirect", OfND, func(s Scene) []byte {
		return nd(s, 137, make([]byte, 4), s.Attacker.MAC.LinkLocal().AsSlice(), s.Third.IPv6.AsSlice())
	}},
	{"multicast_query", OfND, func(s Scene) []byte { return nd(s, 130, make([]byte, 20)) }},
	{"neighbour_advertisement_for_the_gateway", OfND, func(s Scene) []byte {
		return nd(s, 136, ndOverride, s.Gateway.IPv6.AsSlice(), MACOption(2, s.Attacker.MAC))
	}},
	{"neighbour_advertisement_for_a_neighbour", OfND, func(s Scene) []byte {
		return nd(s, 136, ndOverride, s.Third.IPv6.AsSlice(), MACOption(2, s.Attacker.MAC))
	}},
	{"neighbour_advertisement_with_a_neighbours_MAC", OfND, func(s Scene) []byte {
		return nd(s, 136, ndOverride, s.Attacker.IPv6.AsSlice(), MACOption(2, s.Third.MAC))
	}},
	{"neighbour_advertisement_behind_hop_by_hop", OfND, func(s Scene) []byte {
		from, to := s.Attacker.IPv6, s.Victim.IPv6
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(from, to, 0, Extension(icmpv6),
			ICMPv6(from, to, 136, ndOverride, s.Gateway.IPv6.AsSlice(), MACOption(2, s.Attacker.MAC))))
	}},
	{"neighbour_solicitation_with_a_neighbours_MAC", OfND, func(s Scene) []byte {
		return nd(s, 135, make([]byte, 4), s.Victim.IPv6.AsSlice(), MACOption(1, s.Third.MAC))
	}},
	{"detection_of_duplicates_for_a_neighbours_address", OfND, func(s Scene) []byte {
		to := Solicited(s.Victim.IPv6)
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(None6, to, icmpv6,
			ICMPv6(None6, to, 135, make([]byte, 4), s.Third.IPv6.AsSlice())))
	}},
	{"router_solicitation_with_a_neighbours_MAC", OfND, func(s Scene) []byte {
		return nd(s, 133, make([]byte, 4), MACOption(1, s.Third.MAC))
	}},
}

var dhcp = []Attack{
	{"DHCP_offer", OfDHCP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, UDP4(port(s.Attacker.IPv4, 67), port(s.Victim.IPv4, 68), make([]byte, 240)))
	}},
	{"DHCP_offer_to_all", OfDHCP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherIPv4, UDP4(port(s.Attacker.IPv4, 67), port(All4, 68), make([]byte, 240)))
	}},
	{"DHCPv6_advertise", OfDHCP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6,
			UDP6(port(s.Attacker.MAC.LinkLocal(), 547), port(s.Victim.IPv6, 546), []byte{2, 0, 0, 1}))
	}},
	{"DHCP_request_for_a_neighbour", OfDHCP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherIPv4, UDP4(port(None4, 68), port(All4, 67), DHCPRequest(s.Third.MAC)))
	}},
}

// DHCPRequest is the beginning of a message of a client.
func DHCPRequest(client MAC) []byte {
	p := With(make([]byte, 240), 0, 1, 1, 6, 0)
	return With(p, 28, client[:]...)
}

var encapsulations = []Attack{
	{"VLAN_0", OfEthertype, func(s Scene) []byte { return Tagged(own(s), EtherVLAN, 0) }},
	{"VLAN_0_with_a_priority", OfEthertype, func(s Scene) []byte { return Tagged(own(s), EtherVLAN, 0xe000) }},
	{"VLAN_5", OfEthertype, func(s Scene) []byte { return Tagged(own(s), EtherVLAN, 5) }},
	{"two_VLAN_tags", OfEthertype, func(s Scene) []byte { return Tagged(Tagged(own(s), EtherVLAN, 0), EtherVLAN, 0) }},
	{"service_VLAN_tag", OfEthertype, func(s Scene) []byte { return Tagged(own(s), EtherQinQ, 0) }},
	{"service_and_customer_VLAN_tag", OfEthertype, func(s Scene) []byte { return Tagged(Tagged(own(s), EtherVLAN, 0), EtherQinQ, 0) }},
	{"ARP_in_VLAN_0", OfEthertype, func(s Scene) []byte {
		return Tagged(arp(s, ARP(Reply, s.Attacker.MAC, s.Gateway.IPv4, s.Victim.MAC, s.Victim.IPv4)), EtherVLAN, 0)
	}},
	{"router_advertisement_in_VLAN_0", OfEthertype, func(s Scene) []byte { return Tagged(advertise(s, icmpv6), EtherVLAN, 0) }},
	{"ARP_in_SNAP", OfEthertype, func(s Scene) []byte {
		message := ARP(Reply, s.Attacker.MAC, s.Gateway.IPv4, s.Victim.MAC, s.Victim.IPv4)
		return Ether(s.Victim.MAC, s.Attacker.MAC, uint16(8+len(message)), []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 6}, message)
	}},
	{"BPDU", OfEthertype, func(s Scene) []byte {
		return Ether(MAC{1, 0x80, 0xc2}, s.Attacker.MAC, 38, []byte{0x42, 0x42, 3}, make([]byte, 35))
	}},
	{"raw_802.3", OfEthertype, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, 40, []byte{0xff, 0xff}, make([]byte, 38))
	}},
	plain("LLDP", 0x88cc), plain("PPPoE", 0x8863), plain("MPLS", 0x8847), plain("EAPOL", 0x888e), plain("AoE", 0x88a2),
	plain("reverse_ARP", 0x8035), plain("TIPC", 0x88ca), plain("batman", 0x4305), plain("unknown", 0x0601),
}

func plain(name string, typ uint16) Attack {
	return Attack{name + "_ethertype", OfEthertype, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, typ, make([]byte, 46))
	}}
}
