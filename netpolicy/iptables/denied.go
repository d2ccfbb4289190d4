package iptables

import (
	"context"
	"fmt"
	"net/netip"

	"netguard/netpolicy"
)

// Denied gives for each container's address how many packets of it, or to it,
// policy dropped since the address was a container's first.
func (d *Driver) Denied() (map[netip.Addr]uint64, error) {
	out := map[netip.Addr]uint64{}
	for _, i := range d.families {
		name := deniedSet(i == 1).name
		h, err := d.sets.header(name)
		if err != nil {
			return nil, fmt.Errorf("count denied packets: %w", err)
		}
		if h == nil {
			continue // nothing was applied yet
		}
		err = d.sets.each(name, func() {}, func(e element) { out[e.Prefix.Addr()] = e.packets })
		if err != nil {
			return nil, fmt.Errorf("count denied packets: %w", err)
		}
	}
	return out, nil
}

// RuleCount is how often a rule of the rule set was what decided.
type RuleCount struct {
	IPv6    bool
	Chain   string
	Origin  netpolicy.Origin
	Verdict netpolicy.Verdict
	Packets uint64
}

// Rules reads the counters of all rules that matched at least once. It forks: it
// is for people who ask, not for a timer. A packet is counted by each stage that
// it passes.
func (d *Driver) Rules(ctx context.Context) ([]RuleCount, error) {
	if d.kernel == nil {
		return nil, fmt.Errorf("read counters: %w", ErrNothingApplied)
	}
	var all []RuleCount
	for _, i := range d.families {
		t, err := d.kernel.active.read(ctx, i, true)
		if err != nil {
			return nil, fmt.Errorf("read counters: %w", err)
		}
		l := d.layouts[i]
		for n, origins := range l.origins {
			c := l.generation[n]
			counts := t.counts[c.name]
			if len(counts) != len(c.rules) {
				continue // somebody changed it; Verify tells
			}
			for m, o := range origins {
				if counts[m].packets > 0 && !o.counts {
					all = append(all, RuleCount{i == 1, c.name, o.Origin, o.verdict, counts[m].packets})
				}
			}
		}
	}
	return all, nil
}
