package iptables

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// cutter judges connections of a list, and ends them.
type cutter struct {
	*listing
	wish       *Wish
	driver     *Driver
	keep       func(Flow) bool
	neighbours func() neighbours
}

// cutter gives the cutter of a list. After another wish it is a new one.
func (d *Driver) cutter(l *listing, keep func(Flow) bool) *cutter {
	if l.cutter == nil || l.cutter.wish != d.wish {
		w := d.wish
		l.cutter = &cutter{l, w, d, keep, sync.OnceValue(func() neighbours {
			if w == nil { // Cleanup came in between
				return nil
			}
			return neighboursOf(w.Homes)
		})}
	}
	l.cutter.keep = keep
	return l.cutter
}

// settle ends the connections that have to end.
func (c *cutter) settle(chunk []entry) {
	var left, refused []entry
	for _, e := range chunk {
		if c.ended(e) {
			left = append(left, e)
		} else if c.refuses(&e) {
			refused = append(refused, e)
		}
	}
	if c.fault != nil || !c.note(refused) {
		return
	}
	c.report.Ended += c.remove(left)
	c.report.Cut += c.remove(refused)
}

// refuses tells whether policy refuses a connection.
func (c *cutter) refuses(e *entry) bool {
	c.report.Seen++
	kept := c.kept(*e)
	// The other end may be the client. If policy denies the connection as it is, that matters
	// only within a bridge.
	other := e.answered() && (kept || c.neighbours().bridged(*e))
	if kept && (!other || c.keepAll(e.reversed())) {
		return false
	}
	e.answer = other && kept && c.neighbours().bridged(*e)
	e.doubted = other && (kept || c.keepAll(e.reversed()))
	return true
}

// kept asks keep about a connection. If it belongs to another connection, as FTP's data do, kept
// asks about that other one, because the rules let it pass for that reason.
func (c *cutter) kept(e entry) bool {
	if e.master == nil {
		return c.keepAll(e)
	}
	master, found := entry{}, false
	err := c.driver.sets.ask(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_GET, unix.NLM_F_ACK, e.masterRequest(), func(m []byte) bool {
		if !found {
			master, found = parseEntry(m)
		}
		return true
	})
	switch {
	case errors.Is(err, unix.ENOENT) || err == nil && !found:
		return c.keepAll(e) // the connection that it belonged to is over
	case err != nil:
		c.fault = errors.Join(c.fault, fmt.Errorf("look up connection: %w", err))
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

// note writes notes of the connections that are to be deleted. It gives false if it cannot. Until
// the deletion, the entries let the connections pass as before.
func (c *cutter) note(refused []entry) bool {
	var notes [2][]element
	for _, e := range refused {
		if e.doubted {
			continue
		}
		for _, r := range e.readings(c.neighbours().bridged(e)) {
			if n, ok := r.reopens(); ok {
				i := index(n.second.Is6())
				notes[i] = append(notes[i], n)
				delete(c.driver.late.notes, n)
			}
		}
	}
	for _, n := range c.driver.noteAnswers(refused, notes) {
		i := index(n.second.Is6())
		notes[i] = append(notes[i], n)
	}
	for _, i := range c.driver.families {
		if len(notes[i]) == 0 {
			continue
		}
		err := c.driver.sets.change(cutSet(i == 1, c.driver.cutSeconds()), false, notes[i])
		if errors.Is(err, ErrSetFull) {
			c.full = true // some notes are missing; the entries go all the same
		} else if err != nil {
			c.fault = errors.Join(c.fault, err)
			return false
		}
	}
	return true
}

// remove deletes connections, and counts those that ended by it. The kernel may refuse to delete
// one, for example while a flowtable has it. That does not keep the others.
func (c *cutter) remove(list []entry) (n int) {
	for _, e := range list {
		err := c.driver.sets.write(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_DELETE, 0, e.removal())
		if err != nil && !errors.Is(err, unix.ENOENT) {
			f := e.flow()
			err = fmt.Errorf("delete connection %s to %s (%s): %w", f.Src, f.Dst, netpolicy.Protocol(f.Proto), err)
			if _, silent := errors.AsType[*os.SyscallError](err); silent { // the kernel does not answer
				c.fault = errors.Join(c.fault, err)
				return n
			}
			c.remain = c.remain.and(err, e.addrs()...)
			continue
		}
		if !e.doubted {
			n++
		}
		if !e.answer || c.routine {
			continue
		}
		c.driver.late.await(e.orig.src, false)
		c.driver.late.await(e.orig.dst, false)
	}
	return n
}
