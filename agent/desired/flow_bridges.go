package desired

import (
	"net/netip"
	"slices"

	"netguard/agent/link"
	"netguard/netpolicy/iptables"
)

// FlowBridges tells by which bridges a connection comes and goes. The kernel's table of
// connections does not say it.
type FlowBridges struct {
	homes map[netip.Addr][]string
	away  []away
	index map[string]int // of bridges
	route func(netip.Addr) (link.Route, error)
}

// away are extra addresses that are a container's only on its own bridge.
type away struct {
	prefix netip.Prefix
	bridge string
}

// FlowBridges is nil unless the rules tell containers by their bridges too. A nil one is ready.
func (r *Ruling) FlowBridges(index map[string]int, route func(netip.Addr) (link.Route, error)) *FlowBridges {
	if !r.ByBridge {
		return nil
	}
	w := &FlowBridges{homes: map[netip.Addr][]string{}, index: index, route: route}
	for _, h := range r.Wish.Homes {
		if !slices.Contains(w.homes[h.Addr], h.Bridge) {
			w.homes[h.Addr] = append(w.homes[h.Addr], h.Bridge)
		}
	}
	for _, e := range r.Endpoints {
		for _, p := range e.Away {
			w.away = append(w.away, away{p, e.Bridge})
		}
	}
	return w
}

// Of gives the bridges of both ends, "" for none.
func (w *FlowBridges) Of(f iptables.Flow) (from, to string) {
	if w == nil {
		return "", ""
	}
	src, dst := w.homes[f.Src.Addr()], w.homes[f.Dst.Addr()]
	for _, bridge := range src { // link-local addresses may be on several
		if slices.Contains(dst, bridge) {
			return bridge, bridge
		}
	}
	from, to = w.end(f.Src.Addr(), src, dst, f), w.end(f.Dst.Addr(), dst, src, f)
	return from, to
}

// end gives the bridge of the end with address a. An away address is on the bridge of the other
// end if nothing was translated, or on the bridge that the host's route leads to.
func (w *FlowBridges) end(a netip.Addr, homes, others []string, f iptables.Flow) string {
	if len(homes) > 0 {
		return homes[0]
	}
	for _, o := range w.away {
		if !o.prefix.Contains(a) {
			continue
		}
		if !f.Translated && slices.Contains(others, o.bridge) {
			return o.bridge
		}
		if r, err := w.route(a); err == nil && slices.Contains(r.Links, w.index[o.bridge]) {
			return o.bridge
		}
	}
	return ""
}
