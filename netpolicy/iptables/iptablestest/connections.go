package iptablestest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

// Cut is iptables.Driver's.
func (d *Driver) Cut(ctx context.Context, all bool, keep func(iptables.Flow) bool) (r iptables.CutReport, err error) {
	k := d.kernel
	if d.wish == nil {
		return r, fmt.Errorf("cut connections: %w", iptables.ErrNothingApplied)
	}
	k.noted = slices.DeleteFunc(k.noted, func(f iptables.Flow) bool {
		kept := keep(f)
		if kept {
			r.Allowed++
		}
		return kept
	})
	all, due := all || d.all, d.due
	d.all, d.due = false, nil
	if r.Listed = all || len(due) > 0; !r.Listed {
		return r, nil
	}
	if err = ctx.Err(); err == nil {
		err = k.fail(List, "")
	}
	if err != nil {
		d.all = true
		return r, fmt.Errorf("cut connections: %w", err)
	}
	k.flows = slices.DeleteFunc(k.flows, func(f iptables.Flow) bool {
		ends := []netip.Addr{f.Src.Addr(), f.Dst.Addr(), f.Dialled.Addr()}
		if !all && !slices.ContainsFunc(ends, func(a netip.Addr) bool { return due[a] }) || !slices.ContainsFunc(ends, d.isContainer) {
			return false
		}
		r.Seen++
		if keep(f) {
			return false
		}
		r.Cut++
		if f.Proto != netpolicy.ICMP && f.Proto != netpolicy.ICMPv6 {
			k.noted = append(k.noted, iptables.Flow{Src: netip.AddrPortFrom(f.Src.Addr(), 0), Dst: f.Dst, Proto: f.Proto, Noted: true})
		}
		return true
	})
	return r, nil
}

func (d *Driver) isContainer(a netip.Addr) bool {
	return slices.Contains(d.wish.Containers, a) || slices.ContainsFunc(d.wish.Away, func(p netip.Prefix) bool { return p.Contains(a) })
}

// End is iptables.Driver's.
func (d *Driver) End(ctx context.Context, addrs map[netip.Addr]bool) (n int, err error) {
	if len(addrs) == 0 {
		return 0, nil
	}
	if err = ctx.Err(); err == nil {
		err = d.kernel.fail(List, "")
	}
	if err != nil {
		return 0, fmt.Errorf("end connections: %w", err)
	}
	for a := range addrs {
		delete(d.due, a)
	}
	d.kernel.flows = slices.DeleteFunc(d.kernel.flows, func(f iptables.Flow) bool {
		ends := addrs[f.Src.Addr()] || addrs[f.Dst.Addr()] || addrs[f.Dialled.Addr()]
		if ends {
			n++
		}
		return ends
	})
	return n, nil
}
