package iptables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// CutReport counts what Next did with a list of connections.
type CutReport struct {
	Seen int // connections of containers
	Cut  int
	// Ended are connections of addresses that containers left.
	Ended int
	// Listed says that the kernel went through its table of connections.
	Listed bool
	// Allowed are notes of cut connections that policy allows again.
	Allowed int
	// Again asks for another list soon: late answers may make the kernel enter connections that
	// this list could not have.
	Again bool
}

// Begin starts to list the kernel's connections in the background, for Next. It calls wake when
// Next has something to do. A new list ends the one before.
//
// Next ends all connections with one of the addresses of old, which containers left. It makes
// no notes of them, because the next container with the address may talk to the same peers.
//
// Next also ends the connections of containers that policy refuses, answers included. Call Begin
// after Apply, when policy allows less than before. Without all, the list has the connections
// that the changes since the last Begin may concern.
//
// In monitor mode nothing ends. After an error the next list has all connections.
// A connection that the kernel does not delete keeps no other: the error is a RemainError then.
func (d *Driver) Begin(ctx context.Context, old map[netip.Addr]bool, all bool, wake func()) error {
	if d.listing != nil && d.listing.cancel != nil {
		d.listing.cancel()
	}
	l := &listing{old: old, wake: wake, chunks: make(chan []entry, 4), gone: map[netip.Addr]bool{}}
	d.listing = l
	due := d.due
	l.routine = !due.any() && d.late.searched()
	due.all, d.due = due.all || all, touched{all: d.options.Monitor || d.wish == nil}
	switch {
	case d.options.Monitor:
		close(l.chunks)
		return nil
	case d.wish == nil && len(old) == 0:
		return fmt.Errorf("cut connections: %w", ErrNothingApplied)
	case d.wish == nil:
		due = touched{}
	}
	if err := d.listConnections(ctx, l, d.late.list(due)); err != nil {
		d.due.all = true
		return fmt.Errorf("list connections: %w", err)
	}
	return nil
}

// Next ends connections of the list that goes on. It asks keep about each connection with a
// container at an end and, with Flow.Noted, about each note, and deletes the notes that keep
// allows again. It never waits for the list. done says that the list is over, and that the
// report is complete.
//
// The kernel's table of connections is never in memory as a whole.
func (d *Driver) Next(keep func(Flow) bool) (r CutReport, done bool, err error) {
	l := d.listing
	if l == nil {
		return r, true, nil
	}
	if !l.asked && !d.options.Monitor {
		l.asked, l.fault = true, errors.Join(l.fault, d.dropNotes())
		for _, i := range d.families {
			l.fault = errors.Join(l.fault, d.allow(i == 1, keep, &l.report))
		}
	}
	select {
	case chunk, more := <-l.chunks:
		if !more {
			break
		}
		if l.fault == nil {
			d.cutter(l, keep).settle(chunk)
		}
		l.wake() // there may be more
		return r, false, nil
	default:
		return r, false, nil
	}
	d.listing = nil
	if err := d.finish(l); err != nil {
		d.due.all = true
		return l.report, true, fmt.Errorf("cut connections: %w", err)
	}
	l.report.Again = l.report.Listed && !d.late.over() // in monitor mode nothing is listed
	return l.report, true, nil
}

// Cut calls Begin, and then Next until the list is over. It is for callers that can wait.
func (d *Driver) Cut(ctx context.Context, all bool, keep func(Flow) bool) (CutReport, error) {
	return d.cut(ctx, nil, all, keep)
}

func (d *Driver) cut(ctx context.Context, old map[netip.Addr]bool, all bool, keep func(Flow) bool) (CutReport, error) {
	woken := make(chan struct{}, 1)
	err := d.Begin(ctx, old, all, func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return CutReport{}, err
	}
	for {
		if r, done, err := d.Next(keep); done {
			return r, err
		}
		<-woken
	}
}

// allow deletes the notes of cut connections that policy allows again.
func (d *Driver) allow(ipv6 bool, keep func(Flow) bool, r *CutReport) error {
	return d.forgetCut(ipv6, func(e element) bool {
		return keep(Flow{Src: netip.AddrPortFrom(e.Prefix.Addr(), 0), Dst: netip.AddrPortFrom(e.second, e.Port),
			Proto: e.Proto, Noted: true})
	}, &r.Allowed)
}

// forget deletes the notes about addresses that no container has any more. They are not
// about the next container with such an address. After an error the next call deletes them.
func (d *Driver) forget() error {
	if len(d.gone) == 0 {
		return nil
	}
	for _, i := range d.families {
		n := 0
		err := d.forgetCut(i == 1, func(e element) bool { return d.gone[e.Prefix.Addr()] || d.gone[e.second] }, &n)
		if err != nil {
			return fmt.Errorf("forget cut connections: %w", err)
		}
	}
	clear(d.gone)
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
