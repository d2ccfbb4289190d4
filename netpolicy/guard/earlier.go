package guard

import (
	"fmt"
	"net/netip"
)

// Earlier is what an earlier agent left in the kernel. It is empty if the kernel lacks nftables
// of the bridge family.
type Earlier struct {
	// Fresh says that nobody guards anything: no table is there.
	Fresh bool
	// Admitted are the ports that the table admits, by ifindex; nil where no table is.
	Admitted map[int]bool
	// Bridges are the bridges, by ifindex, that an agent has guarded since the boot.
	Bridges map[int]bool
	// LinkLocals are the link-local addresses of IPv6 that the table lets each port have.
	LinkLocals map[int]map[netip.Addr]bool
}

// Earlier reads the table, if it is not known, and says what is in it.
func (d *Driver) Earlier() (Earlier, error) {
	if !d.features.Filter {
		return Earlier{}, nil
	}
	news, err := d.observeTable(false)
	d.unsure = d.unsure || news // the next Apply does not see this change as news any more
	if err != nil {
		return Earlier{}, fmt.Errorf("guard: %w", err)
	}
	t := d.kernel.table
	if !t.present {
		return Earlier{Fresh: true}, nil
	}
	out := Earlier{Admitted: map[int]bool{}, Bridges: map[int]bool{}, LinkLocals: map[int]map[netip.Addr]bool{}}
	for e := range t.sets[setKnown] {
		if _, quarantined := t.sets[setQuarantined][e]; !quarantined {
			out.Admitted[e.portOf()] = true
		}
	}
	all, err := d.links.bridges()
	if err != nil {
		return Earlier{}, fmt.Errorf("guard: %w", err)
	}
	for _, b := range all {
		if _, is := t.sets[setBridges][element{key: string(b.mac[:])}]; is {
			out.Bridges[b.index] = true
		}
	}
	const port, addr = 4, 16
	for e := range t.sets[setV6] {
		if len(e.key) < port+addr {
			continue
		}
		a, _ := netip.AddrFromSlice([]byte(e.key[len(e.key)-addr:]))
		if !a.IsLinkLocalUnicast() {
			continue
		}
		if out.LinkLocals[e.portOf()] == nil {
			out.LinkLocals[e.portOf()] = map[netip.Addr]bool{}
		}
		out.LinkLocals[e.portOf()][a] = true
	}
	return out, nil
}
