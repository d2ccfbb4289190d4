package agent

import (
	"slices"

	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

// homes gives the bridges of the containers that are netguard's: of the addresses that
// Docker gave them, of their link-local ones, and of their extra ones that are of the
// same network. It is pure.
func homes(desires []*desire) []iptables.Home {
	var out []iptables.Home
	for _, e := range desires {
		if e.Unmanaged != "" || e.Network.Bridge == "" {
			continue
		}
		for _, a := range slices.Concat(e.own(), e.extra) {
			out = append(out, iptables.Home{Addr: a, Bridge: e.Network.Bridge})
		}
	}
	return out
}

// everywhere has all bridges of a container filtered if policies hold it on one of its
// networks: it takes what is for any of its addresses by all of them.
func (r *ruling) everywhere(desires []*desire) {
	held := map[string]bool{}
	for i, s := range r.rules.States {
		held[desires[i].Container.ID] = held[desires[i].Container.ID] || s.Isolated(netpolicy.Ingress) && desires[i].Unmanaged == ""
	}
	for i := range desires {
		if e := desires[i]; held[e.Container.ID] && e.Unmanaged == "" && e.Network.Bridge != "" {
			r.within[e.Key], r.bridges[e.Network.Bridge] = true, true
		}
	}
}
