package guard

import "fmt"

// Violations reads the counters alone, by ifindex of the ports of the last Apply
// that have any.
func (d *Driver) Violations() (map[int]Violations, error) {
	out := map[int]Violations{}
	// After a transaction that failed the table is not known until it is read again.
	if d.plan == nil || !d.features.Filter || d.kernel.table != nil && !d.kernel.table.present {
		return out, nil
	}
	counts, err := d.filter.violations()
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	for _, c := range []map[counted]uint64{counts, d.carried} {
		for key, n := range c {
			if _, ok := d.plan.ports[key.port]; ok {
				v := out[key.port]
				v.add(key.kind, n)
				out[key.port] = v
			}
		}
	}
	if !d.features.Limits || !d.kernel.limits.present {
		return out, nil
	}
	refused, err := d.limiter.refused()
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	owners := d.plan.connections.owners
	for a, n := range refused {
		if port, ok := owners[a]; ok {
			v := out[port]
			v.Connections += n
			out[port] = v
		}
	}
	return out, nil
}

func (v *Violations) add(k kind, n uint64) {
	switch k {
	case kindMAC:
		v.MAC += n
	case kindARP:
		v.ARP += n
	case kindIP:
		v.IP += n
	case kindND:
		v.ND += n
	case kindDHCP:
		v.DHCP += n
	case kindEthertype:
		v.Ethertype += n
	case kindStorm:
		v.Storm += n
	case kindChecksum:
		v.Checksum += n
	case kindFragments:
		v.Fragments += n
	case kindQuarantine:
		v.Quarantine += n
	case kindWithheld:
		v.Withheld += n
	}
}
