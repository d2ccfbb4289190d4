package iptables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
)

// answerWithin bounds the wait for the kernel's answer.
const answerWithin = 10 * time.Second

// conn is a netlink socket. What vishvananda/netlink has no words for goes
// through it: members many at a time, sets without their members, connections
// one by one instead of all in memory, two flags of bridges.
type conn struct {
	proto  int
	handle *nl.SocketHandle
	wrote  *int // messages that changed something
}

func dial(proto int, wrote *int) (*conn, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), proto)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	tv := unix.NsecToTimeval(answerWithin.Nanoseconds())
	if err := errors.Join(s.SetSendTimeout(&tv), s.SetReceiveTimeout(&tv)); err != nil {
		s.Close()
		return nil, fmt.Errorf("set netlink timeout: %w", err)
	}
	return &conn{proto: proto, handle: &nl.SocketHandle{Socket: s}, wrote: wrote}, nil
}

func (c *conn) close() {
	if c != nil {
		c.handle.Close()
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
	switch {
	case c.proto != unix.NETLINK_NETFILTER:
		return "bridge nf_call"
	case typ>>8 == unix.NFNL_SUBSYS_IPSET:
		return "ipset members"
	}
	return "conntrack delete"
}

// ask sends a message and hands on the answers as they come; false from each
// ends the handing, not the reading.
func (c *conn) ask(typ int, flags int, payload []byte, each func([]byte) bool) error {
	req := nl.NewNetlinkRequest(typ, flags)
	req.Sockets = map[int]*nl.SocketHandle{c.proto: c.handle}
	req.AddRawData(payload)
	return req.ExecuteIter(c.proto, 0, each)
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
		for len(b) >= unix.SizeofNlAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofNlAttr || n > len(b) {
				return
			}
			typ := binary.NativeEndian.Uint16(b[2:]) & nl.NLA_TYPE_MASK
			if !yield(typ, b[unix.SizeofNlAttr:n]) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

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

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

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
