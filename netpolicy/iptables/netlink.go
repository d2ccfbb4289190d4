package iptables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
	"netguard/internal/netlinkattr"
	"netguard/internal/netlinkconn"
)

// answerWithin bounds the wait for the kernel's answer.
const answerWithin = 10 * time.Second

// conn is a netlink socket. It writes many members at a time, and reads long lists without a
// copy.
type conn struct {
	*netlinkconn.Conn
	proto int
	wrote *int // messages that changed something
}

func dial(proto int, wrote *int) (*conn, error) {
	c, err := netlinkconn.Dial(proto, answerWithin)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &conn{c, proto, wrote}, nil
}

func (c *conn) close() {
	if c != nil {
		c.Close()
	}
}

// write sends a message that changes something, and waits for the answer.
func (c *conn) write(typ int, flags int, payload []byte) error {
	*c.wrote++
	return fault.Write(c.name(typ), func() error {
		return c.ask(typ, flags|unix.NLM_F_ACK, payload, func([]byte) bool { return true })
	})
}

// name names a message, for tests that let writes fail.
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

// ask sends a message and hands on the answers as they come. When each gives false, ask reads the
// other answers but hands none on. The bytes that each gets are valid until it returns.
func (c *conn) ask(typ int, flags int, payload []byte, each func([]byte) bool) error {
	more := true
	err := c.Execute(uint16(typ), netlink.HeaderFlags(flags), payload, func(b []byte) error {
		more = more && each(b)
		return nil
	})
	if err == nil && c.Holes {
		return nl.ErrDumpInterrupted
	}
	return err
}

// dump asks for a list. If something changed meanwhile, it asks again.
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

// attrs ranges over the attributes of b, up to the first that is cut off. The type comes without
// the flags for nesting and byte order.
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

// nest appends an attribute with what fill appends. The caller keeps it shorter than the 16 bits
// of its length allow.
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
func word(b []byte) string { return unix.ByteSliceToString(b) }

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
