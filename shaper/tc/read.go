package tc

import (
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"netguard/internal/netlinkattr"
	"netguard/shaper"
)

// Attribute numbers of include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls}.h.
// Reading is done here and not with go-tc, whose dumps fail as a whole when any
// device of the host has a qdisc that it does not know.
const (
	tcaKind    = 1
	tcaOptions = 2
	tcaStats2  = 7

	statsBasic   = 1
	statsQueue   = 3
	statsPackets = 8

	htbParms, htbInit, htbDirectQlen, htbRate64, htbCeil64 = 1, 2, 5, 6, 7
	tbfParms, tbfRate64                                    = 1, 4
	codelTarget, codelLimit, codelInterval                 = 1, 2, 3
	codelQuantum, codelMemory                              = 6, 9

	bpfAct      = 1
	actOption   = 2
	mirredParms = 2
)

// sizeofTcMsg is the size of struct tcmsg.
const sizeofTcMsg = 20

// message is one answer of a tc dump.
type message struct {
	ifindex              int
	handle, parent, info uint32
	kind                 string
	options, stats       []byte
}

// dump asks for all objects of a type. The kernel lists qdiscs of every device
// (it has no filter for them), classes and filters of just the one named.
func (d *Driver) dump(typ uint16, ifindex int, parent uint32) (out []message, err error) {
	var kept store
	if typ == unix.RTM_GETQDISC { // as many as last time, in one piece
		out = make([]message, 0, d.listed)
		defer func() { d.listed = len(out) }()
	}
	err = d.conn.Execute(typ, netlink.Dump, words(0, uint32(ifindex), 0, parent, 0), func(data []byte) error {
		m, err := kept.parse(data)
		out = append(out, m)
		return err
	})
	return out, err
}

