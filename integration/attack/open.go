package attack

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

const icmp = 1

// Opening makes the host track a useless connection: each number gives a packet of
// another connection.
type Opening struct {
	Name   string
	Packet func(from, to netip.Addr, i int) []byte
}

// Openings are those of IPv4.
var Openings = []Opening{
	{"datagrams_from_many_ports", func(from, to netip.Addr, i int) []byte {
		return UDP4(port(from, uint16(10000+i)), port(to, 9))
	}},
	{"half-open_TCP", func(from, to netip.Addr, i int) []byte {
		return SYN4(port(from, uint16(10000+i)), port(to, 9))
	}},
	{"echoes_with_many_ids", func(from, to netip.Addr, i int) []byte {
		m := []byte{8, 0, 0, 0, byte(i >> 8), byte(i), 0, 1}
		binary.BigEndian.PutUint16(m[2:], checksum(m))
		return IPv4(from, to, icmp, m)
	}},
}

// SYN4 is the first packet of a TCP connection. It has a correct checksum, because the
// kernel does not track a packet without one.
func SYN4(from, to netip.AddrPort) []byte {
	s := binary.BigEndian.AppendUint16(nil, from.Port())
	s = binary.BigEndian.AppendUint16(s, to.Port())
	s = append(s, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, 2, 0xff, 0xff, 0, 0, 0, 0)
	pseudo := slices.Concat(from.Addr().AsSlice(), to.Addr().AsSlice(), []byte{0, tcp, 0, byte(len(s))}, s)
	binary.BigEndian.PutUint16(s[16:], checksum(pseudo))
	return IPv4(from.Addr(), to.Addr(), tcp, s)
}
