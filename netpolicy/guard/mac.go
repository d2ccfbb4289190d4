package guard

import (
	"fmt"
	"net"
	"net/netip"
)

// MAC is an Ethernet address that can be compared.
type MAC [6]byte

// MACOf converts an address. It returns an error if no container can have this address: it
// does not have six bytes, is zero, or is a group address.
func MACOf(hw net.HardwareAddr) (MAC, error) {
	if len(hw) != 6 {
		return MAC{}, fmt.Errorf("%q is not an Ethernet address", hw)
	}
	m := MAC(hw)
	switch {
	case m == MAC{}:
		return MAC{}, fmt.Errorf("%s is no address", m)
	case m[0]&1 != 0:
		return MAC{}, fmt.Errorf("%s is a group address: a container's own has an even first byte", m)
	}
	return m, nil
}

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// LinkLocal gives the IPv6 address that the kernel derives from a MAC
// (RFC 4291, appendix A).
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80,
		8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}
