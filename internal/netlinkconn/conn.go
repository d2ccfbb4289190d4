// Package netlinkconn is a netlink socket that stays open. It reads every answer into one
// buffer, so that long lists make no garbage, and sends many messages at once.
package netlinkconn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"netguard/internal/netlinkattr"
)

const (
	// receiveBuffer holds the answers to the messages that are sent together: the kernel
	// writes all of them before the first is read.
	receiveBuffer = 1 << 20
	// largestAnswer is more than the kernel puts in one packet, which is 32 kB.
	largestAnswer = 64 << 10
)

// Conn is the socket. It is for one goroutine.
type Conn struct {
	// ID is the kernel's number of the socket.
	ID uint32
	// Holes tells that something came or went while the last dump was made.
	Holes bool

	fd      int
	seq     uint32
	in, out []byte
}

// Dial opens a socket of a protocol, such as unix.NETLINK_ROUTE, in the network namespace of
// the thread. It waits for the kernel as long as within says, for ever if that is 0.
func Dial(protocol int, within time.Duration) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := &Conn{fd: fd, in: make([]byte, largestAnswer)}
	if err := c.bind(within); err != nil {
		c.Close()
		return nil, err
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	// With the kernel's own words in errors ("Specified qdisc kind is unknown"), and
	// without the message that was refused.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return c, nil
}

func (c *Conn) bind(within time.Duration) error {
	tv := unix.NsecToTimeval(within.Nanoseconds())
	if err := errors.Join(unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv),
		unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(c.fd)
	if own, ok := name.(*unix.SockaddrNetlink); ok {
		c.ID = own.Pid
	}
	return os.NewSyscallError("getsockname", err)
}

// Strict makes the kernel refuse a filter of a list that it does not understand, instead of
// ignoring the filter (Linux 4.20).
func (c *Conn) Strict() {
	_ = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
}

// Close closes the socket. What was written was answered.
func (c *Conn) Close() { _ = unix.Close(c.fd) }

// Exchange sends messages together and waits until the kernel has tried the last one. It
// calls object for each object in the answers; what object gets is overwritten later. It
// calls refused for each message that the kernel refuses. One that asks for a dump is
// sent alone.
func (c *Conn) Exchange(messages []netlink.Message, object func(data []byte) error, refused func(at int, err error)) error {
	first, last := c.seq+1, c.seq+uint32(len(messages))
	c.out, c.Holes = c.out[:0], false
	for i, m := range messages {
		flags := m.Header.Flags &^ netlink.Acknowledge // a failure is answered all the same
		if i == len(messages)-1 && flags&netlink.Dump != netlink.Dump {
			flags |= netlink.Acknowledge
		}
		c.seq++
		c.out = binary.NativeEndian.AppendUint32(c.out, uint32(unix.SizeofNlMsghdr+len(m.Data)))
		c.out = binary.NativeEndian.AppendUint16(c.out, uint16(m.Header.Type))
		c.out = binary.NativeEndian.AppendUint16(c.out, uint16(flags))
		c.out = binary.NativeEndian.AppendUint32(c.out, c.seq)
		c.out = binary.NativeEndian.AppendUint32(c.out, c.ID)
		c.out = append(c.out, m.Data...)
		c.out = append(c.out, make([]byte, -len(m.Data)&3)...)
	}
	if err := unix.Sendto(c.fd, c.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	var fault error
	for {
		packet, err := c.receive()
		if err != nil {
			return err
		}
		for len(packet) >= unix.SizeofNlMsghdr {
			n, typ, seq := binary.NativeEndian.Uint32(packet), binary.NativeEndian.Uint16(packet[4:]), binary.NativeEndian.Uint32(packet[8:])
			if n < unix.SizeofNlMsghdr || int(n) > len(packet) {
				return fmt.Errorf("parse netlink message: %d bytes of %d", n, len(packet))
			}
			data, flags := packet[unix.SizeofNlMsghdr:n], binary.NativeEndian.Uint16(packet[6:])
			packet = packet[min(len(packet), int(n+3)&^3):]
			if seq-first >= uint32(len(messages)) {
				continue // of an earlier exchange that ended before its time
			}
			c.Holes = c.Holes || flags&unix.NLM_F_DUMP_INTR != 0
			switch typ {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				if err := refusal(typ, flags, data); err != nil {
					refused(int(seq-first), err)
				}
				if seq == last {
					return fault
				}
			case unix.NLMSG_NOOP:
			default:
				if fault == nil {
					fault = object(data)
				}
			}
		}
	}
}

// receive waits for the next packet of the kernel's.
func (c *Conn) receive() ([]byte, error) {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.in, unix.MSG_TRUNC)
		kernel, ok := from.(*unix.SockaddrNetlink)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, os.NewSyscallError("recvfrom", err)
		case !ok || kernel.Pid != 0: // somebody else sent it
		case n > len(c.in):
			return nil, fmt.Errorf("receive netlink message: %d bytes are too many", n)
		default:
			return c.in[:n], nil
		}
	}
}

// refusal reads the kernel's word about a message or a dump; nil if it is fine.
func refusal(typ, flags uint16, data []byte) error {
	if len(data) < 4 {
		return nil // a dump may end so
	}
	code := -int32(binary.NativeEndian.Uint32(data))
	if code == 0 {
		return nil
	}
	errno := unix.Errno(code)
	head := 4
	if typ == unix.NLMSG_ERROR {
		head += unix.SizeofNlMsghdr
	}
	if flags&unix.NLM_F_ACK_TLVS == 0 || len(data) < head {
		return errno
	}
	var words string
	_ = netlinkattr.Walk(data[head:], func(typ uint16, _, b []byte) error {
		if typ == unix.NLMSGERR_ATTR_MSG {
			words = unix.ByteSliceToString(b)
		}
		return nil
	})
	if words == "" {
		return errno
	}
	return fmt.Errorf("%w: %s", errno, words)
}

// Execute sends one message, and calls object for each object of the answer.
func (c *Conn) Execute(typ uint16, flags netlink.HeaderFlags, data []byte, object func(data []byte) error) error {
	var fault error
	err := c.Exchange([]netlink.Message{{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | flags}, Data: data}},
		object, func(_ int, err error) { fault = err })
	if err != nil {
		return err
	}
	return fault
}
