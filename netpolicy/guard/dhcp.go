package guard

// A host without an IPv4 address sends one kind of IPv4 packet: a DHCP client's question to all.
// No set and no policy knows its source 0.0.0.0. So the rules here check the whole packet. They
// let few and short ones pass: containers get their addresses from Docker.

// perClient limits a client's questions. A client asks a few times in its first minute.
var perClient = Storm{Rate: 5, Burst: 20}

// longestQuestion is the length, in bytes, that every server must accept (RFC 2131).
const longestQuestion = 576

var (
	portPair   = transport(0, 4)
	targetPort = transport(2, 2)
	dhcpStart  = transport(8, 3) // a question, over Ethernet, a MAC of 6 bytes
	dhcpMAC    = transport(8+28, 6)
)

func (b *builder) dhcp(f Features) {
	client := append(ip4Proto.is(udp), portPair.is(0, 68, 0, 67)...)
	b.refuse("ipv4-none", "fragment", kindIP, ip4Frag.anyBit(0x3f, 0xff))
	b.add("ipv4-none", "DHCP client", goTo("dhcp"), client)
	b.refuse("ipv4-none", "any other", kindIP)

	b.add("dhcp", "to all", goTo("dhcp-client"), etherTo.is(everybody...), ip4To.is(255, 255, 255, 255),
		dhcpStart.is(1, 1, 6), in(setMAC, inPort, dhcpMAC), frameLength.atMost(longestQuestion))
	b.refuse("dhcp", "for another, to one, or too long", kindDHCP)
	b.refuse("dhcp-client", "more than anybody needs", kindDHCP, beyond(setClients, perClient, meterLife, inPort))
	b.pass("dhcp-client", "for itself")

	b.servers(f)
}
