package guard

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Frames that containers send, honest and other ones. What is not checked, such as
// checksums, is zero: a bridge does not look at it.

var (
	broadcast = MAC{255, 255, 255, 255, 255, 255}
	none4     = netip.MustParseAddr("0.0.0.0")
	none6     = netip.MustParseAddr("::")
	allNodes  = netip.MustParseAddr("ff02::1")
	allRouter = netip.MustParseAddr("ff02::2")
)

// ether is an Ethernet frame.
func ether(to, from MAC, typ uint16, payload ...[]byte) []byte {
	f := append(to[:], from[:]...)
	f = binary.BigEndian.AppendUint16(f, typ)
	return append(f, slices.Concat(payload...)...)
}

// arpPacket is an ARP message for IPv4 over Ethernet.
func arpPacket(op uint16, senderMAC MAC, sender netip.Addr, targetMAC MAC, target netip.Addr) []byte {
	p := []byte{0, 1, 8, 0, 6, 4}
	p = binary.BigEndian.AppendUint16(p, op)
	p = append(append(p, senderMAC[:]...), sender.AsSlice()...)
	return append(append(p, targetMAC[:]...), target.AsSlice()...)
}

// with returns p with other bytes from an offset on.
func with(p []byte, offset int, b ...byte) []byte {
	q := slices.Clone(p)
	copy(q[offset:], b)
	return q
}

// ip4 is an IPv4 packet with a checksum.
func ip4(from, to netip.Addr, protocol byte, payload ...[]byte) []byte {
	body := slices.Concat(payload...)
	p := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0}
	p = append(append(p, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)+len(body)))
	return append(sum4(p), body...)
}

// sum4 sets the checksum of an IPv4 header.
func sum4(p []byte) []byte {
	p[10], p[11] = 0, 0
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	return p
}

// fragment4 sets the fragment field of an IPv4 packet: the offset is in units of 8
// bytes.
func fragment4(p []byte, offset uint16, more bool) []byte {
	if more {
		offset |= 0x2000
	}
	return sum4(with(p, 6, byte(offset>>8), byte(offset)))
}

// udpPacket is a UDP datagram.
func udpPacket(from, to uint16, payload ...[]byte) []byte {
	body := slices.Concat(payload...)
	p := binary.BigEndian.AppendUint16(nil, from)
	p = binary.BigEndian.AppendUint16(p, to)
	p = binary.BigEndian.AppendUint16(p, uint16(8+len(body)))
	return append(append(p, 0, 0), body...)
}

// ip6 is an IPv6 packet with a hop limit of 255.
func ip6(from, to netip.Addr, next byte, payload ...[]byte) []byte {
	body := slices.Concat(payload...)
	p := []byte{0x60, 0, 0, 0, 0, 0, next, 255}
	binary.BigEndian.PutUint16(p[4:], uint16(len(body)))
	return append(append(append(p, from.AsSlice()...), to.AsSlice()...), body...)
}

// extension is a hop-by-hop (0), routing (43) or destination (60) header of 8 bytes,
// with only padding.
func extension(next byte) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} }

// lastExtension is a destination header with nothing behind it.
func lastExtension(next byte) []byte { return append([]byte{next, 1, 1, 12}, make([]byte, 12)...) }

// routerAlert is the hop-by-hop header of multicast reports.
func routerAlert(next byte) []byte { return []byte{next, 0, 5, 2, 0, 0, 1, 0} }

// fragment6 is a fragment header; the offset is in units of 8 bytes.
func fragment6(next byte, offset uint16, more bool) []byte {
	field := offset << 3
	if more {
		field |= 1
	}
	return []byte{next, 0, byte(field >> 8), byte(field), 0, 0, 0, 7}
}

// icmp6Packet is an ICMPv6 message: type, 7 bytes of header, the rest.
func icmp6Packet(typ byte, rest ...[]byte) []byte {
	return append([]byte{typ, 0, 0, 0, 0, 0, 0, 0}, slices.Concat(rest...)...)
}

// ndOptionOf is an option that holds a MAC.
func ndOptionOf(typ byte, mac MAC) []byte { return append([]byte{typ, 1}, mac[:]...) }

// routerAdvertisement says "I am your router".
func routerAdvertisement() []byte {
	return icmp6Packet(134, make([]byte, 8))
}

// group6 is the MAC of an IPv6 multicast group.
func group6(a netip.Addr) MAC {
	b := a.As16()
	return MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// solicited is the group in which an address is asked for.
func solicited(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// dhcpRequest is the beginning of a DHCP message with a client's MAC.
func dhcpRequest(mac MAC) []byte {
	p := make([]byte, 240)
	copy(p, []byte{1, 1, 6, 0})
	copy(p[28:], mac[:])
	return p
}

// igmpPacket is an IGMP message about the group 224.0.0.9.
func igmpPacket(typ byte) []byte { return []byte{typ, 0, 0, 0, 224, 0, 0, 9} }

func netip4(a, b, c, d byte) netip.Addr { return netip.AddrFrom4([4]byte{a, b, c, d}) }
