package netpolicy

import (
	"net/netip"
	"slices"
)

// Usable tells whether a container can have an address to itself.
func Usable(a netip.Addr) bool {
	a, ok := usable(a)
	return ok && !(a.Is4() && (a.As4()[0] == 0 || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})))
}

// usable gives an address in the form in which addresses are compared. ok is false if no
// container can have the address to itself.
func usable(a netip.Addr) (netip.Addr, bool) {
	a = a.Unmap().WithZone("")
	return a, a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast()
}

// cleaned gives an endpoint with usable addresses only.
func cleaned(e Endpoint) Endpoint {
	for _, list := range []*[]netip.Addr{&e.Addrs, &e.Extra} {
		var kept []netip.Addr
		for _, a := range *list {
			if a, ok := usable(a); ok {
				kept = append(kept, a)
			}
		}
		*list = kept
	}
	e.Away = filter(e.Away, func(p netip.Prefix) bool { return p.IsValid() && p == p.Masked() && !p.Addr().Is4In6() })
	return e
}

// holder lists the subjects that have an address, as their own or as an extra one.
type holder struct {
	own, extra []*subject
}

// by gives the subjects that have the address. An extra address does not count if it is
// somebody's own.
func (h *holder) by() []*subject {
	switch {
	case h == nil:
		return nil
	case len(h.own) > 0:
		return h.own
	}
	return h.extra
}

// holders are the addresses that subjects have.
type holders map[netip.Addr]*holder

func (all holders) each(s *subject, f func(*[]*subject)) {
	for _, a := range s.Addrs {
		f(&all.at(a).own)
	}
	if s.Managed {
		for _, a := range s.Extra {
			f(&all.at(a).extra)
		}
	}
}

func (all holders) at(a netip.Addr) *holder {
	h := all[a]
	if h == nil {
		h = &holder{}
		all[a] = h
	}
	return h
}

func (all holders) add(s *subject) {
	all.each(s, func(list *[]*subject) {
		if !slices.Contains(*list, s) {
			*list = append(*list, s)
		}
	})
}

func (all holders) remove(s *subject) {
	all.each(s, func(list *[]*subject) {
		*list = slices.DeleteFunc(*list, func(o *subject) bool { return o == s })
	})
	for _, a := range s.addresses() {
		if h := all[a]; h != nil && len(h.own)+len(h.extra) == 0 {
			delete(all, a)
		}
	}
}

// addresses are those that a subject may have.
func (s *subject) addresses() []netip.Addr { return slices.Concat(s.Addrs, s.Extra) }
