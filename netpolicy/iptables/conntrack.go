package iptables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// CutReport counts what a call of Cut did.
type CutReport struct {
	Seen int // connections of containers
	Cut  int
	// Allowed are notes of cut connections that policy allows again.
	Allowed int
}

// cutChunk is how many connections are noted and deleted at a time.
const cutChunk = 128

// Cut ends the connections of containers that keep refuses, answers included, and deletes
// the notes of those that keep allows again. It asks keep about each connection with a
// container at an end and, with Flow.Noted, about each note. Call it after Apply, when policy
// allows less than before. Without all it goes over the connections that the changes since
// the last call may concern.
//
// In monitor mode it does nothing.
//
// The kernel's table of connections is never in memory as a whole. After an error the next
// call goes over all connections again.
func (d *Driver) Cut(ctx context.Context, all bool, keep func(Flow) bool) (r CutReport, err error) {
	if d.wish == nil {
		return r, fmt.Errorf("cut connections: %w", ErrNothingApplied)
	}
	if d.options.Monitor {
		d.due = touched{all: true}
		return r, nil
	}
	for _, i := range d.families {
		if err := d.allow(i == 1, keep, &r); err != nil {
			return r, fmt.Errorf("cut connections: %w", err)
		}
	}
	due := d.due
	due.all, d.due = due.all || all, touched{}
	defer func() { d.due.all = d.due.all || err != nil }()
	if len(d.denied[0])+len(d.denied[1]) == 0 || !due.any() {
		return r, nil
	}
	c := &cutter{driver: d, keep: keep, report: &r, due: due, isContainer: d.isContainer,
		neighbours: sync.OnceValue(func() neighbours { return neighboursOf(d.wish.Homes) })}
	if err := c.run(ctx, due.lists()); err != nil {
		return r, fmt.Errorf("cut connections: %w", err)
	}
	return r, nil
}

// End ends all connections with one of the addresses at an end, and counts them. It is for
// addresses of containers that are gone. It makes no notes, because the next container with
// the address may talk to the same peers. In monitor mode it does nothing.
//
// After an error some connections are left. The next call goes over all again.
func (d *Driver) End(ctx context.Context, addrs map[netip.Addr]bool) (int, error) {
	var r CutReport
	if d.options.Monitor || len(addrs) == 0 {
		return 0, nil
	}
	due := touched{addrs: addrs}
	c := &cutter{driver: d, report: &r, due: due, isContainer: func(a netip.Addr) bool { return addrs[a] }, all: true}
	if err := c.run(ctx, due.lists()); err != nil {
		return r.Cut, fmt.Errorf("end connections: %w", err)
	}
	return r.Cut, nil
}

// allow deletes the notes of cut connections that policy allows again.
func (d *Driver) allow(ipv6 bool, keep func(Flow) bool, r *CutReport) error {
	return d.forgetCut(ipv6, func(e element) bool {
		return keep(Flow{Src: netip.AddrPortFrom(e.Prefix.Addr(), 0), Dst: netip.AddrPortFrom(e.second, e.Port),
			Proto: e.Proto, Noted: true})
	}, &r.Allowed)
}

// forget deletes the notes about addresses that no container has any more. They are not
// about the next container with such an address.
func (d *Driver) forget(gone map[netip.Addr]bool) error {
	if len(gone) == 0 {
		return nil
	}
	for _, i := range d.families {
		n := 0
		err := d.forgetCut(i == 1, func(e element) bool { return gone[e.Prefix.Addr()] || gone[e.second] }, &n)
		if err != nil {
			return fmt.Errorf("forget cut connections: %w", err)
		}
	}
	return nil
}

