package iptablestest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

// Driver has the methods of iptables.Driver by which an agent writes. It knows no more
// of the kernel than that one does.
type Driver struct {
	kernel *Kernel
	wish   *iptables.Wish
	// looked: what is there is known; settled: its rules are as wished.
	looked, settled bool
	glanced         bool // Apply failed when its rules were in force: Glance knows size
	size            int  // of all sets, as known
	agreed          int  // Kernel.written, when the rules were seen to be as wished
	displaced       bool
	switched        map[string]bool
	all             bool                // the next list has all connections
	due             map[netip.Addr]bool // it has those of these
	listing         *listing            // that goes on
}

// Open makes a Driver of the host, as a new process has one.
func (k *Kernel) Open() *Driver { return &Driver{kernel: k, agreed: -1, all: true} }

// Apply is iptables.Driver's.
func (d *Driver) Apply(ctx context.Context, w iptables.Wish) (iptables.Report, error) {
	var r iptables.Report
	if err := d.apply(ctx, w, &r); err != nil {
		d.looked, d.settled = false, false
		return r, fmt.Errorf("apply rules: %w", err)
	}
	return r, nil
}

func (d *Driver) apply(ctx context.Context, w iptables.Wish, r *iptables.Report) error {
	k := d.kernel
	if w.Rules == nil {
		return iptables.ErrInvalid
	}
	another := d.wish == nil || d.wish.Rules.Generation != w.Rules.Generation
	d.settled = d.settled && !another
	d.wish = &w
	if r.Looked = !d.looked || !d.settled; r.Looked {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := k.fail(Read, ""); err != nil {
			return err
		}
	}
	// Where it trusts that the rules are as it left them, it does not repair them.
	build := r.Looked && k.generation != w.Rules.Generation
	lead := r.Looked && (build || k.first)
	if r.Looked && !another && (!d.looked || d.displaced && build) {
		r.Drift = d.changes()
	}
	d.displaced = false
	if err := k.refuse(w); err != nil {
		return err
	}
	add, del := k.lacking(w), k.needless(w)
	if build || lead || len(add)+len(del) > 0 {
		if err := k.fail(Write, ""); err != nil {
			return err
		}
	}
	d.glanced = false
	for _, m := range add {
		k.members[m] = true
		d.touch(m)
	}
	r.Added, r.Messages = len(add), len(add)
	if lead {
		r.Rules, r.Generation, r.Forks, d.all = true, build, 6, true
		k.generation, k.written = w.Rules.Generation, k.written+1
		k.left = k.left || build
		if err := k.fail(Lead, ""); err != nil {
			k.first = true
			return err
		}
		k.first = false
	}
	if r.Looked {
		d.agreed = k.written
	}
	gone := containersGone(k.met, w)
	k.met, r.InForce = w, true
	if k.left && r.Looked || len(del) > 0 {
		if err := k.fail(Remove, ""); err != nil {
			k.left = true
			d.glanced, d.size = true, len(k.members)
			return err
		}
		k.left = false
	}
	for _, m := range del {
		delete(k.members, m)
		d.touch(m)
	}
	r.Deleted, r.Messages = len(del), r.Messages+len(del)
	k.noted = slices.DeleteFunc(k.noted, func(f iptables.Flow) bool { return gone[f.Src.Addr()] || gone[f.Dst.Addr()] })
	d.looked, d.settled, d.size = true, true, len(k.members)
	return nil
}

// refuse says what the kernel would refuse of a wish.
func (k *Kernel) refuse(w iptables.Wish) error {
	for _, f := range w.Rules.Families() {
		for _, s := range f.Sets {
			switch {
			case !netpolicy.OwnsSet(s.Name):
				return fmt.Errorf("name set %q: %w", s.Name, iptables.ErrInvalid)
			case k.foreign[s.Name]:
				return fmt.Errorf("use set %s: %w", s.Name, iptables.ErrForeign)
			case k.Room > 0 && len(s.Members) > k.Room:
				return fmt.Errorf("add to set %s: %w", s.Name, iptables.ErrSetFull)
			}
		}
	}
	return nil
}

