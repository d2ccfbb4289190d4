// Package attack holds frames that containers must not send, and sockets that send and
// receive frames. A container can send all of them with Docker's default CAP_NET_RAW.
package attack

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// MAC is an Ethernet address.
type MAC [6]byte

// Addresses without a fixed owner.
var (
	Broadcast = MAC{255, 255, 255, 255, 255, 255}
	Nobody    = MAC{2, 0xbb, 0, 0, 0, 0xbb}
	None4     = netip.MustParseAddr("0.0.0.0")
	None6     = netip.MustParseAddr("::")
	All4      = netip.MustParseAddr("255.255.255.255")
	AllNodes  = netip.MustParseAddr("ff02::1")
)

// LinkLocal is the address that Linux derives from a MAC.
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// Group is the MAC of an IPv6 multicast group.
func Group(a netip.Addr) MAC {
	b := a.As16()
	return MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// Solicited is the solicited-node group of an address.
func Solicited(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// Ethertypes.
const (
	EtherIPv4 = 0x0800
	EtherARP  = 0x0806
	EtherIPv6 = 0x86dd
	EtherVLAN = 0x8100
	EtherQinQ = 0x88a8
)

// Ether is an Ethernet frame.
func Ether(to, from MAC, typ uint16, payload ...[]byte) []byte {
	f := append(to[:], from[:]...)
	f = binary.BigEndian.AppendUint16(f, typ)
	return append(f, slices.Concat(payload...)...)
}

// Tagged puts a VLAN tag into a frame, before its other tags.
func Tagged(frame []byte, typ, tci uint16) []byte {
	tag := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, typ), tci)
	return slices.Insert(slices.Clone(frame), 12, tag...)
}

// Operations of ARP.
const (
	Request = 1
	Reply   = 2
)

// ARP is a message for IPv4 over Ethernet.
func ARP(op uint16, sender MAC, senderIP netip.Addr, target MAC, targetIP netip.Addr) []byte {
	p := binary.BigEndian.AppendUint16([]byte{0, 1, 8, 0, 6, 4}, op)
	p = append(append(p, sender[:]...), senderIP.AsSlice()...)
	return append(append(p, target[:]...), targetIP.AsSlice()...)
}

// With returns p with other bytes from an offset on.
func With(p []byte, offset int, b ...byte) []byte {
	q := slices.Clone(p)
	copy(q[offset:], b)
	return q
}

// Protocols.
const (
	igmp   = 2
	tcp    = 6
	udp    = 17
	icmpv6 = 58
)

// IPv4 is a packet with its checksum.
func IPv4(from, to netip.Addr, protocol byte, payload ...[]byte) []byte {
	body := slices.Concat(payload...)
	p := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0}
	p = append(append(p, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)+len(body)))
	binary.BigEndian.PutUint16(p[10:], checksum(p))
	return append(p, body...)
}

// IPv6 is a packet with a hop limit of 255.
func IPv6(from, to netip.Addr, next byte, payload ...[]byte) []byte {
	body := slices.Concat(payload...)
	p := []byte{0x60, 0, 0, 0, 0, 0, next, 255}
	binary.BigEndian.PutUint16(p[4:], uint16(len(body)))
	return append(append(append(p, from.AsSlice()...), to.AsSlice()...), body...)
}

// UDP4 is an IPv4 packet that holds a datagram without a checksum.
func UDP4(from, to netip.AddrPort, payload ...[]byte) []byte {
	return IPv4(from.Addr(), to.Addr(), udp, Datagram(from.Port(), to.Port(), payload...))
}

// UDP6 is the same in IPv6, with the checksum that it must have there.
func UDP6(from, to netip.AddrPort, payload ...[]byte) []byte {
	d := Datagram(from.Port(), to.Port(), payload...)
	return IPv6(from.Addr(), to.Addr(), udp, sum6(from.Addr(), to.Addr(), udp, d, 6))
}

// Datagram is a UDP datagram without a checksum.
func Datagram(from, to uint16, payload ...[]byte) []byte {
	body := slices.Concat(payload...)
	p := binary.BigEndian.AppendUint16(nil, from)
	p = binary.BigEndian.AppendUint16(p, to)
	p = binary.BigEndian.AppendUint16(p, uint16(8+len(body)))
	return append(append(p, 0, 0), body...)
}

// ICMPv6 is a message with its checksum: type, code, 4 bytes, the rest.
func ICMPv6(from, to netip.Addr, typ byte, rest ...[]byte) []byte {
	m := append([]byte{typ, 0, 0, 0}, slices.Concat(rest...)...)
	return sum6(from, to, icmpv6, m, 2)
}

// sum6 sets the checksum at an offset, with the pseudo header of IPv6.
func sum6(from, to netip.Addr, protocol byte, body []byte, offset int) []byte {
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(),
		binary.BigEndian.AppendUint32(nil, uint32(len(body))), []byte{0, 0, 0, protocol}, body)
	body = slices.Clone(body)
	binary.BigEndian.PutUint16(body[offset:], checksum(pseudo))
	return body
}

func checksum(p []byte) uint16 {
	var sum uint32
	for i, b := range p {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// MACOption is an option of neighbour discovery that holds a MAC.
func MACOption(typ byte, mac MAC) []byte { return append([]byte{typ, 1}, mac[:]...) }

// Extension is a hop-by-hop, routing or destination header with only padding.
func Extension(next byte) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} }

// Fragment6 is a fragment header; the offset is in units of 8 bytes.
func Fragment6(next byte, offset uint16, more bool) []byte {
	field := offset << 3
	if more {
		field |= 1
	}
	return []byte{next, 0, byte(field >> 8), byte(field), 0, 0, 0, 7}
}
