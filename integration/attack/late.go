package attack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A sender with CAP_NET_RAW can leave writes to the kernel. The kernel makes them late: after
// the rules have judged the packet.

// OpenLate opens a port whose frames begin with a header for the kernel (see Late).
func OpenLate(iface string) (*Port, error) {
	p, err := Open(iface)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		p.Close()
		return nil, fmt.Errorf("leave checksums to the kernel: %w", err)
	}
	return p, nil
}

// Late tells the kernel to compute a frame's checksum from a byte on, and to write it at
// an offset from there: struct virtio_net_hdr.
func Late(start, offset uint16, frame []byte) []byte {
	b := []byte{1, 0, 0, 0, 0, 0} // needs a checksum, no segments
	b = binary.NativeEndian.AppendUint16(b, start)
	b = binary.NativeEndian.AppendUint16(b, offset)
	return append(b, frame...)
}

// SumTo chooses two bytes of b, at an even offset, so that b gets the wanted checksum.
func SumTo(b []byte, offset int, want uint16) {
	b[offset], b[offset+1] = 0, 0
	rest := slices.Clone(b)
	if len(rest)%2 != 0 {
		rest = append(rest, 0)
	}
	binary.BigEndian.PutUint16(b[offset:], checksum(append(rest, byte(want>>8), byte(want))))
}

// Sent returns the next frame that left through the interface.
func (p *Port) Sent(until time.Time) ([]byte, error) { return p.next(until, true) }

// Redirect makes two fragments of a TCP segment, each with a header for the kernel. After
// reassembly, the rules judge a segment to the port seen. When it is forwarded, the kernel
// writes the port that the segment is really for. It returns nil if the frame is not to that
// port.
func Redirect(frame []byte, want, seen uint16) [][]byte {
	frame = bytes.Clone(frame)
	const ether, fragmentHeader, first = 14, 8, 24
	switch {
	case len(frame) < ether+40:
		return nil
	case binary.BigEndian.Uint16(frame[12:]) == EtherIPv4 && frame[ether+9] == 6:
		p := frame[ether : ether+int(binary.BigEndian.Uint16(frame[ether+2:]))]
		header, t := p[:20], p[20:]
		if len(t) <= first || binary.BigEndian.Uint16(t[2:]) != want {
			return nil
		}
		pseudo := append(bytes.Clone(header[12:20]), 0, 6, byte(len(t)>>8), byte(len(t)))
		binary.BigEndian.PutUint16(t[16:], 0)
		binary.BigEndian.PutUint16(t[16:], checksum(append(pseudo, t...)))
		binary.BigEndian.PutUint16(t[2:], seen)
		// The identification changes the header's checksum, which is part of the sum.
		binary.BigEndian.PutUint16(header[6:], 0)
		for id := range 1 << 16 {
			binary.BigEndian.PutUint16(header[4:], uint16(id))
			binary.BigEndian.PutUint16(header[10:], 0)
			binary.BigEndian.PutUint16(header[10:], checksum(header))
			if checksum(p[6:]) == want {
				break
			}
		}
		cut := func(field uint16, part []byte) []byte {
			h := bytes.Clone(header)
			binary.BigEndian.PutUint16(h[2:], uint16(20+len(part)))
			binary.BigEndian.PutUint16(h[6:], field)
			binary.BigEndian.PutUint16(h[10:], 0)
			binary.BigEndian.PutUint16(h[10:], checksum(h))
			return slices.Concat(frame[:ether], h, part)
		}
		return [][]byte{Late(ether+6, 16, cut(0x2000, t[:first])), Late(ether+6, 2, cut(first/8, t[first:]))}
	case binary.BigEndian.Uint16(frame[12:]) == EtherIPv6 && frame[ether+6] == 6:
		p := frame[ether : ether+40+int(binary.BigEndian.Uint16(frame[ether+4:]))]
		header, t := p[:40], p[40:]
		if len(t) <= first || binary.BigEndian.Uint16(t[2:]) != want {
			return nil
		}
		pseudo := append(bytes.Clone(header[8:40]), 0, 0, byte(len(t)>>8), byte(len(t)), 0, 0, 0, 6)
		binary.BigEndian.PutUint16(t[16:], 0)
		binary.BigEndian.PutUint16(t[16:], checksum(append(pseudo, t...)))
		binary.BigEndian.PutUint16(t[2:], seen)
		SumTo(p[2:], 0, want) // the flow label, whose upper bits are zero
		header[1] = 0
		cut := func(offset uint16, more bool, part []byte) []byte {
			h := bytes.Clone(header)
			binary.BigEndian.PutUint16(h[4:], uint16(fragmentHeader+len(part)))
			h[6] = 44
			return slices.Concat(frame[:ether], h, Fragment6(6, offset, more), part)
		}
		// Reassembly moves what comes before the fragment header.
		return [][]byte{Late(ether+2+fragmentHeader, 40, cut(0, true, t[:first])),
			Late(ether+2+fragmentHeader, 2, cut(first/8, false, t[first:]))}
	}
	return nil
}
