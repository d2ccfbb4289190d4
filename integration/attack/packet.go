package attack

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Unusual parts of packets. A bridge checks only the checksum of IPv4's header. The comment
// says if another checksum is missing.

// Groups that reports are sent to, and others.
var (
	ReportGroup4 = netip.MustParseAddr("224.0.0.22")
	ReportGroup6 = netip.MustParseAddr("ff02::16")
	AllRouters   = netip.MustParseAddr("ff02::2")
	MDNS4        = netip.MustParseAddr("224.0.0.251")
)

// Group4 is the MAC of an IPv4 multicast group.
func Group4(a netip.Addr) MAC {
	b := a.As4()
	return MAC{1, 0, 0x5e, b[1] & 0x7f, b[2], b[3]}
}

// Sum4 sets the checksum of the header of an IPv4 packet that has no options.
func Sum4(p []byte) []byte {
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], checksum(p[:20]))
	return p
}

// Fragment4 sets the fragment field of an IPv4 packet: the offset is in units of 8 bytes.
func Fragment4(p []byte, offset uint16, more bool) []byte {
	if more {
		offset |= 0x2000
	}
	return Sum4(With(p, 6, byte(offset>>8), byte(offset)))
}

// Options puts options into the header of an IPv4 packet, whose checksum is then wrong.
func Options(p []byte, opts ...byte) []byte {
	q := slices.Concat(p[:20], opts, p[20:])
	n := len(q)
	q[0], q[2], q[3] = 0x45+byte(len(opts)/4), byte(n>>8), byte(n)
	return q
}

// LastExtension is a destination header with nothing behind it.
func LastExtension(next byte) []byte { return append([]byte{next, 1, 1, 12}, make([]byte, 12)...) }

// RouterAlert6 is the hop-by-hop header of reports.
func RouterAlert6(next byte) []byte { return []byte{next, 0, 5, 2, 0, 0, 1, 0} }

// Message6 is a message of ICMPv6 without a checksum: type, 7 bytes of header, the rest.
func Message6(typ byte, rest ...[]byte) []byte {
	return append([]byte{typ, 0, 0, 0, 0, 0, 0, 0}, slices.Concat(rest...)...)
}

// IGMP is a message without a checksum about the group 224.0.0.9.
func IGMP(typ byte) []byte { return []byte{typ, 0, 0, 0, 224, 0, 0, 9} }

// IGMPTo is a message of IGMP in a frame, with the option that routers look for.
func IGMPTo(mac, sender MAC, from, to netip.Addr, message []byte, behind ...[]byte) []byte {
	alert := []byte{0x94, 4, 0, 0}
	return Ether(mac, sender, EtherIPv4, append([][]byte{Options(IPv4(from, to, igmp, message), alert...)}, behind...)...)
}

// Records4 is a report of IGMPv3 about n groups, without a checksum.
func Records4(n int, more ...byte) []byte {
	p := []byte{0x22, 0, 0, 0, 0, 0, 0, byte(n)}
	for i := range n {
		p = append(p, 4, 0, 0, 0, 239, 0, 0, byte(i))
	}
	return append(p, more...)
}

// Records6 is a report of MLDv2 about n groups, without a checksum.
func Records6(n int) []byte {
	p := With(Message6(143), 7, byte(n))
	for i := range n {
		p = append(append(p, 4, 0, 0, 0), netip.AddrFrom16([16]byte{0: 0xff, 1: 5, 15: byte(i)}).AsSlice()...)
	}
	return p
}

// Quote is an error message of ICMP without a checksum, that quotes a packet.
func Quote(typ byte, quoted []byte) []byte {
	return append([]byte{typ, 1, 0, 0, 0, 0, 5, 0}, quoted...)
}

// DiscoverTo is the question of a client of DHCP, with so many bytes more, in a frame to a
// MAC, to an address.
func DiscoverTo(to, client MAC, dst netip.Addr, op byte, extra int, behind ...[]byte) []byte {
	q := append(With(DHCPRequest(client), 0, op), make([]byte, extra)...)
	return Ether(to, client, EtherIPv4, append([][]byte{IPv4(None4, dst, udp, Datagram(68, 67, q))}, behind...)...)
}
