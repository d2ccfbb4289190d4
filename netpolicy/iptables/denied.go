package iptables

import (
	"fmt"
	"net/netip"
)

// Denied counts for each container's address the packets from or to it that policy dropped, since
// a container had the address first.
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