func (d *Driver) touch(m member) {
	if m.set == "subnets" {
		return
	}
	if d.due == nil {
		d.due = map[netip.Addr]bool{}
	}
	d.all = d.all || !m.Prefix.IsSingleIP() || m.Port != 0
	d.due[m.Prefix.Addr()] = true
}

// containersGone are the addresses that are no container's any more.
func containersGone(was, is iptables.Wish) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, a := range was.Containers {
		out[a] = !slices.Contains(is.Containers, a)
	}
	return out
}

// Verify is iptables.Driver's.
func (d *Driver) Verify(ctx context.Context) (iptables.Drift, error) {
	var found iptables.Drift
	if d.wish == nil {
		return found, fmt.Errorf("verify rules: %w", iptables.ErrNothingApplied)
	}
	d.looked, d.settled, d.glanced = false, false, false
	err := ctx.Err()
	if err == nil {
		err = d.kernel.fail(Read, "")
	}
	if err != nil {
		return found, fmt.Errorf("verify rules: %w", err)
	}
	found.Changes = d.changes()
	found.Rewritten = d.agreed != d.kernel.written
	found.Displaced = len(found.Changes) == 1 && found.Changes[0] == displaced
	rules := slices.DeleteFunc(slices.Clone(found.Changes), func(s string) bool { return strings.HasPrefix(s, "sets") })
	if len(rules) == 0 {
		d.agreed = d.kernel.written
	}
	d.looked, d.settled, d.displaced, d.size = true, len(rules) == 0, found.Displaced, len(d.kernel.members)
	return found, nil
}

const displaced = "the jump to netguard's rules is not the first"

// changes tell what is not as wished.
func (d *Driver) changes() (out []string) {
	k := d.kernel
	if k.generation != d.wish.Rules.Generation {
		out = append(out, "rules are missing")
	} else if k.first {
		out = append(out, displaced)
	}
	if n := len(k.lacking(*d.wish)); n > 0 {
		out = append(out, fmt.Sprintf("sets lack %d members", n))
	}
	if n := len(k.needless(*d.wish)); n > 0 {
		out = append(out, fmt.Sprintf("sets have %d members too many", n))
	}
	if k.left {
		out = append(out, "rules are left over")
	}
	return out
}

// Glance is iptables.Driver's, where the kernel tells of changed rules: it sees how many
// members there are.
func (d *Driver) Glance() (bool, error) {
	if err := d.kernel.fail(Read, ""); err != nil {
		return false, fmt.Errorf("glance at sets: %w", err)
	}
	return (d.looked || d.glanced) && d.size != len(d.kernel.members), nil
}

// Bridges is iptables.Driver's.
func (d *Driver) Bridges(wish map[string]bool) (off []string, err error) {
	k := d.kernel
	failed := iptables.BridgeError{}
	step := func(name string) bool {
		err := k.fail(Switch, name)
		if err != nil {
			failed[name] = err
		}
		return err == nil
	}
	for name, b := range k.bridges {
		if b.recorded && !wish[name] && step(name) {
			b.on, b.recorded = false, false
		}
	}
	for name, on := range wish {
		b := k.bridges[name]
		switch {
		case !on:
		case k.NoBridgeFilter:
			failed[name] = iptables.ErrNoBridgeFilter
		case b != nil && !b.on && step(name):
			if b.recorded && d.switched[name] {
				off = append(off, name)
			}
			b.on, b.recorded = true, true
		}
	}
	d.switched = map[string]bool{}
	for name, b := range k.bridges {
		if b.recorded {
			d.switched[name] = true
		}
	}
	slices.Sort(off)
	if len(failed) > 0 {
		return off, fmt.Errorf("set bridges: %w", failed)
	}
	return off, nil
}
