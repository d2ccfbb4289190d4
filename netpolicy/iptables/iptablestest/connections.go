package iptablestest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

// listing is a list of connections.
type listing struct {
	ctx  context.Context
	old  map[netip.Addr]bool
	all  bool
	due  map[netip.Addr]bool
	over bool // Next may have what it found
}

// Begin is iptables.Driver's.
func (d *Driver) Begin(ctx context.Context, old map[netip.Addr]bool, all bool, wake func()) error {
	if d.wish == nil && len(old) == 0 {
		return fmt.Errorf("cut connections: %w", iptables.ErrNothingApplied)
	}
	l := &listing{ctx: ctx, old: old, all: all || d.all, due: d.due}
	if d.wish != nil {
		d.all, d.due = false, nil
	}
	d.listing = l
	end := func() { l.over = true; wake() }
	if lists := d.kernel.Lists; lists != nil && l.any() {
		lists(end)
	} else {
		end()
	}
	return nil
}

// Vacant is iptables.Driver's.
func (d *Driver) Vacant() (func(netip.Addr) bool, error) {
	used := map[netip.Addr]bool{}
	for _, f := range d.kernel.flows {
		used[f.Src.Addr()], used[f.Dst.Addr()], used[f.Dialled.Addr()] = true, true, true
	}
	return func(a netip.Addr) bool { return d.wish != nil && d.isContainer(a) && !used[a] }, nil
}

func (l *listing) any() bool { return l.all || len(l.due)+len(l.old) > 0 }

// Next is iptables.Driver's.
func (d *Driver) Next(keep func(iptables.Flow) bool) (r iptables.CutReport, done bool, err error) {
	k, l := d.kernel, d.listing
	if l == nil || !l.over {
		return r, l == nil, nil
	}
	d.listing = nil
	k.noted = slices.DeleteFunc(k.noted, func(f iptables.Flow) bool {
		kept := keep(f)
		if kept {
			r.Allowed++
		}
		return kept
	})
	if r.Listed = l.any(); !r.Listed {
		return r, true, nil
	}
	if err = l.ctx.Err(); err == nil {
		err = k.fail(List, "")
	}
	if err != nil {
		d.all = true
		return r, true, fmt.Errorf("cut connections: %w", err)
	}
	var remain *iptables.RemainError
	k.flows = slices.DeleteFunc(k.flows, func(f iptables.Flow) bool {
		ends := []netip.Addr{f.Src.Addr(), f.Dst.Addr(), f.Dialled.Addr()}
		remove := func() bool {
			err := k.fail(End, f.Src.String())
			if err == nil {
				return true
			}
			if remain == nil {
				remain = &iptables.RemainError{Addrs: map[netip.Addr]bool{}, First: err}
			}
			for _, a := range ends {
				remain.Addrs[a] = true
			}
			return false
		}
		if slices.ContainsFunc(ends, func(a netip.Addr) bool { return l.old[a] }) {
			if !remove() {
				return false
			}
			r.Ended++
			return true
		}
		if d.wish == nil || !l.all && !slices.ContainsFunc(ends, func(a netip.Addr) bool { return l.due[a] }) || !slices.ContainsFunc(ends, d.isContainer) {
			return false
		}
		r.Seen++
		if keep(f) {
			return false
		}
		if !remove() {
			return false
		}
		r.Cut++
		if f.Proto != netpolicy.ICMP && f.Proto != netpolicy.ICMPv6 {
			k.noted = append(k.noted, iptables.Flow{Src: netip.AddrPortFrom(f.Src.Addr(), 0), Dst: f.Dst, Proto: f.Proto, Noted: true})
		}
		return true
	})
	if remain != nil {
		d.all = true
		return r, true, fmt.Errorf("cut connections: %w", remain)
	}
	return r, true, nil
}

func (d *Driver) isContainer(a netip.Addr) bool {
	return slices.Contains(d.wish.Containers, a) || slices.ContainsFunc(d.wish.Away, func(p netip.Prefix) bool { return p.Contains(a) })
}
