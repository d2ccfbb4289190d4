package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
)

// CutReport counts what a call of Cut did.
type CutReport struct {
	Seen int // connections of containers
	Cut  int
	// Listed says that the kernel went through its table of connections.
	Listed bool
	// Allowed are notes of cut connections that policy allows again.
	Allowed int
}

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
	if due, err = d.skip(due); err != nil {
		return r, fmt.Errorf("cut connections: %w", err)
	}
	if !due.any() {
		return r, nil
	}
	c := &cutter{driver: d, keep: keep, report: &r, due: due, isContainer: d.isContainer,
		neighbours: sync.OnceValue(func() neighbours { return neighboursOf(d.wish.Homes) })}
	if err := c.run(ctx); err != nil {
		return r, fmt.Errorf("cut connections: %w", err)
	}
	return r, nil
}

// End ends all connections with one of the addresses at an end, and counts them. It is for
// addresses of containers that are gone. It makes no notes, because the next container with
// the address may talk to the same peers. What it ended, Cut need not go over again. In monitor
// mode it does nothing.
//
// After an error some connections are left. The next call goes over all again.
func (d *Driver) End(ctx context.Context, addrs map[netip.Addr]bool) (int, error) {
	var r CutReport
	if d.options.Monitor || len(addrs) == 0 {
		return 0, nil
	}
	c := &cutter{driver: d, report: &r, due: touched{addrs: addrs}, isContainer: func(a netip.Addr) bool { return addrs[a] }, all: true}
	if err := c.run(ctx); err != nil {
		return r.Cut, fmt.Errorf("end connections: %w", err)
	}
	for a := range addrs {
		delete(d.due.addrs, a)
		delete(d.vacancy.used, a)
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
