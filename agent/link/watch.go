package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch fills the table and keeps it up to date until ctx ends; then it returns
// ctx's error. It calls wake, which must not block, each time the hint grew: the
// first time when the table is complete. Any other error means that netlink
// itself failed. It can be run once.
func (t *Table) Watch(ctx context.Context, wake func()) error {
	// Closing the socket is what ends a blocked read.
	stop := context.AfterFunc(ctx, t.events.Close)
	defer stop()
	if err := t.list(ctx); err != nil {
		return err
	}
	wake()
	heard := make(chan struct{})
	// The loop asks ctx and not hearing: hearing may end later, when the socket is closed already.
	hearing, cancel := context.WithCancel(ctx)
	go func() { t.watchLocals(hearing, wake); close(heard) }()
	defer func() { cancel(); <-heard }()
	for {
		t.patience(time.Now())
		messages, from, err := t.events.Receive()
		if t.catchUp(time.Now()) {
			wake()
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			t.log.Warn("netlink messages were lost; listing all links again")
			if err := t.list(ctx); err != nil {
				return err
			}
			wake()
			continue
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return fmt.Errorf("receive link messages: %w", err)
		case from.Pid != nl.PidKernel:
			continue
		}
		dirty := false
		for _, m := range messages {
			dirty = t.message(m) || dirty
		}
		if dirty {
			wake()
		}
	}
}

// list reads all links and replaces the table by them.
func (t *Table) list(ctx context.Context) error {
	t.refresh.Lock()
	defer t.refresh.Unlock()
	var links []netlink.Link
	var err error
	// A dump during which links came or went says that it may have holes.
	// After some tries its answer is used all the same: the messages about
	// those changes wait in the subscription.
	for range 5 {
		links, err = t.ask.LinkList()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || ctx.Err() != nil {
			break
		}
	}
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list links: %w", err)
	}
	interrupted := err != nil
	t.mu.Lock()
	here := make(map[int]struct{}, len(links))
	for _, l := range links {
		a := l.Attrs()
		here[a.Index] = struct{}{}
		// A veth may have gone unseen, and another one may have its index now.
		// Then the host's end has another MAC, which no container can
		// change.
		if v, ok := t.veths[a.Index]; ok && !bytes.Equal(v.MAC, a.HardwareAddr) {
			t.drop(a.Index)
		}
	}
	if !interrupted {
		for index := range t.veths {
			if _, ok := here[index]; !ok {
				t.drop(index)
			}
		}
	}
	t.touchAll()
	clear(t.bridges)
	clear(t.ifbs)
	clear(t.devices)
	clear(t.peers)
	clear(t.heard)
	t.pace.keep(here)
	t.hint.all()
	t.mu.Unlock()
	for _, l := range links {
		t.store(l)
	}
	t.locals.found++
	t.listing = true // all addresses found now get one number: nobody knows which was first
	for _, l := range links {
		t.pin(l.Attrs().Index)
	}
	t.listing = false
	return nil
}