// qdiscsAt asks for the qdiscs of a device that stand under some parents. If a parent has no
// qdisc, or the kernel's own default, the kernel gives no answer for it.
func (d *Driver) qdiscsAt(ifindex int, parents ...uint32) (out []message, err error) {
	if len(parents) == 0 {
		return nil, nil
	}
	messages := make([]netlink.Message, len(parents))
	for i, parent := range parents {
		// Without Echo the kernel would answer to the listeners of the host alone.
		messages[i] = netlink.Message{Header: netlink.Header{Type: unix.RTM_GETQDISC, Flags: netlink.Request | netlink.Echo},
			Data: words(0, uint32(ifindex), 0, parent, 0)}
	}
	var fault error
	var kept store
	for some := range slices.Chunk(messages, batchSize) {
		err := d.conn.Exchange(some, func(data []byte) error {
			m, err := kept.parse(data)
			out = append(out, m)
			return err
		}, func(_ int, err error) {
			if !gone(err) {
				fault = err
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, fault
}

// store keeps copies of the bytes of messages, of some thousand messages in a few pieces of
// memory.
type store struct {
	free []byte
	size int // of the last piece
}

const smallestPiece, largestPiece = 1 << 10, 64 << 10

func (s *store) keep(b []byte) []byte {
	if s.free == nil || len(b) > len(s.free) {
		s.size = min(max(2*s.size, smallestPiece), largestPiece)
		s.free = make([]byte, max(s.size, len(b)))
	}
	kept := s.free[:copy(s.free, b):len(b)]
	s.free = s.free[len(b):]
	return kept
}

// kinds are the usual kinds of qdiscs and filters. parse takes these strings and makes no new
// ones.
var kinds = map[string]string{}

func init() {
	for _, kind := range []string{"htb", "tbf", "bfifo", "sfq", "fq_codel", "ingress", "clsact", "noqueue", "bpf"} {
		kinds[kind+"\x00"] = kind
	}
}

// parse reads a message. It copies what it keeps of data.
func (s *store) parse(data []byte) (message, error) {
	if len(data) < sizeofTcMsg {
		return message{}, fmt.Errorf("parse tc message: %d bytes are too few", len(data))
	}
	m := message{
		ifindex: int(int32(netlinkOrder.Uint32(data[4:]))),
		handle:  netlinkOrder.Uint32(data[8:]),
		parent:  netlinkOrder.Uint32(data[12:]),
		info:    netlinkOrder.Uint32(data[16:]),
	}
	err := attributes(data[sizeofTcMsg:], func(typ uint16, b []byte) error {
		switch typ {
		case tcaKind:
			if m.kind = kinds[string(b)]; m.kind == "" {
				m.kind = text(b)
			}
		case tcaOptions:
			m.options = s.keep(b)
		case tcaStats2:
			m.stats = s.keep(b)
		}
		return nil
	})
	return m, err
}

// attributes calls each for each attribute. What it gets is part of data.
func attributes(data []byte, each func(uint16, []byte) error) error {
	err := netlinkattr.Walk(data, func(typ uint16, _, value []byte) error { return each(typ, value) })
	if err != nil {
		return fmt.Errorf("parse tc attributes: %w", err)
	}
	return nil
}

// u32 reads the word at an offset of a structure, zero where it is too short.
func u32(b []byte, at int) uint32 {
	if len(b) < at+4 {
		return 0
	}
	return netlinkOrder.Uint32(b[at:])
}

// qdiscs are the qdiscs of every device of the namespace, by ifindex.
type qdiscs map[int][]message

func (d *Driver) qdiscs() (qdiscs, error) {
	all, err := d.dump(unix.RTM_GETQDISC, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	out := qdiscs{}
	for len(all) > 0 { // those of a device come one after the other
		dev, n := all[0].ifindex, 1
		for n < len(all) && all[n].ifindex == dev {
			n++
		}
		if out[dev] == nil {
			out[dev] = all[:n:n]
		} else {
			out[dev] = append(out[dev], all[:n]...)
		}
		all = all[n:]
	}
	return out, nil
}

func classOf(m message) (shaper.Class, error) {
	c := shaper.Class{Minor: uint16(m.handle)}
	if m.parent != rootParent {
		c.Parent = uint16(m.parent)
	}
	err := attributes(m.options, func(typ uint16, b []byte) error {
		switch typ {
		case htbParms: // struct tc_htb_opt: two tc_ratespec of 12 bytes, then words
			c.Rate, c.Ceil = max(c.Rate, uint64(u32(b, 8))), max(c.Ceil, uint64(u32(b, 20)))
			c.Burst, c.Cburst, c.Quantum, c.Prio = u32(b, 24), u32(b, 28), u32(b, 32), u32(b, 40)
		case htbRate64:
			c.Rate = netlinkOrder.Uint64(b)
		case htbCeil64:
			c.Ceil = netlinkOrder.Uint64(b)
		}
		return nil
	})
	return c, err
}

func queueOf(m message) (shaper.Queue, error) {
	q := shaper.Queue{Class: uint16(m.parent), Kind: m.kind}
	switch m.kind {
	case "sfq": // struct tc_sfq_qopt
		q.Quantum, q.Limit = u32(m.options, 0), u32(m.options, 8)
		return q, nil
	case "bfifo": // struct tc_fifo_qopt
		q.Limit = u32(m.options, 0)
		return q, nil
	case "tbf", "fq_codel":
	default:
		return q, nil
	}
	err := attributes(m.options, func(typ uint16, b []byte) error {
		switch {
		case m.kind == "tbf" && typ == tbfParms: // struct tc_tbf_qopt
			q.Rate, q.Limit, q.Buffer = max(q.Rate, uint64(u32(b, 8))), u32(b, 24), u32(b, 28)
		case m.kind == "tbf" && typ == tbfRate64:
			q.Rate = netlinkOrder.Uint64(b)
		case m.kind == "fq_codel" && typ == codelTarget:
			q.Target = u32(b, 0)
		case m.kind == "fq_codel" && typ == codelLimit:
			q.Limit = u32(b, 0)
		case m.kind == "fq_codel" && typ == codelInterval:
			q.Interval = u32(b, 0)
		}
		return nil
	})
	return q, err
}

// redirectOf gives the device that a filter's action redirects to.
func redirectOf(m message) (target int, err error) {
	if m.kind != "bpf" || m.options == nil {
		return 0, nil
	}
	err = attributes(m.options, func(typ uint16, b []byte) error {
		if typ != bpfAct {
			return nil
		}
		return attributes(b, func(_ uint16, act []byte) error {
			return attributes(act, func(typ uint16, b []byte) error {
				if typ != actOption {
					return nil
				}
				return attributes(b, func(typ uint16, b []byte) error {
					if typ == mirredParms { // struct tc_mirred: tc_gen of 5 words, eaction, ifindex
						target = int(u32(b, 24))
					}
					return nil
				})
			})
		})
	})
	return target, err
}
