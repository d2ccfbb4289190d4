package attack

import "net/netip"

// strayReports are group reports to one receiver, or with hidden data.
var strayReports = []Attack{
	{"IGMP_report_to_one", OfIP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, IPv4(s.Attacker.IPv4, s.Victim.IPv4, 2, IGMP(0x16)))
	}},
	{"IGMP_report_in_a_frame_to_all", OfIP, igmpTo(Broadcast, netip.Addr{}, ReportGroup4, Records4(1))},
	{"IGMP_report_to_one_in_a_frame_to_a_group", OfIP, func(s Scene) []byte {
		return igmpTo(Group4(ReportGroup4), s.Attacker.IPv4, s.Victim.IPv4, Records4(1))(s)
	}},
	{"payload_behind_an_IGMP_report", OfIP, igmpTo(Group4(ReportGroup4), netip.Addr{}, ReportGroup4, Records4(2), Burden)},
	{"a_byte_behind_an_IGMP_report", OfIP, igmpTo(Group4(ReportGroup4), netip.Addr{}, ReportGroup4, Records4(4), []byte{0})},
	{"IGMP_report_of_an_odd_length", OfIP, igmpTo(Group4(ReportGroup4), netip.Addr{}, ReportGroup4, Records4(4, 'o', 'd', 'd'))},
	{"IGMP_report_from_no_address", OfIP, igmpTo(Group4(ReportGroup4), None4, ReportGroup4, Records4(1))},
	{"multicast_report_to_one_in_a_frame_to_a_group", OfND, func(s Scene) []byte {
		return Ether(Group(ReportGroup6), s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.MAC.LinkLocal(), s.Victim.IPv6, 0, RouterAlert6(58), Records6(1)))
	}},
	{"multicast_report_to_one", OfND, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.IPv6, s.Victim.IPv6, 0, RouterAlert6(58), Records6(1)))
	}},
	{"older_multicast_report_in_a_frame_to_one", OfND, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.IPv6, ReportGroup6, 0, RouterAlert6(58), Message6(131, ReportGroup6.AsSlice())))
	}},
	{"multicast_report_from_no_address_in_a_frame_to_one", OfND, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(None6, ReportGroup6, 0, RouterAlert6(58), Records6(1), Burden))
	}},
	{"multicast_report_from_no_address_in_a_frame_to_all", OfND, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherIPv6, IPv6(None6, ReportGroup6, 0, RouterAlert6(58), Records6(1)))
	}},
	{"multicast_report_from_no_address_to_one", OfND, func(s Scene) []byte {
		return Ether(Group(ReportGroup6), s.Attacker.MAC, EtherIPv6, IPv6(None6, s.Victim.IPv6, 0, RouterAlert6(58), Records6(1)))
	}},
	{"payload_behind_a_multicast_report", OfND, func(s Scene) []byte {
		return Ether(Group(ReportGroup6), s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.IPv6, ReportGroup6, 0, RouterAlert6(58), Records6(1)), Burden)
	}},
	{"payload_behind_a_multicast_report_from_no_address", OfND, func(s Scene) []byte {
		return Ether(Group(ReportGroup6), s.Attacker.MAC, EtherIPv6, IPv6(None6, ReportGroup6, 0, RouterAlert6(58), Records6(1)), Burden)
	}},
	{"multicast_report_without_router_alert", OfND, func(s Scene) []byte {
		return Ether(Group(ReportGroup6), s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.IPv6, ReportGroup6, 58, Records6(1)))
	}},
	{"multicast_report_behind_destination_options", OfND, func(s Scene) []byte {
		return Ether(Group(ReportGroup6), s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.IPv6, ReportGroup6, 60, Extension(58), Records6(1)))
	}},
	{"multicast_report_in_a_first_fragment", OfND, func(s Scene) []byte {
		return Ether(Group(ReportGroup6), s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.IPv6, ReportGroup6, 0, RouterAlert6(44), Fragment6(58, 0, true), Records6(1)))
	}},
}

// igmpTo is a message of IGMP with the option that routers look for.
func igmpTo(mac MAC, from, to netip.Addr, message []byte, behind ...[]byte) func(s Scene) []byte {
	return func(s Scene) []byte {
		sender := from
		if !sender.IsValid() {
			sender = s.Attacker.IPv4
		}
		return IGMPTo(mac, s.Attacker.MAC, sender, to, message, behind...)
	}
}
