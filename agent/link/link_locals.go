package link

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// This file reads the link-local addresses of IPv6 that a container has in its namespace. As
// with its MAC, nobody enters the namespace. A container with NET_ADMIN can give itself any
// address: package desired decides which of them count.
//
// The kernel reports changes in all namespaces that have a number here
// (NETLINK_LISTEN_ALL_NSID, Linux 4.2), if the agent holds CAP_NET_BROADCAST. Without it, all
// ports are asked now and then. A container can make such changes all the time. So only a few
// messages are read at a time, and the time that one port costs is limited.

const (
	// MaxLinkLocals is how many link-local addresses of a port count: the oldest ones.
	MaxLinkLocals = 4
	// localsBuffer is how many bytes of messages wait, some 100.
	localsBuffer = 64 << 10
	// localsRest is the pause between two handfuls of messages.
	localsRest = 50 * time.Millisecond
	// localsHandful is how many messages are read at a time.
	localsHandful = 50
	// localsShare 100 limits the time for questions about one port to 1/100, and for all too.
	localsShare = 100
	// localsEvery is how often all ports are asked if the kernel reports no changes.
	// localsSoon is the shortest time between two such rounds after lost messages.
	localsEvery = 5 * time.Second
	localsSoon  = 2 * time.Second
	// localsCalm is how long a port must stay unchanged to be asked without a pause again.
	// localsSlow is the longest pause of a port that changes often.
	localsCalm = 30 * time.Second
	localsSlow = 5 * time.Second

	sizeofNetlinkAddr = 8 // ifaddrmsg
	// ifaTarget is IFA_TARGET_NETNSID (Linux 4.20).
	ifaTarget = 10
	// listenAllNSID is NETLINK_LISTEN_ALL_NSID, strictCheck NETLINK_GET_STRICT_CHK.
	listenAllNSID, strictCheck = 8, 12
	solNetlink                 = 270
)

// LinkLocal is a link-local address that a port's peer has.
type LinkLocal struct {
	Addr netip.Addr
	// Since orders the addresses of all ports by when they were first seen. Addresses
	// with the same number were found together: nobody knows which was first.
	Since uint64
}

// locals asks for the addresses. Its fields are guarded by Table.refresh.
type locals struct {
	ask    *nl.NetlinkSocket // nil where the kernel does not tell
	events *nl.NetlinkSocket // nil without the right to hear them
	found  uint64
	paces  map[int]localsPace
	due    map[int]struct{} // ports that are to be asked about
	// all says that all ports must be asked, not before allNext.
	all     bool
	allNext time.Time
	news    bool // the hint grew
}

// localsPace is when a port may be asked about again.
type localsPace struct {
	next, changed time.Time
	pause         time.Duration
}

// openLocals opens the sockets that the kernel supports.
func (t *Table) openLocals() {
	l := &t.locals
	l.paces, l.due = map[int]localsPace{}, map[int]struct{}{}
	s, err := openSocket()
	if err == nil {
		if err = unix.SetsockoptInt(s.GetFd(), solNetlink, strictCheck, 1); err != nil {
			s.Close()
		}
	}
	if err != nil {
		t.log.Info("link-local addresses of containers are not asked for", "error", err)
		return
	}
	l.ask = s
	if l.events, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV6_IFADDR); err == nil {
		err = errors.Join(unix.SetsockoptInt(l.events.GetFd(), solNetlink, listenAllNSID, 1), filterLocals(l.events.GetFd()),
			unix.SetsockoptInt(l.events.GetFd(), unix.SOL_SOCKET, unix.SO_RCVBUF, localsBuffer))
		if err != nil {
			l.events.Close()
			l.events = nil
		}
	}
	if err != nil {
		t.log.Info("changes of containers' link-local addresses are looked for now and then: CAP_NET_BROADCAST is missing", "error", err)
	}
}

func (t *Table) closeLocals() {
	for _, s := range []*nl.NetlinkSocket{t.locals.ask, t.locals.events} {
		if s != nil {
			s.Close()
		}
	}
}

// filterLocals drops all messages but those about link-local addresses.
func filterLocals(fd int) error {
	return attach(fd, []bpf.Instruction{
		bpf.LoadAbsolute{Off: unix.SizeofNlMsghdr + 3, Size: 1}, // ifaddrmsg.ifa_scope
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.RT_SCOPE_LINK, SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 20},
		bpf.RetConstant{Val: 0},
	})
}

