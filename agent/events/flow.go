package events

import (
	"encoding/binary"
	"net/netip"

	"netguard/netpolicy"
)

// Flow is what the beginning of a packet says of its connection.
type Flow struct {
	Src, Dst netip.Addr
	Proto    netpolicy.Protocol
	Port     uint16 // the receiver's, of a protocol with ports
	ICMPType int16  // netpolicy.AnyICMPType of another protocol, or where it cannot be read
}

const fragmentHeader = 44

// Flow reads the headers. It is false where there is no IP header.
func (s *Sample) Flow() (Flow, bool) {
	p := s.Packet
	f := Flow{ICMPType: netpolicy.AnyICMPType}
	var rest []byte
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		f.Src, f.Dst = netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:]))
		f.Proto = netpolicy.Protocol(p[9])
		if header := int(p[0]&15) * 4; header >= 20 && header < len(p) && binary.BigEndian.Uint16(p[6:])&0x1fff == 0 {
			rest = p[header:]
		}
	case len(p) >= 40 && p[0]>>4 == 6:
		f.Src, f.Dst = netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:]))
		f.Proto, rest = behind(p[6], p[40:])
	default:
		return f, false
	}
	switch {
	case f.Proto.HasPorts() && len(rest) >= 4:
		f.Port = binary.BigEndian.Uint16(rest[2:])
	case (f.Proto == netpolicy.ICMP || f.Proto == netpolicy.ICMPv6) && len(rest) > 0:
		f.ICMPType = int16(rest[0])
	}
	return f, true
}

// behind walks over IPv6's extension headers. What follows them is nil where it
// cannot be read.
func behind(next byte, p []byte) (netpolicy.Protocol, []byte) {
	for len(p) >= 8 {
		length := 8 * (int(p[1]) + 1)
		switch next {
		case 0, 43, 60:
		case fragmentHeader:
			length = 8
			if binary.BigEndian.Uint16(p[2:])>>3 != 0 {
				return netpolicy.Protocol(p[0]), nil
			}
		default:
			return netpolicy.Protocol(next), p
		}
		next, p = p[0], p[min(length, len(p)):]
	}
	return netpolicy.Protocol(next), p
}
