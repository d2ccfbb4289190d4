package iptables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// cutChunk is how many connections are noted and deleted at a time.
const cutChunk = 128

// cutter goes over the kernel's table of connections once.
type cutter struct {
	driver      *Driver
	keep        func(Flow) bool
	all         bool // each connection of a container ends, unasked and unnoted
	report      *CutReport
	due         touched
	neighbours  func() neighbours
	isContainer func(netip.Addr) bool
	vacancy     *vacancy // after this list, nil if it does not show all
	remove      *conn
	chunk       []entry
	err         error
	full        bool
}

func (c *cutter) run(ctx context.Context) error {
	lists, whole := c.due.lists()
	vacancy := vacancy{known: whole && c.driver.settled, used: map[netip.Addr]bool{}}
	if vacancy.known {
		n, err := c.driver.vacantPackets()
		if err != nil {
			return err
		}
		vacancy.packets, c.vacancy = n, &vacancy
	}
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
	c.report.Listed = true
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
	if c.err == nil && err == nil && whole {
		c.driver.vacancy = vacancy
	}
	return c.err
}

func (c *cutter) look(m []byte) {
	e, ok := parseEntry(m)
	if !ok {
		return
	}
	if !c.ends(&e) {
		c.vacancy.occupy(c.driver, e)
		return
	}
	c.chunk = append(c.chunk, e.kept())
	if len(c.chunk) == cutChunk {
		c.flush()
	}
}

// ends tells whether a connection has to end.
func (c *cutter) ends(e *entry) bool {
	if !c.concerns(*e) {
		return false
	}
	c.report.Seen++
	if c.all {
		return true
	}
	kept := c.kept(*e)
	// The other end may be the client: of a denied connection only within a bridge.
	other := e.answered() && (kept || c.neighbours().bridged(*e))
	if kept && (!other || c.keepAll(e.reversed())) {
		return false
	}
	e.doubted = other && (kept || c.keepAll(e.reversed()))
	return true
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
