package link

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// MAC is an address of Ethernet.
type MAC [6]byte

// Neighbour identifies a neighbour entry of the host.
type Neighbour struct {
	Link int // ifindex
	Addr netip.Addr
}

const (
	sizeofNdMsg = 12
	sizeofIfa   = 8
	// ndaProtocol is NDA_PROTOCOL (Linux 5.0): who put an entry there.
	ndaProtocol = 12
)

// followNeighbours adds messages about FDB and neighbour entries, and about addresses, to a
// subscription.
//
// A container can make a bridge learn half a million MACs a second, and the host's own
// neighbours come and go all the time. A filter in the kernel drops the messages about both.
// It lets pass FDB entries that somebody added by hand, and neighbour entries that say which
// program added them.
func followNeighbours(s *nl.NetlinkSocket) error {
	if err := filter(s, nil, nil); err != nil {
		return err
	}
	for _, group := range []int{unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR} {
		if err := unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return fmt.Errorf("subscribe to group %d: %w", group, err)
		}
	}
	return nil
}

// filter makes the kernel drop messages that nobody needs: those that ofInterest leaves out,
// RTM_NEWLINK of muted links, and messages about queues that this program's own sockets cause.
func filter(s *nl.NetlinkSocket, muted map[int]struct{}, own []uint32) error {
	return attach(s.GetFd(), slices.Concat(silence(muted), ignore(own), ofInterest()))
}

// queueMessages are the types of messages about queues, classes and filters.
var queueMessages = []uint16{unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_NEWTCLASS, unix.RTM_DELTCLASS,
	unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER}

// ignore is the part of the filter that drops messages which own sockets cause.
func ignore(own []uint32) []bpf.Instruction {
	if len(own) == 0 {
		return nil
	}
	out := []bpf.Instruction{bpf.LoadAbsolute{Off: 4, Size: 2}} // nlmsghdr.nlmsg_type
	for i, typ := range queueMessages {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: swapped(typ), SkipTrue: uint8(len(queueMessages) - i)})
	}
	out = append(out, bpf.Jump{Skip: uint32(1 + 2*len(own))},
		bpf.LoadAbsolute{Off: 12, Size: 4}) // nlmsghdr.nlmsg_pid
	for _, socket := range own {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: swapped32(socket), SkipTrue: 1}, bpf.RetConstant{Val: 0})
	}
	return out
}

// swapped32 is a word of the host's order as the filter loads it.
func swapped32(n uint32) uint32 {
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, n))
}

// attach gives a socket a filter of classic BPF.
func attach(fd int, filter []bpf.Instruction) error {
	program, err := bpf.Assemble(filter)
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	code := make([]unix.SockFilter, len(program))
	for i, c := range program {
		code[i] = unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

// silence is the part of the filter that drops messages about muted links.
func silence(muted map[int]struct{}) []bpf.Instruction {
	if len(muted) == 0 {
		return nil
	}
	out := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2}, // nlmsghdr.nlmsg_type
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: swapped(unix.RTM_NEWLINK), SkipTrue: 1},
		bpf.Jump{Skip: uint32(1 + 2*len(muted))},
		bpf.LoadAbsolute{Off: unix.SizeofNlMsghdr + 4, Size: 4}, // ifinfomsg.ifi_index
	}
	for index := range muted {
		out = append(out,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: swapped32(uint32(index)), SkipTrue: 1},
			bpf.RetConstant{Val: 0})
	}
	return out
}

// ofInterest is the last part of the filter; see followNeighbours. To a filter, each message of
// rtnetlink is one packet.
func ofInterest() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2}, // nlmsghdr.nlmsg_type
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: swapped(unix.RTM_NEWNEIGH), SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: swapped(unix.RTM_DELNEIGH), SkipTrue: 8},
		bpf.LoadAbsolute{Off: unix.SizeofNlMsghdr, Size: 1}, // ndmsg.ndm_family
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_BRIDGE, SkipTrue: 2},
		bpf.LoadAbsolute{Off: unix.SizeofNlMsghdr + 8, Size: 2}, // ndmsg.ndm_state
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: swapped(unix.NUD_NOARP | unix.NUD_PERMANENT), SkipTrue: 4, SkipFalse: 5},
		bpf.LoadConstant{Dst: bpf.RegX, Val: ndaProtocol},
		bpf.LoadConstant{Dst: bpf.RegA, Val: unix.SizeofNlMsghdr + sizeofNdMsg},
		bpf.LoadExtension{Num: bpf.ExtNetlinkAttr}, // its offset, or 0
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 20},
		bpf.RetConstant{Val: 0},
	}
}

// swapped is a 16-bit number of the machine's as the filter loads it: big endian.
func swapped(v uint16) uint32 {
	return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v)))
}

// neighbour adds an FDB or neighbour entry that changed to the hint, and tells whether the
// hint grew.
func (t *Table) neighbour(m syscall.NetlinkMessage) bool {
	if len(m.Data) < sizeofNdMsg {
		return false
	}
	index := int(int32(binary.NativeEndian.Uint32(m.Data[4:])))
	if !t.known(index) {
		return false
	}
	attrs, err := nl.ParseRouteAttr(m.Data[sizeofNdMsg:])
	if err != nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range attrs {
		switch {
		case m.Data[0] == unix.AF_BRIDGE && a.Attr.Type == unix.NDA_LLADDR && len(a.Value) == len(MAC{}):
			t.hint.addMAC(MAC(a.Value))
			return true
		case m.Data[0] != unix.AF_BRIDGE && a.Attr.Type == unix.NDA_DST:
			if addr, ok := netip.AddrFromSlice(a.Value); ok {
				t.hint.addNeighbour(Neighbour{index, addr})
				return true
			}
		}
	}
	return false
}

// address adds a bridge whose addresses changed to the hint.
func (t *Table) address(m syscall.NetlinkMessage) bool {
	if len(m.Data) < sizeofIfa {
		return false
	}
	index := int(int32(binary.NativeEndian.Uint32(m.Data[4:])))
	t.mu.Lock()
	_, bridge := t.bridges[index]
	t.mu.Unlock()
	return bridge && t.mark(index)
}
