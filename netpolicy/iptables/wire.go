package iptables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
	"netguard/internal/netlinkattr"
)

// answerWithin bounds the wait for the kernel's answer.
const answerWithin = 10 * time.Second

// conn is a netlink socket with one buffer, which every answer is read into: a look at
// a thousand members makes no garbage. It does what vishvananda/netlink has no words
// for: members many at a time, sets without their members, connections one by one
// instead of all in memory, two flags of bridges.
type conn struct {
	proto  int
	fd     int
	seq    uint32
	answer []byte
	wrote  *int // messages that changed something
}

// longest is the most that the kernel puts into one answer (32 KiB of a list), and room.
const longest = 1 << 16

func dial(proto int, wrote *int) (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	tv := unix.NsecToTimeval(answerWithin.Nanoseconds())
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	if err != nil {
		_ = unix.Close(fd) // nothing was sent
		return nil, fmt.Errorf("set up netlink: %w", err)
	}
	return &conn{proto: proto, fd: fd, answer: make([]byte, longest), wrote: wrote}, nil
}

func (c *conn) close() {
	if c != nil {
		_ = unix.Close(c.fd) // what was written is answered already
	}
}

// write sends a message that changes something, and waits for the answer.
func (c *conn) write(typ int, flags int, payload []byte) error {
	*c.wrote++
	return fault.Write(c.name(typ), func() error {
		return c.ask(typ, flags|unix.NLM_F_ACK, payload, func([]byte) bool { return true })
	})
}

// name says what a message changes.
func (c *conn) name(typ int) string {
	if c.proto != unix.NETLINK_NETFILTER {
		return "bridge nf_call"
	}
	switch typ {
	case unix.NFNL_SUBSYS_IPSET<<8 | nl.IPSET_CMD_CREATE:
		return "ipset create"
	case unix.NFNL_SUBSYS_IPSET<<8 | nl.IPSET_CMD_DESTROY:
		return "ipset destroy"
	case unix.NFNL_SUBSYS_IPSET<<8 | nl.IPSET_CMD_ADD, unix.NFNL_SUBSYS_IPSET<<8 | nl.IPSET_CMD_DEL:
		return "ipset members"
	}
	return "conntrack delete"
}

// ask sends a message and hands on the answers as they come; false from each ends the
// handing, not the reading. What each is given lasts until it returns.
func (c *conn) ask(typ int, flags int, payload []byte, each func([]byte) bool) error {
	c.seq++
	request := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(payload))
	binary.NativeEndian.PutUint32(request, uint32(unix.SizeofNlMsghdr+len(payload)))
	binary.NativeEndian.PutUint16(request[4:], uint16(typ))
	binary.NativeEndian.PutUint16(request[6:], uint16(flags|unix.NLM_F_REQUEST))
	binary.NativeEndian.PutUint32(request[8:], c.seq)
	request = append(request, payload...)
	if err := again(func() error { return unix.Sendto(c.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) }); err != nil {
		return fmt.Errorf("send to kernel: %w", err)
	}
	more, interrupted := true, false
	for {
		n := 0
		err := again(func() (err error) {
			n, _, err = unix.Recvfrom(c.fd, c.answer, 0)
			return err
		})
		if err != nil {
			return fmt.Errorf("hear from kernel: %w", err)
		}
		for m := c.answer[:n]; len(m) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(m))
			if size < unix.SizeofNlMsghdr || size > len(m) {
				return fmt.Errorf("hear from kernel: %w", unix.EBADMSG)
			}
			head, body := m[:unix.SizeofNlMsghdr], m[unix.SizeofNlMsghdr:size]
			m = m[min(align(size), len(m)):]
			if binary.NativeEndian.Uint32(head[8:]) != c.seq {
				continue // of an earlier question
			}
			flags := binary.NativeEndian.Uint16(head[6:])
			interrupted = interrupted || flags&unix.NLM_F_DUMP_INTR != 0
			switch typ := binary.NativeEndian.Uint16(head[4:]); {
			case typ == unix.NLMSG_DONE || typ == unix.NLMSG_ERROR:
				if len(body) >= 4 {
					if errno := int32(binary.NativeEndian.Uint32(body)); errno < 0 {
						return unix.Errno(-errno)
					}
				}
				if interrupted {
					return nl.ErrDumpInterrupted
				}
				return nil
			default:
				more = more && each(body)
				if flags&unix.NLM_F_MULTI == 0 {
					return nil
				}
			}
		}
	}
}

// again calls f until no signal interrupts it.
func again(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// dump asks for a list. A list that was changed while it was read is read again.
func (c *conn) dump(typ int, payload []byte, start func(), each func([]byte) bool) error {
	var err error
	for range 5 {
		start()
		err = c.ask(typ, unix.NLM_F_DUMP, payload, each)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return err
		}
	}
	return err
}

// attrs ranges over the attributes of b as far as they are whole. The type comes
// without the flags for nesting and byte order.
func attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		_ = netlinkattr.Walk(b, func(typ uint16, _, value []byte) error {
			if !yield(typ, value) {
				return errEnough
			}
			return nil
		})
	}
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

func align(n int) int { return (n + 3) &^ 3 }

// attr appends an attribute.
func attr(b []byte, typ int, value ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, uint16(typ))
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// nest appends an attribute that holds what fill appends. One that would not fit
// the 16 bits of its length is the caller's mistake: it keeps batches small.
func nest(b []byte, typ int, fill func([]byte) []byte) []byte {
	start := len(b)
	b = attr(b, typ|int(nl.NLA_F_NESTED))
	b = fill(b)
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
	return b
}

func be16(v uint16) []byte     { return binary.BigEndian.AppendUint16(nil, v) }
func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
func be32(v uint32) []byte     { return binary.BigEndian.AppendUint32(nil, v) }

func text(s string) []byte { return append([]byte(s), 0) }

// word reads a string of the kernel, which may or may not end with a zero.
func word(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

func number8(b []byte) uint8 {
	if len(b) < 1 {
		return 0
	}
	return b[0]
}

func number16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

func number32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func number64(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// netfilterHeader is struct nfgenmsg.
func netfilterHeader(family uint8) []byte { return []byte{family, nl.NFNETLINK_V0, 0, 0} }
