package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// chunkSize is how many connections of a list are handed over, and end, at a time.
const chunkSize = 256

// listing is a list of connections that a goroutine of its own takes. It only finds the
// connections that may have to end. The driver judges and deletes them, by the rules that are in
// force then.
type listing struct {
	due                   touched
	old                   map[netip.Addr]bool
	containers, addresses families // containers' addresses and their subnets, when it began
	away                  []netip.Prefix
	wake                  func()
	cancel                func()

	// chunks are the connections. When it is closed, err and vacancy are complete.
	chunks  chan []entry
	err     error
	vacancy vacancy

	// The rest is the driver's.
	asked   bool // about notes
	routine bool // no change, and no late answer, asked for this list
	report  CutReport
	fault   error // that makes the whole list fail
	remain  *RemainError
	full    bool
	cutter  *cutter
	// gone and stale are what happened since the list began: containers left the addresses, and
	// packets may have passed uncounted.
	gone  map[netip.Addr]bool
	stale bool
}

// listConnections begins to list connections that are due, if there can be any.
func (d *Driver) listConnections(ctx context.Context, l *listing, due touched) (err error) {
	if due, err = d.skip(due); err != nil {
		return err
	}
	l.due, l.containers, l.addresses = due, d.denied, d.subnets
	if d.wish != nil {
		l.away = d.wish.Away
	}
	if !due.any() && len(l.old) == 0 {
		close(l.chunks)
		return nil
	}
	requests, whole := due.lists(l.old)
	if whole && d.settled {
		l.vacancy = vacancy{known: true, used: map[netip.Addr]bool{}}
		if l.vacancy.packets, err = d.vacantPackets(); err != nil {
			return err
		}
	}
	// The list has its own socket, so nothing else meets the rest of an unfinished list. The
	// socket is of the caller's network namespace.
	socket, err := dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	l.report.Listed = true
	ctx, l.cancel = context.WithCancel(ctx)
	go func() {
		defer l.wake()
		defer close(l.chunks)
		defer socket.close()
		l.err = l.read(ctx, socket, requests)
	}()
	return nil
}

// read hands over the connections that may have to end.
func (l *listing) read(ctx context.Context, socket *conn, requests [][]byte) error {
	var chunk []entry
	hand := func() {
		select {
		case l.chunks <- chunk:
			l.wake()
		case <-ctx.Done():
		}
		chunk = nil
	}
	for _, request := range requests {
		err := socket.dump(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_GET, request, func() {}, func(m []byte) bool {
			e, ok := parseEntry(m)
			switch {
			case !ok:
			case l.ended(e), l.concerns(e):
				if chunk = append(chunk, e.kept()); len(chunk) == chunkSize {
					hand()
				}
			}
			if ok && !l.ended(e) {
				l.occupy(e)
			}
			return ctx.Err() == nil
		})
		if errors.Is(err, nl.ErrDumpInterrupted) {
			l.vacancy.known, err = false, nil
		}
		if err := errors.Join(ctx.Err(), err); err != nil {
			return fmt.Errorf("list connections: %w", err)
		}
	}
	if len(chunk) > 0 {
		hand()
	}
	return ctx.Err()
}

// ended tells whether a connection has an address that a container left.
func (l *listing) ended(e entry) bool {
	return len(l.old) > 0 && slices.ContainsFunc(e.addrs(), func(a netip.Addr) bool { return l.old[a] })
}

// concerns tells whether a container is at an end, and whether the connection is due.
func (l *listing) concerns(e entry) bool {
	return l.due.about(e) && slices.ContainsFunc(e.addrs(), func(a netip.Addr) bool {
		return l.containers.has(a) || slices.ContainsFunc(l.away, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// finish keeps what a list found.
func (d *Driver) finish(l *listing) error {
	if l.cancel != nil {
		l.cancel()
	}
	maps.Copy(d.gone, l.gone) // notes may have been made after Apply forgot those about them
	if err := errors.Join(l.fault, l.err); err != nil {
		return err
	}
	if l.full {
		l.remain = l.remain.and(fmt.Errorf("note cut connections: %w: their servers may go on until they fall silent", ErrSetFull))
	}
	var remain map[netip.Addr]bool
	if l.remain != nil {
		remain = l.remain.Addrs
	}
	if l.vacancy.known {
		d.vacancy = l.vacancy
		maps.Copy(d.vacancy.used, remain)
		d.vacancy.known = !l.stale && len(d.vacancy.used) <= maxUsed
	}
	for a := range l.old {
		if !remain[a] {
			delete(d.vacancy.used, a)
		}
	}
	for a := range l.gone {
		if d.vacancy.used != nil {
			d.vacancy.used[a] = true
		}
	}
	if err := d.forget(); err != nil || l.remain == nil {
		return err
	}
	return l.remain
}
