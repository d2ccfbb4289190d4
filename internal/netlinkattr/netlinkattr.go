// Package netlinkattr walks the attributes of netlink messages where they lie, without
// copies.
package netlinkattr

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// ErrCutOff says that an attribute is longer than what there is of it.
var ErrCutOff = errors.New("netlink attribute is cut off")

// Walk calls each for each attribute: raw is the attribute with its header, value what it
// holds. Walk ends at the first error of each, and with ErrCutOff where an attribute is cut
// off. What each gets is part of b.
func Walk(b []byte, each func(typ uint16, raw, value []byte) error) error {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return ErrCutOff
		}
		typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if err := each(typ, b[:n], b[unix.SizeofRtAttr:n]); err != nil {
			return err
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return nil
}
