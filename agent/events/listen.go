// Package events reads refused packets from the kernel while they are refused, and gives events
// to watchers.
//
// The kernel hands the beginnings of a few refused packets to a group of nfnetlink_log. A
// Listener reads them, Sample tells what such a packet claims, and a Hub gives events to
// watchers. Memory is bounded everywhere: packets wait in the socket's buffer, and events in a
// watcher's queue. If there is no room, they are only counted.
//
// Anybody may have written the packets. What the package tells of them is only addresses,
// numbers and its own words.
package events

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes and values of linux/netfilter/nfnetlink_log.h.
const (
	msgPacket, msgConfig = 0, 1

	configCommand, configMode, configThreshold, configFlags = 1, 2, 5, 6

	commandBind      = 1
	copyPacket       = 2
	flagSequence     = 1
	attrIn           = 4
	attrOut          = 5
	attrPortIn       = 6
	attrPortOut      = 7
	attrPayload      = 9
	attrPrefix       = 10
	attrSequence     = 12
	attrHeader       = 16
	attrVLAN         = 20
	attrLink         = 21
	vlanProto        = 1
	vlanTag          = 2
	subsystem        = unix.NFNL_SUBSYS_ULOG << 8
	familyHeaderSize = 4
)

const (
	// snap is how many bytes of a packet are looked at.
	snap = 128
	// buffer holds some thousand samples: more than come in a second.
	buffer = 1 << 20
	// patience is how long the kernel may take to answer.
	patience = 5 * time.Second
)

// ErrGroupTaken says that another program listens to the group.
var ErrGroupTaken = errors.New("another program listens there: is a second agent running?")

// Listener reads what the kernel hands to one group of nfnetlink_log, in the
// network namespace that it was opened in. It asks for nothing but the group: the
// sysctls net.netfilter.nf_log stay as they are.
type Listener struct {
	conn *netlink.Conn
	lost atomic.Uint64
	next uint32 // the sequence number that comes next
	any  bool   // one came
}

// Listen opens a group. The error is ErrGroupTaken if somebody else has it.
func Listen(group uint16) (*Listener, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open netlink for nfnetlink_log: %w", err)
	}
	l := &Listener{conn: conn}
	// A smaller buffer loses samples and nothing else.
	_ = conn.SetReadBuffer(buffer)
	if err := l.bind(group); err != nil {
		_ = conn.Close()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
			err = ErrGroupTaken
		}
		return nil, fmt.Errorf("listen to group %d of nfnetlink_log: %w", group, err)
	}
	return l, nil
}

// bind sends all settings in one message: samples begin to come with it.
func (l *Listener) bind(group uint16) error {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Bytes(configCommand, []byte{commandBind})
	ae.Bytes(configMode, []byte{0, 0, 0, snap, copyPacket, 0})
	ae.Uint32(configThreshold, 1) // at once
	ae.Uint16(configFlags, flagSequence)
	attrs, err := ae.Encode()
	if err != nil {
		return err
	}
	header := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, group)
	if err := l.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	sent, err := l.conn.Send(netlink.Message{
		Header: netlink.Header{Type: subsystem | msgConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(header, attrs...),
	})
	if err != nil {
		return err
	}
	for {
		answers, err := l.conn.Receive()
		if err != nil {
			return err
		}
		for _, a := range answers { // the first samples may stand before it
			if a.Header.Type == netlink.Error && a.Header.Sequence == sent.Header.Sequence {
				return l.conn.SetDeadline(time.Time{})
			}
		}
	}
}

// Run gives each sample to f until ctx ends, and closes the listener. f must not use a sample
// after it has returned.
func (l *Listener) Run(ctx context.Context, f func(Sample)) error {
	defer l.conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		messages, err := l.conn.Receive()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			continue // the sequence numbers tell how many
		case err != nil:
			return fmt.Errorf("read nfnetlink_log: %w", err)
		}
		for _, m := range messages {
			if m.Header.Type != subsystem|msgPacket {
				continue
			}
			s, err := parseSample(m.Data)
			if err != nil {
				l.lost.Add(1)
				continue
			}
			s.Missing = l.count(s.sequence)
			f(s)
		}
	}
}

// count notes how many samples are missing before one.
func (l *Listener) count(sequence uint32) (missing uint64) {
	if gap := sequence - l.next; l.any && gap < 1<<31 {
		missing = uint64(gap)
		l.lost.Add(missing)
	}
	l.any, l.next = true, sequence+1
	return missing
}

// Lost is how many samples were not read: more came at once than there was room
// for.
func (l *Listener) Lost() uint64 { return l.lost.Load() }
