package attack

// lengths are messages of ARP and neighbour discovery with bytes behind their end, and
// messages for all that are sent to one neighbour.
var lengths = []Attack{
	{"a_byte_behind_ARP", OfARP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherARP, ARP(1, s.Attacker.MAC, s.Attacker.IPv4, MAC{}, s.Victim.IPv4), []byte{0})
	}},
	{"ARP_request_filled_up_with_something", OfARP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherARP, ARP(1, s.Attacker.MAC, s.Attacker.IPv4, MAC{}, s.Victim.IPv4), make([]byte, 17), []byte{1})
	}},
	{"ARP_filled_up_too_far", OfARP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherARP, ARP(1, s.Attacker.MAC, s.Attacker.IPv4, MAC{}, s.Victim.IPv4), make([]byte, 19))
	}},
	{"payload_behind_an_ARP_probe", OfARP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherARP, ARP(1, s.Attacker.MAC, None4, MAC{}, s.Attacker.IPv4), Burden)
	}},
	{"ARP_probe_to_one", OfARP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherARP, ARP(1, s.Attacker.MAC, None4, MAC{}, s.Victim.IPv4))
	}},
	{"a_byte_behind_a_bare_neighbour_solicitation", OfND, func(s Scene) []byte {
		return append(ownND(s, Message6(135, s.Victim.IPv6.AsSlice())), 0)
	}},
	{"payload_behind_a_router_solicitation", OfND, func(s Scene) []byte {
		return append(ownND(s, Message6(133, MACOption(1, s.Attacker.MAC))), Burden...)
	}},
	{"payload_behind_the_detection_of_duplicates", OfND, func(s Scene) []byte {
		to := Solicited(s.Attacker.IPv6)
		return append(Ether(Group(to), s.Attacker.MAC, EtherIPv6, IPv6(None6, to, 58, Message6(135, s.Attacker.IPv6.AsSlice()))), Burden...)
	}},
}
