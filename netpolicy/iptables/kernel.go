package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"netguard/netpolicy"
)

// kernel is what the kernel holds of netguard's, as read last, or as written
// since.
type kernel struct {
	active *backend  // the one that Docker uses
	tables [2]*table // of the active backend; nil without IPv6
	sets   map[string]*heldSet
	stale  []stale // tables of another backend that hold chains of netguard's
}

type heldSet struct {
	setHeader
	members []netpolicy.Member
	// sum is of the members, once somebody asked for it.
	sum    uint64
	summed bool
}

// seen is a table as it was read, and the sign that it had then.
type seen struct {
	table *table
	sign  sign
}

func (h *heldSet) hold(members []netpolicy.Member) {
	if !shared(h.members, members) {
		h.members, h.summed = members, false
	}
}

// shared tells whether two lists are one in memory.
func shared(a, b []netpolicy.Member) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// total gives the sum of the members.
func (h *heldSet) total() uint64 {
	if !h.summed {
		h.sum, h.summed = 0, true
		for _, m := range h.members {
			h.sum += hash(m)
		}
	}
	return h.sum
}

// wished tells whether the members of a set are part of a wish.
func (h setHeader) wished() bool { return !unwished[h.name] }

// unwished are the sets whose members are no part of a wish, ownSets those and the others
// that no rule set has.
var unwished, ownSets = map[string]bool{}, map[string]bool{}

func init() {
	for _, ipv6 := range []bool{false, true} {
		for _, s := range []setSpec{cutSet(ipv6, 0), bridgeSet(ipv6), beganSet(ipv6)} {
			unwished[s.name], ownSets[s.name] = true, true
		}
		for _, s := range []setSpec{deniedSet(ipv6), homesSet(ipv6), homedSet(ipv6)} {
			ownSets[s.name] = true
		}
	}
}

type stale struct {
	backend *backend
	family  int
	table   *table
}

// read reads all of it.
func (d *Driver) read(ctx context.Context) (*kernel, error) {
	k := &kernel{}
	if err := d.readTables(ctx, k); err != nil {
		return nil, err
	}
	if err := d.readSets(k); err != nil {
		return nil, err
	}
	return k, nil
}

// probe leaves out the backends that this kernel has not. Later on, one that
// cannot be read is an error and not a reason to use the other.
func (d *Driver) probe(ctx context.Context) error {
	var usable []*backend
	var faults []error
	for _, b := range d.backends {
		var err error
		for _, i := range d.families {
			if b.present(i) {
				_, e := b.read(ctx, i)
				err = errors.Join(err, e)
			}
		}
		if err == nil || errors.Is(err, ErrIncompatible) {
			usable = append(usable, b)
		} else {
			faults = append(faults, err)
		}
	}
	if len(usable) == 0 {
		return errors.Join(faults...)
	}
	d.backends = usable
	return nil
}

// readTables reads the filter tables of both families and backends, as far as they are
// others than before, and finds out which backend is Docker's.
func (d *Driver) readTables(ctx context.Context, k *kernel) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tables := make([][2]*table, len(d.backends))
	for n, b := range d.backends {
		for _, i := range d.families {
			was := d.seen[b][i]
			sign, err := d.sign(b, i, was.sign)
			if err != nil {
				return err
			}
			now := seen{was.table, sign}
			if was.table == nil || !sign.same(was.sign) {
				now.table = newTable()
				if b.present(i) {
					if now.table, err = b.read(ctx, i); err != nil {
						return err
					}
				}
			}
			both := d.seen[b]
			both[i] = now
			d.seen[b] = both
			if err := now.table.check(i); err != nil {
				return err
			}
			tables[n][i] = now.table
		}
	}
	// Where Docker is; else where netguard is already, so that a flush moves
	// nothing; else what "iptables" is.
	active, best := 0, -1
	for n := range d.backends {
		score := 0
		for _, i := range d.families {
			if tables[n][i].docker() {
				score |= 2
			}
			if len(tables[n][i].own()) > 0 {
				score |= 1
			}
		}
		if score > best {
			active, best = n, score
		}
	}
	k.active, k.tables, k.stale = d.backends[active], tables[active], nil
	d.backend = k.active.kind
	for n, b := range d.backends {
		for _, i := range d.families {
			if n != active && len(tables[n][i].own()) > 0 {
				k.stale = append(k.stale, stale{b, i, tables[n][i]})
			}
		}
	}
	return nil
}

// readSets reads netguard's sets, and keeps the members only of those that are others
// than before; of a stranger's not a member, unless strangers have few.
func (d *Driver) readSets(k *kernel) error {
	var foreign, own int
	var now *heldSet
	start := func() { k.sets, now, foreign, own = map[string]*heldSet{}, nil, 0, 0 }
	head := func(h setHeader) {
		if now = nil; !ownsSet(h.name) {
			foreign += int(h.elements)
			return
		}
		own += int(h.elements)
		now = &heldSet{setHeader: h}
		k.sets[h.name] = now
	}
	whole := d.few
	var err error
	if start(); whole {
		err = d.sets.whole(start, head, func(e element) {
			if now != nil {
				now.sum += hash(e.Member)
			}
		})
	} else {
		err = d.sets.headers("", start, head)
	}
	if err != nil {
		return err
	}
	d.few = foreign <= own
	for name, set := range k.sets {
		if !set.wished() {
			continue
		}
		if was := d.held[name]; was != nil && was.typ == set.typ && was.family == set.family && len(was.members) == int(set.elements) {
			if !whole && set.elements > 0 {
				if set.sum, err = d.sets.sum(name); err != nil {
					return err
				}
			}
			if set.sum == was.total() {
				set.members, set.summed = was.members, true
				continue
			}
		}
		list, err := d.sets.members(name)
		if err != nil {
			return err
		}
		for _, e := range list {
			set.members = append(set.members, e.Member)
		}
	}
	d.held = k.sets
	maps.DeleteFunc(d.stuck, func(name string, _ bool) bool { return k.sets[name] == nil })
	return nil
}

// ownsSet tells whether a set of this name is netguard's.
func ownsSet(name string) bool { return ownSets[name] || netpolicy.OwnsSet(name) }

// checkSpec refuses to work with a set that somebody else made.
func (k *kernel) checkSpec(spec setSpec) error {
	if h := k.sets[spec.name]; h != nil && !h.is(spec) {
		return fmt.Errorf("use set %s (%s): %w", spec.name, h.typ, ErrForeign)
	}
	return nil
}
