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

// CutReport is what a call of Cut did.
type CutReport struct {
	Seen int // connections of containers
	Cut  int
	// Allowed are notes about connections that were cut and are allowed again.
	Allowed int
}

// cutChunk is how many connections are noted and deleted at a time.
const cutChunk = 128

// Cut ends the connections of containers that keep refuses, answers included, and
// lets those go that it allows again. keep is asked for each connection that has
// a container at an end, and with Flow.Noted for each that was cut earlier. It is
// to be called when what policy allows has become less, after Apply. Without all it
// goes over those that what was applied since the last call may be about.
//
// In monitor mode it does nothing.
//
// The table of connections is never in memory as a whole. An error leaves the
// others cut; the next call goes over all again.
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

// End ends all connections that have one of the addresses at an end, and tells how many:
// they were those of containers that are gone. Nothing is noted of them, since who has
// the address next may talk to the same peers. In monitor mode it does nothing.
//
// An error leaves some; the next call goes over all again.
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

// allow forgets what was cut and may be again.
func (d *Driver) allow(ipv6 bool, keep func(Flow) bool, r *CutReport) error {
	return d.forgetCut(ipv6, func(e element) bool {
		return keep(Flow{Src: netip.AddrPortFrom(e.Prefix.Addr(), 0), Dst: netip.AddrPortFrom(e.second, e.Port),
			Proto: e.Proto, Noted: true})
	}, &r.Allowed)
}

// forget removes what was noted of addresses that are no container's any more:
// whoever gets one next has no part in it.
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

// cutter goes over the table of connections once.
type cutter struct {
	driver      *Driver
	keep        func(Flow) bool
	all         bool // what concerns containers ends, unasked and unnoted
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
	// One socket reads while the other deletes. The reading one is of this call
	// alone, so that none is left in the middle of a list.
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
	if !c.all && c.kept(e) {
		if !e.answered() || c.keepAll(e.reversed()) {
			return
		}
		e.doubted = true
	}
	c.chunk = append(c.chunk, e.kept())
	if len(c.chunk) == cutChunk {
		c.flush()
	}
}

// concerns tells whether a container is at an end, and something is due.
func (c *cutter) concerns(e entry) bool {
	return c.due.about(e) && slices.ContainsFunc(e.addrs(), func(a netip.Addr) bool {
		return c.isContainer(a) || !c.all && slices.ContainsFunc(c.driver.wish.Away, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// isContainer tells whether an address is one of a container's.
func (d *Driver) isContainer(a netip.Addr) bool {
	_, is := slices.BinarySearchFunc(d.denied[index(a.Is6())], a, func(m netpolicy.Member, a netip.Addr) int { return m.Prefix.Addr().Compare(a) })
	return is
}

// kept asks for a connection, and for one that belongs to another (the data of
// FTP, say) about that one: it is why it was let through.
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
		return c.keepAll(e) // what it belonged to is over
	case err != nil:
		c.err = errors.Join(c.err, fmt.Errorf("look up connection: %w", err))
		return true
	}
	return c.keepAll(master)
}

// keepAll asks for all that a connection may be.
func (c *cutter) keepAll(e entry) bool {
	for _, r := range e.readings(c.neighbours().bridged(e)) {
		if !c.keep(r.flow()) {
			return false
		}
	}
	return true
}

// flush notes and deletes what has been gathered, in this order: in between the
// entry lets the connection pass, as before.
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
			c.full = true // what is noted is; the entries go all the same
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
