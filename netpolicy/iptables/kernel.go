package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"netguard/netpolicy"
)

// kernel is what the kernel has of netguard's, as it was read last or written since.
type kernel struct {
	active *backend       // that Docker uses
	tables [2]*table      // of the active backend; nil without IPv6
	prints [2]fingerprint // of the tables
	sets   map[string]*heldSet
	stale  []stale // tables of another backend with chains of netguard's
}

type heldSet struct {
	setHeader
	members []netpolicy.Member
	// sum is the sum of the members, if summed.
	sum    uint64
	summed bool
}

// seen is a table as it was read, and its fingerprint then.
type seen struct {
	table *table
	print fingerprint
}

func (h *heldSet) hold(members []netpolicy.Member) {
	if !netpolicy.Shared(h.members, members) {
		h.members, h.summed = members, false
	}
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

// wished tells whether a wish says which members the set has.
func (h setHeader) wished() bool {
	wished, own := ownSets[h.name]
	return wished || !own
}

// ownSets are the sets that no rule set has. The value tells whether a wish says which members
// the set has.
var ownSets = map[string]bool{}

func init() {
	for _, v6 := range []bool{false, true} {
		for _, s := range []setSpec{deniedSet(v6), homesSet(v6), homedSet(v6), subnetsSet(v6)} {
			ownSets[s.name] = true
		}
		for _, s := range []setSpec{cutSet(v6, 0), bridgeSet(v6), beganSet(v6)} {
			ownSets[s.name] = false
		}
	}
}

type stale struct {
	backend *backend
	family  int
	table   *table
}

// read reads the tables and the sets.
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

// probe leaves out the backends that this kernel lacks. All Drivers with the same Programs skip
// them then. Later, a backend that cannot be read is an error, and no reason to use the other
// one.
func (d *Driver) probe(ctx context.Context) error {
	p := d.options.Programs
	if p.tried {
		return nil
	}
	var usable []*backend
	var found []backend
	_, faults := d.list(ctx)
	for n, b := range d.backends {
		if faults[n] == nil || errors.Is(faults[n], ErrIncompatible) {
			usable, found = append(usable, b), append(found, p.found[n])
		}
	}
	if len(usable) == 0 {
		return errors.Join(faults...)
	}
	d.backends, p.found, p.tried = usable, found, true
	return nil
}

// list lists the filter tables, all at once. It reads only tables that changed since any Driver
// of the same Programs read them. It gives an error for each backend.
func (d *Driver) list(ctx context.Context) (tables [][2]seen, faults []error) {
	tables, faults = make([][2]seen, len(d.backends)), make([]error, len(d.backends))
	var ends []func()
	for n, b := range d.backends {
		for _, i := range d.families {
			known := &d.options.Programs.seen
			last, _ := known.Load(tableKey{b.kind, i})
			was, _ := last.(seen)
			print, err := d.fingerprint(b, i, was.print)
			if err != nil {
				faults[n] = errors.Join(faults[n], err)
				continue
			}
			end := func() (*table, error) { return was.table, nil }
			if was.table == nil || !print.same(was.print) {
				if end = (func() (*table, error) { return newTable(), nil }); b.present(i) {
					end = b.beginList(ctx, i, filter)
				}
			}
			ends = append(ends, func() {
				t, err := end()
				if err != nil {
					faults[n] = errors.Join(faults[n], err)
					return
				}
				tables[n][i] = seen{t, print}
				known.Store(tableKey{b.kind, i}, tables[n][i])
			})
		}
	}
	for _, end := range ends {
		end()
	}
	return tables, faults
}

// readTables reads the filter tables of both families and backends, where they changed, and
// finds out which backend Docker uses.
func (d *Driver) readTables(ctx context.Context, k *kernel) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tables, faults := d.list(ctx)
	if err := errors.Join(faults...); err != nil {
		return err
	}
	for _, both := range tables {
		for _, i := range d.families {
			if err := both[i].table.check(i); err != nil {
				return err
			}
		}
	}
	// The active backend has Docker's chains. Else it has netguard's, so that a flush moves
	// nothing. Else it is the one that "iptables" is.
	active, best := 0, -1
	for n := range d.backends {
		score := 0
		for _, i := range d.families {
			if tables[n][i].table.docker() {
				score |= 2
			}
			if len(tables[n][i].table.own()) > 0 {
				score |= 1
			}
		}
		if score > best {
			active, best = n, score
		}
	}
	k.active, k.stale = d.backends[active], nil
	for _, i := range d.families {
		k.tables[i], k.prints[i] = tables[active][i].table, tables[active][i].print
	}
	d.backend = k.active.kind
	for n, b := range d.backends {
		for _, i := range d.families {
			if n != active && len(tables[n][i].table.own()) > 0 {
				k.stale = append(k.stale, stale{b, i, tables[n][i].table})
			}
		}
	}
	return nil
}

// readSets reads netguard's sets, and keeps the members only where they changed. If foreign
// sets have few members, one list of all sets costs less than a list for each set.
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
		err = d.sums.whole(d.sets, start, head, func(sum uint64) {
			if now != nil {
				now.sum += sum
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

// ownsSet tells whether a set is netguard's, by its name.
func ownsSet(name string) bool {
	_, own := ownSets[name]
	return own || netpolicy.OwnsSet(name)
}

// checkSpec refuses to use a foreign set.
func (k *kernel) checkSpec(spec setSpec) error {
	if h := k.sets[spec.name]; h != nil && !h.is(spec) {
		return fmt.Errorf("use set %s (%s): %w", spec.name, h.typ, ErrForeign)
	}
	return nil
}
