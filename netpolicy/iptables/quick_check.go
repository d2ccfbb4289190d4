package iptables

import "fmt"

// Glance tells whether something is evidently not as the last Apply or Verify left
// it. It asks, without a fork and in a fraction of a millisecond, for what nothing
// tells of by itself: how many members each set has and, of the legacy backend, how
// many rules there are. What it does not see, Verify does.
func (d *Driver) Glance() (bool, error) {
	k := d.kernel
	if k == nil {
		return false, nil
	}
	found, changed := 0, false
	err := d.sets.headers("", func() { found, changed = 0, false }, func(h setHeader) {
		if held := k.sets[h.name]; held != nil {
			found++
			changed = changed || h.wished() && int(h.elements) != len(held.members)
		}
	})
	if err != nil {
		return false, fmt.Errorf("glance at sets: %w", err)
	}
	if changed || found < len(k.sets) {
		return true, nil
	}
	for _, i := range d.families {
		if k.active.kind != Legacy || !k.active.present(i) {
			continue // the kernel tells of changes
		}
		size, err := legacySize(i)
		if err != nil {
			return false, fmt.Errorf("measure %s rules: %w", familyNames[i], err)
		}
		if was := d.seen[k.active][i].sign; size.rules != was.rules || size.bytes != was.bytes {
			return true, nil
		}
	}
	return false, nil
}
