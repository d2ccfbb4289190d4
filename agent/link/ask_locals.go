package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// askLocals asks for the addresses of a port's peer, and tells whether they are others
// than before. The caller holds t.refresh.
func (t *Table) askLocals(index int, since uint64) bool {
	l := &t.locals
	t.mu.Lock()
	v, ok := t.veths[index]
	if !ok || l.ask == nil || v.NSID < 0 || v.PeerIndex == 0 || v.Master == 0 {
		t.mu.Unlock()
		delete(l.paces, index)
		return false
	}
	peer, nsid := v.PeerIndex, v.NSID
	t.mu.Unlock()
	has, err := l.request(peer, nsid)
	if err != nil {
		// The peer is on its way out or elsewhere.
		t.log.Debug("addresses of a bridge port's peer are not to be had", "ifindex", index, "error", err)
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(has, madeOf(v.PeerMAC))
	var now []LinkLocal
	for _, old := range v.LinkLocals {
		if has[old.Addr] {
			now = append(now, old)
			delete(has, old.Addr)
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(has), netip.Addr.Compare) {
		if len(now) < MaxLinkLocals {
			now = append(now, LinkLocal{a, since})
		}
	}
	if slices.Equal(now, v.LinkLocals) {
		return false
	}
	v.LinkLocals = now
	t.touch(v.Index)
	t.hint.add(index)
	l.news = true
	return true
}

// request asks the kernel for the link-local addresses of a peer.
func (l *locals) request(peer, nsid int) (map[netip.Addr]bool, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: l.ask}}
	msg := nl.NewIfAddrmsg(unix.AF_INET6)
	msg.Index = uint32(peer)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(ifaTarget, nl.Uint32Attr(uint32(nsid))))
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return nil, fmt.Errorf("ask for addresses of peer %d in namespace %d: %w", peer, nsid, err)
	}
	out := map[netip.Addr]bool{}
	for _, a := range answers {
		if len(a) < sizeofNetlinkAddr || a[0] != unix.AF_INET6 || a[3] != unix.RT_SCOPE_LINK || int(binary.NativeEndian.Uint32(a[4:])) != peer {
			continue
		}
		var addr netip.Addr
		told := false // the kernel says that the address is in the peer's namespace
		walk(a[sizeofNetlinkAddr:], func(typ uint16, _, value []byte) {
			switch {
			case typ == unix.IFA_ADDRESS && !addr.IsValid(), typ == unix.IFA_LOCAL:
				addr, _ = netip.AddrFromSlice(value)
			case typ == ifaTarget && len(value) == 4:
				told = int(int32(binary.NativeEndian.Uint32(value))) == nsid
			}
		})
		if told && linkLocalNet.Contains(addr) && addr != linkLocalNet.Addr() {
			out[addr] = true
		}
	}
	return out, nil
}

// madeOf gives the link-local address that the kernel makes of a MAC. A container owns this
// address in any case. It comes and goes with the container's link.
func madeOf(mac net.HardwareAddr) netip.Addr {
	if len(mac) != 6 {
		return netip.Addr{}
	}
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

// linkLocalNet is where link-local addresses are (RFC 4291 section 2.5.6).
var linkLocalNet = netip.MustParsePrefix("fe80::/64")
