package guard

import (
	"fmt"
	"net/netip"
	"slices"
)

// Violations reads only the counters. It gives them by ifindex, for the ports of the last Apply
// that have any.
func (d *Driver) Violations() (map[int]Violations, error) {
	out := map[int]Violations{}
	// After a transaction that failed the table is not known until it is read again.
	if d.plan == nil || !d.features.Filter || d.kernel.table != nil && !d.kernel.table.present {
		return out, nil
	}
	if err := d.readCounts(); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	for _, c := range []map[counted]uint64{d.counts.frames, d.carried} {
		for key, n := range c {
			if _, ok := d.plan.ports[key.port]; ok {
				v := out[key.port]
				v.add(key.kind, n)
				out[key.port] = v
			}
		}
	}
	for a, n := range d.counts.connections {
		if port, ok := d.plan.connections.owners[a]; ok {
			v := out[port]
			v.Connections += n
			out[port] = v
		}
	}
	return out, nil
}

// counts are the counters as they were read last.
type counts struct {
	// refused is how many frames, and connections, were refused then, of whatever kind.
	refused     [2]uint64
	frames      map[counted]uint64
	connections map[netip.Addr]uint64
	looks       int // since then
}

// maxLooks is how often the last counters are used again while nothing is refused. Then they are
// read again, since somebody may have reset them.
const maxLooks = 15

// readCounts reads the counters, if anything was refused since the last time.
func (d *Driver) readCounts() error {
	now := counts{}
	var err error
	if now.refused[0], err = d.filter.counter("refuse"); err != nil {
		return err
	}
	limits := d.features.Limits && d.kernel.limits.present
	if limits {
		if now.refused[1], err = d.limiter.counter("refuse"); err != nil {
			return err
		}
	}
	if was := d.counts; was != nil && was.refused == now.refused && was.looks < maxLooks {
		was.looks++
		return nil
	}
	if now.frames, err = d.filter.violations(); err != nil {
		return err
	}
	if limits {
		if now.connections, err = d.limiter.refused(); err != nil {
			return err
		}
	}
	d.counts = &now
	return nil
}

func (v *Violations) add(k kind, n uint64) { *v.of(k.String()) += n }

// Of gives the count of a kind of violation, 0 for a name that is none.
func (v Violations) Of(kind string) uint64 {
	if !slices.Contains(Kinds, kind) {
		return 0
	}
	return *v.of(kind)
}

// of gives the counter of a kind, by the kind's name.
func (v *Violations) of(kind string) *uint64 {
	switch kind {
	case "mac":
		return &v.MAC
	case "arp":
		return &v.ARP
	case "ip":
		return &v.IP
	case "nd":
		return &v.ND
	case "dhcp":
		return &v.DHCP
	case "ethertype":
		return &v.Ethertype
	case "storm":
		return &v.Storm
	case "connections":
		return &v.Connections
	case "checksum":
		return &v.Checksum
	case "fragments":
		return &v.Fragments
	case "quarantine":
		return &v.Quarantine
	case "withheld":
		return &v.Withheld
	}
	return new(uint64) // a table of another version may have more kinds
}
