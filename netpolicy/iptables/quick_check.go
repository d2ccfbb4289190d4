package iptables

import "fmt"

// Glance tells whether it sees something that is not as the last Apply or Verify left it. It
// looks, without a fork, at what the kernel does not report: how many members each set has
// and, with the legacy backend, how many rules there are. Verify sees the rest.
func (d *Driver) Glance() (bool, error) {
	k := d.glanced
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
			continue // the kernel reports changes
		}
		size, err := legacySize(i, filter)
		if err != nil {
			return false, fmt.Errorf("measure %s rules: %w", familyNames[i], err)
		}
		if was := k.prints[i]; size.rules != was.rules || size.bytes != was.bytes {
			return true, nil
		}
	}
	return false, nil
}
