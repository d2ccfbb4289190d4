package tc

import (
	"errors"
	"fmt"

	"netguard/shaper"
)

// Cleanup removes every qdisc, filter and IFB of netguard's in the namespace, from whichever
// process or version. It leaves what other software made. It goes on after an error.
func (d *Driver) Cleanup() error {
	s, err := d.Snapshot()
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	var veths []link
	if err := d.eachLink("veth", func(l link) { veths = append(veths, l) }); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	var faults []error
	for _, l := range veths {
		have, err := s.Endpoint(l.index)
		if err == nil {
			err = d.Apply(l.index, l.name, shaper.Diff(have, shaper.Wish{}))
		}
		if err != nil && !gone(err) {
			faults = append(faults, fmt.Errorf("clean up %s: %w", l.name, err))
		}
	}
	_, err = d.Sweep(func(int) bool { return false })
	return errors.Join(append(faults, err)...)
}
