package attack

import (
	"net/netip"
	"slices"
)

// world is a host outside.
var world = netip.MustParseAddr("203.0.113.9")

// quotations are ICMP errors whose quote is not about the attacker, or cannot be read.
var quotations = []Attack{
	{"error_about_what_it_sent_itself", OfIP, func(s Scene) []byte { return errorTo4(s, Quote(3, flow(s.Attacker.IPv4, s.Victim.IPv4))) }},
	{"error_about_nothing", OfIP, func(s Scene) []byte { return errorTo4(s, Quote(3, nil)) }},
	{"error_whose_quote_is_too_short", OfIP, func(s Scene) []byte { return errorTo4(s, Quote(3, flow(s.Victim.IPv4, s.Attacker.IPv4)[:19])) }},
	{"error_in_a_first_fragment", OfIP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, Fragment4(IPv4(s.Attacker.IPv4, s.Victim.IPv4, 1, Quote(3, flow(s.Victim.IPv4, s.Third.IPv4))), 0, true))
	}},
	{"error_in_a_first_fragment_without_its_quote", OfIP, func(s Scene) []byte {
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, Fragment4(IPv4(s.Attacker.IPv4, s.Victim.IPv4, 1, Quote(3, nil)), 0, true))
	}},
	{"error_behind_options", OfIP, func(s Scene) []byte {
		// Where the quote's destination would be without them, there is its own.
		q := With(Options(flow(s.Victim.IPv4, s.Third.IPv4), 1, 1, 1, 1), 12, s.Attacker.IPv4.AsSlice()...)
		return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, Options(IPv4(s.Attacker.IPv4, s.Victim.IPv4, 1, Quote(3, q)), 1, 1, 1, 1))
	}},
	{"error_about_a_packet_with_options", OfIP, func(s Scene) []byte {
		return errorTo4(s, Quote(3, Options(flow(s.Victim.IPv4, s.Third.IPv4), slices.Concat(s.Attacker.IPv4.AsSlice(), s.Attacker.IPv4.AsSlice())...)))
	}},
	{"error_to_all", OfIP, func(s Scene) []byte {
		return Ether(Broadcast, s.Attacker.MAC, EtherIPv4, IPv4(s.Attacker.IPv4, s.Victim.IPv4, 1, Quote(3, flow(s.Victim.IPv4, s.Third.IPv4))))
	}},
	{"error_of_IPv6_about_nothing", OfIP, func(s Scene) []byte { return errorTo6(s, 58, Quote(1, nil)) }},
	{"error_of_IPv6_whose_quote_is_too_short", OfIP, func(s Scene) []byte {
		return errorTo6(s, 58, Quote(2, flow(s.Victim.IPv6, s.Attacker.IPv6)[:39]))
	}},
	{"error_of_IPv6_about_the_link_local_address_of_another", OfIP, func(s Scene) []byte {
		return errorTo6(s, 58, Quote(1, flow(s.Victim.MAC.LinkLocal(), s.Third.MAC.LinkLocal())))
	}},
	{"error_of_IPv6_behind_hop_by_hop", OfIP, func(s Scene) []byte {
		return errorTo6(s, 0, Extension(58), Quote(2, flow(s.Victim.IPv6, s.Third.IPv6)))
	}},
	{"error_of_IPv6_behind_destination_options", OfIP, func(s Scene) []byte {
		return errorTo6(s, 60, Extension(60), Extension(58), Quote(1, flow(s.Victim.IPv6, s.Third.IPv6)))
	}},
	{"error_of_IPv6_in_an_atomic_fragment", OfIP, func(s Scene) []byte {
		return errorTo6(s, 44, Fragment6(58, 0, false), Quote(2, flow(s.Victim.IPv6, s.Third.IPv6)))
	}},
	{"error_of_IPv6_in_a_first_fragment", OfIP, func(s Scene) []byte {
		return errorTo6(s, 44, Fragment6(58, 0, true), Quote(2, flow(s.Victim.IPv6, s.Attacker.IPv6)))
	}},
	{"error_of_IPv6_in_a_first_fragment_without_its_quote", OfIP, func(s Scene) []byte {
		return errorTo6(s, 44, Fragment6(58, 0, true), Quote(2, nil))
	}},
	{"error_of_IPv6_with_two_fragment_headers", OfIP, func(s Scene) []byte {
		return errorTo6(s, 44, Fragment6(44, 0, false), Fragment6(58, 0, true), Quote(2, flow(s.Victim.IPv6, s.Third.IPv6)))
	}},
}

func errorTo4(s Scene, message []byte) []byte {
	return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv4, IPv4(s.Attacker.IPv4, s.Victim.IPv4, icmp, message))
}

func errorTo6(s Scene, next byte, parts ...[]byte) []byte {
	return Ether(s.Victim.MAC, s.Attacker.MAC, EtherIPv6, IPv6(s.Attacker.IPv6, s.Victim.IPv6, next, parts...))
}

// flow is a packet of a possible connection.
func flow(from, to netip.Addr) []byte {
	if from.Is4() {
		return IPv4(from, to, udp, Datagram(5000, 53))
	}
	return IPv6(from, to, udp, Datagram(5000, 53))
}

// errorsOfAllTypes are errors about a connection with a third party, and about one with the
// outside.
func errorsOfAllTypes() (all []Attack) {
	for _, e := range []struct {
		name string
		typ  byte
	}{{"unreachable", 3}, {"source_quench", 4}, {"time_exceeded", 11}, {"parameter_problem", 12}} {
		all = append(all, Attack{e.name + "_of_IPv4_about_anothers_connection", OfIP, func(s Scene) []byte {
			return errorTo4(s, Quote(e.typ, flow(s.Victim.IPv4, s.Third.IPv4)))
		}}, Attack{e.name + "_of_IPv4_about_a_connection_to_the_world", OfIP, func(s Scene) []byte {
			return errorTo4(s, Quote(e.typ, flow(s.Victim.IPv4, world)))
		}})
	}
	for _, e := range []struct {
		name string
		typ  byte
	}{{"type_0", 0}, {"unreachable", 1}, {"packet_too_big", 2}, {"time_exceeded", 3}, {"parameter_problem", 4}, {"type_5", 5}, {"type_100", 100}, {"type_127", 127}} {
		all = append(all, Attack{e.name + "_of_IPv6_about_anothers_connection", OfIP, func(s Scene) []byte {
			return errorTo6(s, icmpv6, Quote(e.typ, flow(s.Victim.IPv6, s.Third.IPv6)))
		}})
	}
	return all
}
