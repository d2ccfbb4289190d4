package guard

import (
	"net/netip"

	"github.com/google/nftables/binaryutil"
)

// element is one element of a set: its key and, of a prefix, the key of its end.
// An element is compared by these alone.
type element struct{ key, end string }

// elements are the elements of one set, with the comment of each.
type elements map[element]string

// portOf gives the port that a key begins with.
func (e element) portOf() int {
	if len(e.key) < 4 {
		return 0
	}
	return int(binaryutil.NativeEndian.Uint32([]byte(e.key[:4])))
}

// macOf gives the MAC that follows the port.
func (e element) macOf() (m MAC) {
	if len(e.key) >= 10 {
		copy(m[:], e.key[4:])
	}
	return m
}

func portKey(port int) string { return string(binaryutil.NativeEndian.PutUint32(uint32(port))) }

// macKey is a MAC as a part of a key: each part begins on a word of its own.
func macKey(m MAC) string { return string(m[:]) + "\x00\x00" }

// prefixElement is port . prefix.
func prefixElement(port int, p netip.Prefix) element {
	first, last := bounds(p)
	return element{key: portKey(port) + first, end: portKey(port) + last}
}

// bounds are the first and the last address of a prefix.
func bounds(p netip.Prefix) (string, string) {
	first, last := p.Masked().Addr().AsSlice(), p.Masked().Addr().AsSlice()
	for i := range last {
		switch bits := p.Bits() - 8*i; {
		case bits <= 0:
			last[i] = 0xff
		case bits < 8:
			last[i] |= 0xff >> bits
		}
	}
	return string(first), string(last)
}

// set4or6 gives the name of a set of the address's family.
func set4or6(a netip.Addr, v4, v6 string) string {
	if a.Is4() {
		return v4
	}
	return v6
}

// element is the counter's element in the set of violations.
func (c counted) element() element {
	return element{key: portKey(c.port) + string(binaryutil.NativeEndian.PutUint32(uint32(c.kind)))}
}