// message handles one message, and tells whether the hint grew.
func (t *Table) message(m syscall.NetlinkMessage) bool {
	t.refresh.Lock()
	defer t.refresh.Unlock()
	switch m.Header.Type {
	case unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_NEWTCLASS, unix.RTM_DELTCLASS,
		unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER:
		if len(m.Data) < nl.SizeofTcMsg || slices.Contains(t.own, m.Header.Pid) {
			return false
		}
		return t.mark(int(nl.DeserializeTcMsg(m.Data).Ifindex))
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return t.neighbour(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return t.address(m)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
	default:
		return false
	}
	if len(m.Data) < unix.SizeofIfInfomsg {
		return false
	}
	grew := t.linkMessage(m)
	if m.Header.Type == unix.RTM_NEWLINK {
		index := int(nl.DeserializeIfInfomsg(m.Data).Index)
		_, veth, pinned := t.standing(index)
		if t.flood.heard(index, grew || veth && !pinned, time.Now()) {
			t.mute(index)
		}
	}
	return grew
}

// linkMessage handles a message about a link, and tells whether the hint grew.
func (t *Table) linkMessage(m syscall.NetlinkMessage) bool {
	info := nl.DeserializeIfInfomsg(m.Data)
	index := int(info.Index)
	known, veth, pinned := t.standing(index)
	same := m.Header.Type == unix.RTM_NEWLINK && known && t.same(m, index)
	if info.Family == unix.AF_BRIDGE {
		// A bridge port's flags. Master and carrier come in a message
		// of their own.
		return known && !same && t.mark(index)
	}
	if same && (!veth || pinned) {
		return false
	}
	l, err := netlink.LinkDeserialize((*unix.NlMsghdr)(&m.Header), m.Data)
	switch {
	case err != nil:
		t.log.Warn("link message cannot be read", "ifindex", index, "error", err)
	case !t.watched(l):
		return false
	}
	if m.Header.Type == unix.RTM_DELLINK {
		return t.removed(index)
	}
	if veth && !t.pace.now(index, time.Now()) {
		return false
	}
	t.follow(index)
	return t.mark(index)
}

// removed takes a link out, unless another link has its index by now. If the link was the
// other end of a port, it moved to another namespace. The kernel sends no message about the
// port then, until the carrier comes up. So the port is read again.
func (t *Table) removed(index int) bool {
	t.mu.Lock()
	port, isPeer := t.peers[index]
	t.mu.Unlock()
	was := t.remove(index)
	t.follow(index)
	if isPeer {
		t.follow(port)
		was = t.mark(port)
	}
	return was
}

// reread asks for a link and stores the answer. A message is only a reason to ask: messages
// from before a list arrive after it, and their content is old.
func (t *Table) reread(index int) error {
	l, err := t.ask.LinkByIndex(index)
	var gone netlink.LinkNotFoundError
	switch {
	case errors.As(err, &gone):
		t.remove(index)
		return nil
	case err != nil:
		return err
	}
	t.store(l)
	t.pin(index)
	return nil
}

// follow is reread for messages. If the link cannot be read, the hint says that everything must
// be looked at. The link is read again a moment later: no other message about it may come.
func (t *Table) follow(index int) {
	if err := t.reread(index); err != nil {
		t.log.Warn("link cannot be read", "ifindex", index, "error", err)
		t.pace.wait(index, time.Now())
		t.mu.Lock()
		t.hint.all()
		t.mu.Unlock()
	}
}

// remove takes a link out of the table and says whether it was in it. The caller holds
// t.refresh.
func (t *Table) remove(index int) bool {
	was := t.known(index)
	t.unmuteGone(index)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(index)
	if _, bridge := t.bridges[index]; bridge {
		t.touchAll()
	}
	delete(t.bridges, index)
	delete(t.ifbs, index)
	delete(t.devices, index)
	delete(t.peers, index)
	delete(t.heard, index)
	t.pace.forget(index)
	if was {
		t.hint.add(index)
	}
	return was
}

// pin asks for the MAC of a veth's peer, unless it is pinned, and pins it if it
// is final.
func (t *Table) pin(index int) {
	t.mu.Lock()
	v, ok := t.veths[index]
	if !ok || v.Pinned || v.NSID < 0 || v.PeerIndex == 0 || v.Master == 0 {
		t.mu.Unlock()
		return
	}
	peer, nsid := v.PeerIndex, v.NSID
	t.mu.Unlock()
	mac, up, err := t.peer(index, peer, nsid)
	if err != nil {
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) { // the kernel did not answer
			t.pace.wait(index, time.Now())
		}
		// Otherwise the peer is on its way out or elsewhere; the message about
		// that follows.
		t.log.Debug("peer of a bridge port is not to be had", "ifindex", index, "error", err)
		return
	}
	t.mu.Lock()
	v.PeerMAC, v.Pinned = mac, up
	t.touch(index)
	t.mu.Unlock()
	if up && t.locals.ask != nil {
		if !t.listing {
			t.locals.found++
		}
		t.askLocals(index, t.locals.found)
	}
}

func (t *Table) mark(index int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hint.add(index)
	return true
}
