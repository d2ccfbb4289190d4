package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"netguard/netpolicy"
)

// kernel is what the kernel holds of netguard's, as read last, or as written
// since.
type kernel struct {
	active *backend  // the one that Docker uses
	tables [2]*table // of the active backend; nil without IPv6
	sets   map[string]*heldSet
	stale  []stale // tables of another backend that hold chains of netguard's
	sizes  [2]legacySize
}

type heldSet struct {
	setHeader
	members []netpolicy.Member
	places  []element // of homes, instead
}

// wished tells whether the members of a set are part of a wish.
func (h setHeader) wished() bool {
	for _, ipv6 := range []bool{false, true} {
		if h.name == cutSet(ipv6, 0).name || h.name == bridgeSet(ipv6).name || h.name == beganSet(ipv6).name {
			return false
		}
	}
	return true
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
				_, e := b.read(ctx, i, false)
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

// readTables reads the filter tables of both families and backends, and finds out
// which backend is Docker's.
func (d *Driver) readTables(ctx context.Context, k *kernel) error {
	tables := make([][2]*table, len(d.backends))
	sizes := make([][2]legacySize, len(d.backends))
	for n, b := range d.backends {
		for _, i := range d.families {
			tables[n][i] = newTable()
			if !b.present(i) {
				continue
			}
			var err error
			if sizes[n][i], err = b.size(i); err != nil {
				return err
			}
			if tables[n][i], err = b.read(ctx, i, false); err != nil {
				return err
			}
			if err := tables[n][i].check(i); err != nil {
				return err
			}
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
	k.active, k.tables, k.stale, k.sizes = d.backends[active], tables[active], nil, sizes[active]
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

// readSets reads netguard's sets; of a stranger's not a member.
func (d *Driver) readSets(k *kernel) error {
	headers, err := d.sets.headers("")
	if err != nil {
		return err
	}
	k.sets = map[string]*heldSet{}
	for _, h := range headers {
		if !ownsSet(h.name) {
			continue
		}
		held := &heldSet{setHeader: h}
		k.sets[h.name] = held
		if !h.wished() {
			continue
		}
		list, err := d.sets.members(h.name)
		if err != nil {
			return err
		}
		if h.name == homesSet(false).name || h.name == homesSet(true).name {
			slices.SortFunc(list, comparePlaces)
			held.places = list
			continue
		}
		for _, e := range list {
			held.members = append(held.members, e.Member)
		}
	}
	maps.DeleteFunc(d.stuck, func(name string, _ bool) bool { return k.sets[name] == nil })
	return nil
}

// ownsSet tells whether a set of this name is netguard's.
func ownsSet(name string) bool {
	for _, ipv6 := range []bool{false, true} {
		for _, s := range []setSpec{deniedSet(ipv6), cutSet(ipv6, 0), bridgeSet(ipv6), homesSet(ipv6), homedSet(ipv6), beganSet(ipv6)} {
			if name == s.name {
				return true
			}
		}
	}
	return netpolicy.OwnsSet(name)
}

// checkSpec refuses to work with a set that somebody else made.
func (k *kernel) checkSpec(spec setSpec) error {
	if h := k.sets[spec.name]; h != nil && !h.is(spec) {
		return fmt.Errorf("use set %s (%s): %w", spec.name, h.typ, ErrStranger)
	}
	return nil
}
