package link

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is how the host reaches an address.
type Route struct {
	// Bits is the length of the route's prefix, 0 where there is no route.
	Bits int
	// Own says that the address is the host's own. Broadcast says that it is the broadcast
	// address of a network that the host is on.
	Own, Broadcast bool
	// Links are the ifindexes of the devices that the route leads to; none if it refuses.
	Links []int
	// Device is the name of the first of Links.
	Device string
}

// RouteTo asks the kernel for the route to an address. It takes some 10 us.
func (t *Table) RouteTo(a netip.Addr) (Route, error) {
	routes, err := t.ask.RouteGetWithOptions(a.Unmap().AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL):
		return Route{}, nil // none, or one that refuses
	case err != nil:
		return Route{}, fmt.Errorf("ask for the route to %s: %w", a, err)
	case len(routes) == 0:
		return Route{}, nil
	}
	found := routes[0]
	r := Route{Own: found.Type == unix.RTN_LOCAL, Broadcast: found.Type == unix.RTN_BROADCAST}
	if found.Dst != nil {
		r.Bits, _ = found.Dst.Mask.Size()
	}
	if found.LinkIndex != 0 {
		r.Links = append(r.Links, found.LinkIndex)
	}
	for _, hop := range found.MultiPath {
		r.Links = append(r.Links, hop.LinkIndex)
	}
	if len(r.Links) > 0 {
		if link, err := t.ask.LinkByIndex(r.Links[0]); err == nil {
			r.Device = link.Attrs().Name
		}
	}
	return r, nil
}
