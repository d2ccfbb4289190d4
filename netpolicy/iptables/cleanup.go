package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Cleanup removes everything that any netguard put into iptables, ipset and the flags of bridges.
// What other programs put there stays as it is. First the rules go, then what they need.
// Cleanup goes on after an error, and can be called again.
func (d *Driver) Cleanup(ctx context.Context) error {
	d.kernel, d.glanced, d.settled, d.wish, d.generation, d.layouts, d.agreed = nil, nil, false, nil, "", [2]*layout{}, [2]*table{}
	d.denied, d.homes, d.homed, d.subnets, d.late = families{}, families{}, families{}, families{}, lateAnswers{}
	clear(d.stuck)
	k, err := d.read(ctx)
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	var faults []error
	for _, i := range d.families {
		faults = append(faults, d.clear(ctx, k.active, i, k.tables[i]))
	}
	for _, s := range k.stale {
		faults = append(faults, d.clear(ctx, s.backend, s.family, s.table))
	}
	_, err = d.Bridges(nil)
	faults = append(faults, err)
	_, err = d.release(ctx, slices.Sorted(maps.Keys(k.sets)))
	if err := errors.Join(append(faults, err)...); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// clear removes netguard's rules from a table, and what was made for them. The marks go last, so
// that another process can finish if this one is killed.
func (d *Driver) clear(ctx context.Context, b *backend, i int, t *table) error {
	if lines := t.removals(); len(lines) > 0 {
		if err := b.write(ctx, i, transaction(nil, lines)); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(marks, t.has) {
		return nil
	}
	after, err := b.read(ctx, i)
	if err != nil {
		return err
	}
	return unmake(i, after)
}
