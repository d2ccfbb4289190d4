package guard

// An attack is a frame that a container has no business to send. Without the guard
// it arrives at another container, with it it does not, and is counted.
type attack struct {
	name string
	kind func(*Violations) *uint64
	// from a to v, about c, a third container.
	frame func(a, v, c *box) []byte
}

func ofMAC(v *Violations) *uint64       { return &v.MAC }
func ofARP(v *Violations) *uint64       { return &v.ARP }
func ofIP(v *Violations) *uint64        { return &v.IP }
func ofND(v *Violations) *uint64        { return &v.ND }
func ofDHCP(v *Violations) *uint64      { return &v.DHCP }
func ofEthertype(v *Violations) *uint64 { return &v.Ethertype }

// nd is an ICMPv6 message from the sender's own address, in a frame to the victim.
func nd(a, v *box, message ...[]byte) []byte {
	return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 58, message...))
}

var attacks = []attack{
	{"IPv4_from_a_random_MAC", ofMAC, func(a, v, c *box) []byte {
		return ether(v.mac, nobody, 0x800, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2)))
	}},
	{"IPv6_from_a_random_MAC", ofMAC, func(a, v, c *box) []byte {
		return ether(v.mac, nobody, 0x86dd, ip6(a.ip6, v.ip6, 17, udpPacket(1, 2)))
	}},
	{"frame_from_another_containers_MAC", ofMAC, func(a, v, c *box) []byte {
		return ether(v.mac, c.mac, 0x800, ip4(c.ip4, v.ip4, 17, udpPacket(1, 2)))
	}},
	{"frame_from_the_bridges_MAC", ofMAC, func(a, v, c *box) []byte {
		return ether(v.mac, a.host.mac, 0x800, ip4(gateway4, v.ip4, 17, udpPacket(1, 2)))
	}},
	{"ARP_from_another_containers_MAC", ofMAC, func(a, v, c *box) []byte {
		return ether(broadcast, c.mac, 0x806, arpPacket(1, c.mac, c.ip4, MAC{}, c.ip4))
	}},

	{"gratuitous_ARP_for_the_gateway", ofARP, func(a, v, c *box) []byte {
		return ether(broadcast, a.mac, 0x806, arpPacket(1, a.mac, gateway4, MAC{}, gateway4))
	}},
	{"ARP_reply_for_another_container", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(2, a.mac, c.ip4, v.mac, v.ip4))
	}},
	{"ARP_request_from_another_container", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(1, a.mac, c.ip4, MAC{}, v.ip4))
	}},
	{"ARP_reply_with_anothers_MAC_inside", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(2, c.mac, a.ip4, v.mac, v.ip4))
	}},
	{"ARP_reply_about_another_container_altogether", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(2, nobody, c.ip4, v.mac, v.ip4))
	}},
	{"ARP_of_IEEE_802_hardware", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, with(arpPacket(2, a.mac, gateway4, v.mac, v.ip4), 0, 0, 6))
	}},
	{"ARP_for_another_protocol", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, with(arpPacket(2, a.mac, a.ip4, v.mac, v.ip4), 2, 0x86, 0xdd))
	}},
	{"ARP_with_odd_lengths", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, with(arpPacket(2, a.mac, a.ip4, v.mac, v.ip4), 4, 8, 4))
	}},
	{"ARP_reply_from_no_address", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(2, a.mac, none4, v.mac, v.ip4))
	}},
	{"ARP_probe_with_anothers_MAC", ofARP, func(a, v, c *box) []byte {
		return ether(broadcast, a.mac, 0x806, arpPacket(1, c.mac, none4, MAC{}, c.ip4))
	}},
	{"reverse_ARP", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(4, a.mac, a.ip4, v.mac, v.ip4))
	}},
	{"inverse_ARP", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(9, a.mac, a.ip4, v.mac, v.ip4))
	}},
	{"ARP_operation_0", ofARP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(0, a.mac, a.ip4, v.mac, v.ip4))
	}},

	{"IPv4_from_another_container", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(c.ip4, v.ip4, 17, udpPacket(1, 2)))
	}},
	{"IPv4_from_the_gateway", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(gateway4, v.ip4, 17, udpPacket(1, 2)))
	}},
	{"TCP_from_another_container", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(c.ip4, v.ip4, 6, make([]byte, 20)))
	}},
	{"IPv4_from_no_address", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(none4, v.ip4, 17, udpPacket(1, 2)))
	}},
	{"IPv4_broadcast_from_another_container", ofIP, func(a, v, c *box) []byte {
		return ether(broadcast, a.mac, 0x800, ip4(c.ip4, v.ip4, 17, udpPacket(1, 2)))
	}},
	{"IPv4_whose_header_is_too_short", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, sum4(with(ip4(a.ip4, v.ip4, 17, udpPacket(67, 68)), 0, 0x44)))
	}},
	{"IPv4_whose_header_is_longer_than_it", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, sum4(with(ip4(a.ip4, v.ip4, 17, udpPacket(67, 68)), 0, 0x4f)))
	}},
	{"IGMP_query", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 2, igmpPacket(0x11)))
	}},
	{"PIM_hello", ofIP, func(a, v, c *box) []byte {
		return ether(MAC{1, 0, 0x5e, 0, 0, 13}, a.mac, 0x800, ip4(a.ip4, netip4(224, 0, 0, 13), 103, []byte{0x20, 0, 0xdf, 0xff}))
	}},
	{"IGMP_query_in_a_later_fragment", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, fragment4(ip4(a.ip4, v.ip4, 2, igmpPacket(0x11)), 1, false))
	}},
	{"IGMP_report_in_a_fragment", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, fragment4(ip4(a.ip4, v.ip4, 2, igmpPacket(0x16)), 0, true))
	}},
	{"IPv6_from_another_container", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(c.ip6, v.ip6, 17, udpPacket(1, 2)))
	}},
	{"IPv6_from_the_gateway", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(gateway6, v.ip6, 6, make([]byte, 20)))
	}},
	{"IPv6_from_anothers_link_local_address", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(c.mac.LinkLocal(), v.ip6, 17, udpPacket(1, 2)))
	}},
	{"IPv6_from_no_address", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(none6, v.ip6, 17, udpPacket(1, 2)))
	}},
	{"ICMPv6_from_another_container", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(c.ip6, v.ip6, 58, icmp6Packet(128)))
	}},
	{"IPv6_that_is_longer_than_its_frame", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, with(ip6(a.ip6, v.ip6, 60, extension(17)), 4, 4, 0))
	}},
	{"IPv6_fragment_that_hides_its_protocol", ofIP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 44, fragment6(60, 1, false), routerAdvertisement()))
	}},

	{"router_advertisement", ofND, func(a, v, c *box) []byte {
		return ether(group6(allNodes), a.mac, 0x86dd, ip6(a.mac.LinkLocal(), allNodes, 58, routerAdvertisement()))
	}},
	{"router_advertisement_behind_hop_by_hop", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), v.ip6, 0, extension(58), routerAdvertisement()))
	}},
	{"router_advertisement_behind_destination_options", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), v.ip6, 60, extension(60), extension(58), routerAdvertisement()))
	}},
	{"router_advertisement_behind_a_routing_header", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), v.ip6, 43, extension(58), routerAdvertisement()))
	}},
	{"router_advertisement_in_an_atomic_fragment", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), v.ip6, 44, fragment6(58, 0, false), routerAdvertisement()))
	}},
	{"router_advertisement_in_a_first_fragment", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), v.ip6, 44, fragment6(58, 0, true), routerAdvertisement()))
	}},
	{"first_fragment_that_hides_the_type", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 44, fragment6(60, 0, true), lastExtension(58)))
	}},
	{"ICMPv6_that_is_too_short_for_a_type", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 60, lastExtension(58)))
	}},
	{"redirect", ofND, func(a, v, c *box) []byte { return nd(a, v, icmp6Packet(137, make([]byte, 32))) }},
	{"multicast_query", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), allNodes, 0, routerAlert(58), icmp6Packet(130, make([]byte, 16))))
	}},
	{"multicast_query_without_router_alert", ofND, func(a, v, c *box) []byte {
		return nd(a, v, icmp6Packet(130, make([]byte, 16)))
	}},
	{"multicast_router_advertisement", ofND, func(a, v, c *box) []byte { return nd(a, v, icmp6Packet(151)) }},
	{"neighbour_advertisement_for_the_gateway", ofND, func(a, v, c *box) []byte {
		return nd(a, v, icmp6Packet(136, gateway6.AsSlice(), ndOptionOf(2, a.mac)))
	}},
	{"neighbour_advertisement_for_another_container", ofND, func(a, v, c *box) []byte {
		return nd(a, v, icmp6Packet(136, c.ip6.AsSlice()))
	}},
	{"neighbour_advertisement_with_anothers_MAC", ofND, func(a, v, c *box) []byte {
		return nd(a, v, icmp6Packet(136, a.ip6.AsSlice(), ndOptionOf(2, c.mac)))
	}},
	{"neighbour_advertisement_with_a_second_option", ofND, func(a, v, c *box) []byte {
		return nd(a, v, icmp6Packet(136, a.ip6.AsSlice(), ndOptionOf(2, a.mac), ndOptionOf(2, c.mac)))
	}},
	{"neighbour_advertisement_behind_hop_by_hop", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 0, extension(58), icmp6Packet(136, gateway6.AsSlice(), ndOptionOf(2, a.mac))))
	}},
	{"neighbour_advertisement_from_no_address", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(none6, v.ip6, 58, icmp6Packet(136, a.ip6.AsSlice(), ndOptionOf(2, a.mac))))
	}},
	{"neighbour_solicitation_with_anothers_MAC", ofND, func(a, v, c *box) []byte {
		return nd(a, v, icmp6Packet(135, v.ip6.AsSlice(), ndOptionOf(1, c.mac)))
	}},
	{"neighbour_solicitation_with_a_target_option", ofND, func(a, v, c *box) []byte {
		return nd(a, v, icmp6Packet(135, v.ip6.AsSlice(), ndOptionOf(2, a.mac)))
	}},
	{"neighbour_solicitation_that_was_routed", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, with(ip6(a.ip6, v.ip6, 58, icmp6Packet(135, v.ip6.AsSlice())), 7, 64))
	}},
	{"detection_of_duplicates_for_anothers_address", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(none6, solicited(v.ip6), 58, icmp6Packet(135, v.ip6.AsSlice())))
	}},
	{"detection_of_duplicates_with_a_MAC", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(none6, solicited(a.ip6), 58, icmp6Packet(135, a.ip6.AsSlice(), ndOptionOf(1, a.mac))))
	}},
	{"router_solicitation_with_anothers_MAC", ofND, func(a, v, c *box) []byte {
		return nd(a, v, icmp6Packet(133, ndOptionOf(1, c.mac)))
	}},
	{"multicast_query_from_no_address", ofND, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(none6, allNodes, 0, routerAlert(58), icmp6Packet(130, make([]byte, 16))))
	}},

	{"DHCP_offer", ofDHCP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 17, udpPacket(67, 68, make([]byte, 240))))
	}},
	{"DHCP_offer_by_broadcast", ofDHCP, func(a, v, c *box) []byte {
		return ether(broadcast, a.mac, 0x800, ip4(a.ip4, netip4(255, 255, 255, 255), 17, udpPacket(67, 68, make([]byte, 240))))
	}},
	{"DHCP_offer_in_a_first_fragment", ofDHCP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x800, fragment4(ip4(a.ip4, v.ip4, 17, udpPacket(67, 68)), 0, true))
	}},
	{"DHCPv6_advertise", ofDHCP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), v.ip6, 17, udpPacket(547, 546, []byte{2, 0, 0, 1})))
	}},
	{"DHCPv6_advertise_behind_destination_options", ofDHCP, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), v.ip6, 60, extension(17), udpPacket(547, 546, []byte{2, 0, 0, 1})))
	}},
	{"DHCP_request_for_another_container", ofDHCP, func(a, v, c *box) []byte {
		return ether(broadcast, a.mac, 0x800, ip4(none4, netip4(255, 255, 255, 255), 17, udpPacket(68, 67, dhcpRequest(c.mac))))
	}},

	{"VLAN_0", ofEthertype, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x8100, []byte{0, 0, 8, 0}, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2)))
	}},
	{"VLAN_0_with_priority", ofEthertype, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x8100, []byte{0xe0, 0, 8, 6}, arpPacket(2, a.mac, gateway4, v.mac, v.ip4))
	}},
	{"VLAN_5", ofEthertype, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x8100, []byte{0, 5, 8, 0}, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2)))
	}},
	{"two_VLAN_tags", ofEthertype, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x8100, []byte{0, 0, 0x81, 0, 0, 0, 8, 0}, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2)))
	}},
	{"service_VLAN_tag", ofEthertype, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x88a8, []byte{0, 0, 8, 0}, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2)))
	}},
	{"service_and_customer_VLAN_tag", ofEthertype, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 0x88a8, []byte{0, 0, 0x81, 0, 0, 0, 0x86, 0xdd}, ip6(a.ip6, v.ip6, 58, routerAdvertisement()))
	}},
	{"ARP_in_SNAP", ofEthertype, func(a, v, c *box) []byte {
		arp := arpPacket(2, a.mac, gateway4, v.mac, v.ip4)
		return ether(v.mac, a.mac, uint16(8+len(arp)), []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 6}, arp)
	}},
	{"spanning_tree_in_LLC", ofEthertype, func(a, v, c *box) []byte {
		return ether(MAC{1, 0x80, 0xc2}, a.mac, 38, []byte{0x42, 0x42, 3}, make([]byte, 35))
	}},
	{"raw_802_3", ofEthertype, func(a, v, c *box) []byte {
		return ether(v.mac, a.mac, 40, []byte{0xff, 0xff}, make([]byte, 38))
	}},
}

func init() {
	for _, e := range []struct {
		name string
		typ  uint16
	}{
		{"LLDP", 0x88cc}, {"PPPoE", 0x8863}, {"MPLS", 0x8847}, {"EAPOL", 0x888e}, {"MACsec", 0x88e5}, {"ATA", 0x88a2},
		{"loopback", 0x9000}, {"reverse_ARP", 0x8035}, {"TIPC", 0x88ca}, {"batman", 0x4305}, {"unknown", 0x0601},
	} {
		attacks = append(attacks, attack{e.name + "_ethertype", ofEthertype, func(a, v, c *box) []byte {
			return ether(v.mac, a.mac, e.typ, make([]byte, 46))
		}})
	}
}
