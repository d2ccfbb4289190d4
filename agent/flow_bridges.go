package agent

import (
	"net/netip"
	"slices"

	"netguard/agent/link"
	"netguard/netpolicy/iptables"
)

// flowBridges tells by which bridges a connection comes and goes. The kernel's table
// does not say.
type flowBridges struct {
	homes map[netip.Addr][]string
	away  []away
	index map[string]int // of bridges
	route func(netip.Addr) (link.Route, error)
}

// away is what is a container's on its bridge alone.
type away struct {
	prefix netip.Prefix
	bridge string
}

// flowBridges is needed, and something, only where the rules ask for bridges.
func (r *ruling) flowBridges(index map[string]int, route func(netip.Addr) (link.Route, error)) *flowBridges {
	if !r.byBridge {
		return nil
	}
	w := &flowBridges{homes: map[netip.Addr][]string{}, index: index, route: route}
	for _, h := range r.wish.Homes {
		if !slices.Contains(w.homes[h.Addr], h.Bridge) {
			w.homes[h.Addr] = append(w.homes[h.Addr], h.Bridge)
		}
	}
	for _, e := range r.endpoints {
		for _, p := range e.Away {
			w.away = append(w.away, away{p, e.Bridge})
		}
	}
	return w
}

// of gives the bridges of both ends, "" for none.
func (w *flowBridges) of(f iptables.Flow) (from, to string) {
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

// end gives the bridge of an end. What is away is on the bridge of the other end, if
// nothing was translated, or where the host's route leads.
func (w *flowBridges) end(a netip.Addr, homes, others []string, f iptables.Flow) string {
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
