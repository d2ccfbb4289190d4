package agent

import (
	"net/netip"
	"slices"

	"netguard/agent/endpoint"
	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

// ruling is what policies come to, for some endpoints. It does not change.
type ruling struct {
	catalog   *netpolicy.Catalog
	byBridge  bool
	builtIn   []netpolicy.Policy // beside the catalog's
	endpoints []netpolicy.Endpoint
	rules     *netpolicy.RuleSet
	// states is what holds an endpoint.
	states map[endpoint.Key]netpolicy.State
	// within are the endpoints whose traffic within their network policies may
	// decide about, bridges those that have one.
	within  map[endpoint.Key]bool
	bridges map[string]bool
	// held are those that containers have.
	held map[netpolicy.Holding]bool
	// named are the extra addresses that the rules know.
	named map[endpoint.Key][]netip.Prefix
	// widened are the addresses by which a label would open something.
	widened map[endpoint.Key][]netip.Addr
	places  []place // of the endpoints
	wish    iptables.Wish
}

// place is what policies need not know of an endpoint, and bridges are chosen by.
type place struct {
	endpoint.Key
	bridge string
}

func (d *desire) place() place { return place{d.Key, d.Network.Bridge} }

// rule compiles. Where the operator lets labels name addresses of other networks, a
// container is told by its bridge as well. It is pure.
func rule(compiler *netpolicy.Compiler, catalog *netpolicy.Catalog, desires []*desire, ps []netpolicy.Endpoint, byBridge bool, held map[netpolicy.Holding]bool, builtIn ...netpolicy.Policy) *ruling {
	r := &ruling{catalog: catalog, builtIn: builtIn, endpoints: ps, byBridge: byBridge, states: map[endpoint.Key]netpolicy.State{},
		within: map[endpoint.Key]bool{}, bridges: map[string]bool{}, widened: map[endpoint.Key][]netip.Addr{}, named: map[endpoint.Key][]netip.Prefix{}}
	r.rules = compiler.Compile(netpolicy.World{Endpoints: ps, Policies: append(slices.Clip(catalog.Policies()), builtIn...), Broken: catalog.Broken(), Places: byBridge, Held: held})
	r.held = r.rules.Held(ps)
	within, widened := r.rules.Within(ps), r.rules.Widened(ps)
	for i, s := range r.rules.States {
		e := desires[i]
		r.places = append(r.places, e.place())
		r.states[e.Key], r.named[e.Key] = s, e.allow.Prefixes
		if len(widened[i]) > 0 {
			r.widened[e.Key] = widened[i]
		}
		if within[i] && e.Unmanaged == "" && e.Network.Bridge != "" {
			r.within[e.Key], r.bridges[e.Network.Bridge] = true, true
		}
	}
	r.everywhere(desires)
	r.wish = iptables.Wish{Rules: r.rules, Containers: addresses(ps), Homes: homes(desires)}
	for _, e := range ps {
		r.wish.Away = append(r.wish.Away, e.Away...)
	}
	return r
}

// compiler makes rulings, a new one only where it would be another one than before.
type compiler struct {
	policies netpolicy.Compiler
	last     *ruling
	desires  []*desire // that the last one was made for, or would have been
	swarm    uint16
}

// compile rules on the endpoints that there are now.
func (c *compiler) compile(catalog *netpolicy.Catalog, desires []*desire, byBridge bool, swarm uint16) *ruling {
	same := c.last != nil && c.last.catalog == catalog && c.last.byBridge == byBridge && c.swarm == swarm
	if same && slices.Equal(c.desires, desires) {
		return c.last
	}
	var ps []netpolicy.Endpoint
	var held map[netpolicy.Holding]bool
	if c.last != nil {
		var others bool
		if ps, others = c.parties(desires); !others && same {
			c.desires = desires
			return c.last
		}
		held = c.last.held
	} else {
		ps = parties(desires)
	}
	c.desires, c.swarm = desires, swarm
	c.last = rule(&c.policies, catalog, desires, ps, byBridge, held, builtIn(swarm)...)
	return c.last
}

// closed gives the ports of those that policies close for what reaches them, by ifindex.
func (r *ruling) closed(desires []*desire) map[int]bool {
	out := map[int]bool{}
	for i := range desires {
		if e := desires[i]; e.Port != nil && e.Unmanaged == "" && r.states[e.Key].Isolated(netpolicy.Ingress) {
			out[e.Port.Index] = true
		}
	}
	return out
}

// any tells whether policies are about a container.
func (r *ruling) any() bool {
	for _, s := range r.states {
		if s.Isolated(netpolicy.Ingress) || s.Isolated(netpolicy.Egress) {
			return true
		}
	}
	return false
}

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

// governs tells whether policies are about an endpoint.
func (r *ruling) governs(key endpoint.Key) bool {
	s := r.states[key]
	return s.Isolated(netpolicy.Ingress) || s.Isolated(netpolicy.Egress) || r.within[key]
}
