package reconcile

import (
	"net/netip"
	"time"

	"netguard/agent/link"
)

// routesFor is how long an answer about a route is kept: labels may name many addresses.
const routesFor = 10 * time.Second

// routes asks the kernel for routes, and keeps the answers for a while.
type routes struct {
	ask   func(netip.Addr) (link.Route, error)
	own   func() (map[netip.Addr]bool, error) // the host's addresses
	now   func() time.Time
	known map[netip.Addr]link.Route
	hosts map[netip.Addr]bool
	since time.Time
}

func (r *routes) to(a netip.Addr) (link.Route, error) {
	if now := r.now(); r.known == nil || now.Sub(r.since) > routesFor {
		hosts, err := r.own() // one of IPv6 has no route while its device has no carrier
		if err != nil {
			return link.Route{}, err
		}
		r.known, r.hosts, r.since = map[netip.Addr]link.Route{}, hosts, now
	}
	if known, ok := r.known[a]; ok {
		return known, nil
	}
	found, err := r.ask(a)
	if err != nil {
		return link.Route{}, err
	}
	found.Own = found.Own || r.hosts[a]
	r.known[a] = found
	return found, nil
}
