package attack

import (
	"encoding/binary"
	"net/netip"
)

// LonelyFragments are IPv4 fragments whose rest never comes: first ones, later ones, and
// a last one with a gap before it. Each belongs to a datagram of its own.
func LonelyFragments(to, from MAC, src, dst netip.Addr, n int) [][]byte {
	forms := []uint16{0x2000, 0x2000 | 185, 370}
	out := make([][]byte, n)
	for i := range out {
		p := IPv4(src, dst, udp, make([]byte, 1480))
		binary.BigEndian.PutUint16(p[4:], uint16(i))
		binary.BigEndian.PutUint16(p[6:], forms[i%len(forms)])
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], checksum(p[:20]))
		out[i] = Ether(to, from, EtherIPv4, p)
	}
	return out
}