// watchLocals keeps the addresses up to date until ctx ends.
func (t *Table) watchLocals(ctx context.Context, wake func()) {
	l := &t.locals
	if l.ask == nil {
		return
	}
	over, end, err := os.Pipe() // it is closed to end a wait
	if err != nil {
		t.log.Warn("changes of containers' link-local addresses are not heard of", "error", err)
		return
	}
	defer over.Close()
	stop := context.AfterFunc(ctx, func() { _ = end.Close() })
	defer func() {
		if stop() {
			_ = end.Close()
		}
	}()
	for ctx.Err() == nil {
		wait := t.hearLocals(int(over.Fd()))
		if t.askDue(time.Now()) {
			wake()
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// hearLocals reads the messages that are there. If there are none, it waits for one. It gives
// how long to rest afterwards.
func (t *Table) hearLocals(over int) time.Duration {
	l := &t.locals
	if l.events == nil {
		return t.unheard()
	}
	fd := l.events.GetFd()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(over)}}, t.localsPatience())
	switch {
	case err != nil && !errors.Is(err, unix.EINTR): // perhaps for good
		return t.unheard()
	case n == 0 || err != nil:
		return 0
	}
	buf, oob := make([]byte, 16<<10), make([]byte, 64)
	for range localsHandful {
		n, oobn, _, from, err := unix.Recvmsg(fd, buf, oob, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.ENOBUFS) {
			t.refresh.Lock()
			l.all = true
			t.refresh.Unlock()
			continue
		}
		if err != nil {
			break
		}
		if k, ok := from.(*unix.SockaddrNetlink); ok && k.Pid == 0 {
			t.heardLocal(buf[:n], oob[:oobn])
		}
	}
	return localsRest
}

// unheard makes all ports be asked, because changes are not heard of.
func (t *Table) unheard() time.Duration {
	t.refresh.Lock()
	defer t.refresh.Unlock()
	t.locals.all = true
	return time.Second
}

// localsPatience is how long to wait for a message, in milliseconds: a second while a port waits
// for its question, else without an end. Only the goroutine that calls localsPatience makes
// ports wait. If Watch finds other addresses, it calls wake itself.
func (t *Table) localsPatience() int {
	t.refresh.Lock()
	defer t.refresh.Unlock()
	if t.locals.all || len(t.locals.due) > 0 || t.locals.news {
		return 1000
	}
	return -1
}

// heardLocal finds the port that a message is about, and asks about it.
func (t *Table) heardLocal(message, oob []byte) {
	if len(message) < unix.SizeofNlMsghdr+sizeofNetlinkAddr {
		return
	}
	index := int(binary.NativeEndian.Uint32(message[unix.SizeofNlMsghdr+4:]))
	control, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for _, c := range control {
		if c.Header.Level != solNetlink || c.Header.Type != listenAllNSID || len(c.Data) < 4 {
			continue
		}
		nsid := int(int32(binary.NativeEndian.Uint32(c.Data)))
		t.refresh.Lock()
		t.mu.Lock()
		for _, v := range t.veths {
			if v.NSID == nsid && v.PeerIndex == index {
				t.locals.due[v.Index] = struct{}{}
			}
		}
		t.mu.Unlock()
		// Ask at once, in the order of the messages: if two ports take one address, the
		// first one has it.
		t.askNow(time.Now())
		t.refresh.Unlock()
	}
}

// askDue asks about the ports that are due, and tells whether the hint grew.
func (t *Table) askDue(now time.Time) bool {
	t.refresh.Lock()
	defer t.refresh.Unlock()
	t.askNow(now)
	l := &t.locals
	if l.all && !now.Before(l.allNext) {
		l.all = false
		l.found++
		for _, index := range t.indexes() {
			t.askLocals(index, l.found)
		}
		clear(l.due)
		rest := localsSoon
		if l.events == nil {
			rest = localsEvery
		}
		l.allNext = now.Add(max(rest, localsShare*time.Since(now)))
	}
	news := l.news
	l.news = false
	return news
}

func (t *Table) indexes() []int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.veths))
}

// askNow asks about the ports that are due, without those that were asked a moment ago.
// The caller holds t.refresh.
func (t *Table) askNow(now time.Time) {
	l := &t.locals
	for index := range l.due {
		p := l.paces[index]
		if now.Before(p.next) {
			continue
		}
		delete(l.due, index)
		l.found++
		changed := t.askLocals(index, l.found)
		// A port whose addresses change all the time is asked less and less often.
		switch {
		case now.Sub(p.changed) > localsCalm:
			p.pause = 0
		case changed:
			p.pause = min(max(2*p.pause, localsRest), localsSlow)
		}
		if changed {
			p.changed = now
		}
		p.next = now.Add(max(p.pause, localsShare*time.Since(now)))
		l.paces[index] = p
	}
}