// forgetCut deletes the notes that which chooses, and adds their number to n.
func (d *Driver) forgetCut(ipv6 bool, which func(element) bool, n *int) error {
	spec := cutSet(ipv6, d.cutSeconds())
	h, err := d.sets.header(spec.name)
	if err != nil || h == nil || h.elements == 0 {
		return err
	}
	list, err := d.sets.members(spec.name)
	if err != nil {
		return err
	}
	var out []element
	for _, e := range list {
		if which(e) {
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		return nil
	}
	*n += len(out)
	return d.sets.change(spec, true, out)
}

// cutter goes over the kernel's table of connections once.
type cutter struct {
	driver      *Driver
	keep        func(Flow) bool
	all         bool // each connection of a container ends, unasked and unnoted
	report      *CutReport
	due         touched
	neighbours  func() neighbours
	isContainer func(netip.Addr) bool
	remove      *conn
	chunk       []entry
	err         error
	full        bool
}

func (c *cutter) run(ctx context.Context, lists [][]byte) error {
	// One socket reads while the other deletes. The reading socket is of this call alone, so
	// that no later call meets the rest of an unfinished list.
	list, err := dial(unix.NETLINK_NETFILTER, &c.driver.wrote)
	if err != nil {
		return err
	}
	defer list.close()
	if c.remove, err = dial(unix.NETLINK_NETFILTER, &c.driver.wrote); err != nil {
		return err
	}
	defer c.remove.close()
	for _, request := range lists {
		err = list.dump(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_GET, request, func() {}, func(m []byte) bool {
			if c.err == nil {
				c.err = ctx.Err()
			}
			if c.err == nil {
				c.look(m)
			}
			return c.err == nil
		})
		if c.err == nil {
			c.flush()
		}
		if c.err != nil || err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	if c.full {
		c.err = errors.Join(c.err, fmt.Errorf("note cut connections: %w: their servers may go on until they fall silent", ErrSetFull))
	}
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return errors.Join(c.err, fmt.Errorf("list connections: %w", err))
	}
	return c.err
}

func (c *cutter) look(m []byte) {
	e, ok := parseEntry(m)
	if !ok || !c.concerns(e) {
		return
	}
	c.report.Seen++
	if !c.all {
		kept := c.kept(e)
		// The other end may be the client: of a denied connection only within a bridge.
		other := e.answered() && (kept || c.neighbours().bridged(e))
		if kept && (!other || c.keepAll(e.reversed())) {
			return
		}
		e.doubted = other && (kept || c.keepAll(e.reversed()))
	}
	c.chunk = append(c.chunk, e.kept())
	if len(c.chunk) == cutChunk {
		c.flush()
	}
}

// concerns tells whether a container is at an end, and whether the connection is due.
func (c *cutter) concerns(e entry) bool {
	return c.due.about(e) && slices.ContainsFunc(e.addrs(), func(a netip.Addr) bool {
		return c.isContainer(a) || !c.all && slices.ContainsFunc(c.driver.wish.Away, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// isContainer tells whether a container has an address.
func (d *Driver) isContainer(a netip.Addr) bool {
	_, is := slices.BinarySearchFunc(d.denied[index(a.Is6())], a, func(m netpolicy.Member, a netip.Addr) int { return m.Prefix.Addr().Compare(a) })
	return is
}

// kept asks keep about a connection. For one that belongs to another, as FTP's data do, it
// asks about that other one, which is why the rules let it pass.
func (c *cutter) kept(e entry) bool {
	if e.master == nil {
		return c.keepAll(e)
	}
	master, found := entry{}, false
	err := c.remove.ask(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_GET, unix.NLM_F_ACK, e.masterRequest(), func(m []byte) bool {
		if !found {
			master, found = parseEntry(m)
		}
		return true
	})
	switch {
	case errors.Is(err, unix.ENOENT) || err == nil && !found:
		return c.keepAll(e) // the connection that it belonged to is over
	case err != nil:
		c.err = errors.Join(c.err, fmt.Errorf("look up connection: %w", err))
		return true
	}
	return c.keepAll(master)
}

// keepAll asks about each connection that an entry may be.
func (c *cutter) keepAll(e entry) bool {
	for _, r := range e.readings(c.neighbours().bridged(e)) {
		if !c.keep(r.flow()) {
			return false
		}
	}
	return true
}

// flush notes the gathered connections, and then deletes them. In between the entry lets the
// connection pass, as before.
func (c *cutter) flush() {
	var notes [2][]element
	for _, e := range c.chunk {
		if c.all {
			break
		}
		for _, r := range e.readings(c.neighbours().bridged(e)) {
			if n, ok := r.reopens(); ok && !e.doubted {
				i := index(n.second.Is6())
				notes[i] = append(notes[i], n)
			}
		}
	}
	for _, i := range c.driver.families {
		if len(notes[i]) == 0 {
			continue
		}
		err := c.driver.sets.change(cutSet(i == 1, c.driver.cutSeconds()), false, notes[i])
		if errors.Is(err, ErrSetFull) {
			c.full = true // some notes are missing; the entries go all the same
		} else if err != nil {
			c.err = errors.Join(c.err, err)
			return
		}
	}
	for _, e := range c.chunk {
		err := c.remove.write(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_DELETE, 0, e.removal())
		if err != nil && !errors.Is(err, unix.ENOENT) {
			f := e.flow()
			c.err = errors.Join(c.err, fmt.Errorf("delete connection %s to %s (%s): %w", f.Src, f.Dst, netpolicy.Protocol(f.Proto), err))
			continue
		}
		if !e.doubted {
			c.report.Cut++
		}
	}
	c.chunk = c.chunk[:0]
}
