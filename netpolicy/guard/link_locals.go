package guard

import (
	"fmt"
	"net/netip"
)

// LinkLocals tells which link-local addresses of IPv6 the table in the kernel lets each
// port have, by ifindex.
func (d *Driver) LinkLocals() (map[int]map[netip.Addr]bool, error) {
	out := map[int]map[netip.Addr]bool{}
	if !d.features.Filter {
		return out, nil
	}
	s, _, err := d.filter.read()
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	const port, addr = 4, 16
	for e := range s.sets[setV6] {
		if len(e.key) < port+addr {
			continue
		}
		a, _ := netip.AddrFromSlice([]byte(e.key[len(e.key)-addr:]))
		if !a.IsLinkLocalUnicast() {
			continue
		}
		if out[e.portOf()] == nil {
			out[e.portOf()] = map[netip.Addr]bool{}
		}
		out[e.portOf()][a] = true
	}
	return out, nil
}
