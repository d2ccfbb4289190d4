package desired

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"netguard/agent/endpoint"
	"netguard/internal/changed"
	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

// Ruling is what policies mean for some endpoints. It does not change.
type Ruling struct {
	catalog   *netpolicy.Catalog
	ByBridge  bool
	BuiltIn   []netpolicy.Policy // beside the catalog's
	Endpoints []*netpolicy.Endpoint
	Rules     *netpolicy.RuleSet
	// within tells for each endpoint whether policies may decide about its intra-bridge
	// traffic. Bridges are the bridges that have such an endpoint.
	within  []bool
	Bridges map[string]bool
	// Held are the extra addresses that containers have.
	Held map[netpolicy.Holding]bool
	// named are the extra addresses that the rules were made for.
	named map[endpoint.Key][]netip.Prefix
	// widened are the addresses by which a label would open what policies leave closed.
	widened map[endpoint.Key][]netip.Addr
	// uncounted says that some label does not count: see netpolicy.State.Uncounted.
	uncounted bool
	at        func() map[endpoint.Key]int // the places of the endpoints
	Wish      iptables.Wish
}

// rule compiles the policies for the endpoints. With byBridge the rules tell a container by its
// bridge as well: it may have addresses that count only there. It is pure.
func rule(compiler *netpolicy.Compiler, catalog *netpolicy.Catalog, endpoints []*Endpoint, ps []*netpolicy.Endpoint, byBridge, published bool, held map[netpolicy.Holding]bool, apart map[string]bool, builtIn ...netpolicy.Policy) *Ruling {
	r := &Ruling{catalog: catalog, BuiltIn: builtIn, Endpoints: ps, ByBridge: byBridge, Bridges: map[string]bool{}, widened: map[endpoint.Key][]netip.Addr{}, named: map[endpoint.Key][]netip.Prefix{}}
	r.Rules = compiler.Compile(netpolicy.World{Endpoints: ps, Policies: append(slices.Clip(catalog.Policies()), builtIn...), Broken: catalog.Broken(), Places: byBridge, Unpublished: !published, Held: held, Apart: apart})
	r.Held, r.within = r.Rules.Held(ps), r.Rules.Within(ps)
	r.at = sync.OnceValue(func() map[endpoint.Key]int { // most often nobody asks
		at := make(map[endpoint.Key]int, len(endpoints))
		for i, e := range endpoints {
			at[e.Key] = i
		}
		return at
	})
	for i, e := range endpoints {
		r.uncounted = r.uncounted || len(r.Rules.States[i].Uncounted) > 0
		if len(e.Allow.Prefixes) > 0 {
			r.named[e.Key] = e.Allow.Prefixes
		}
	}
	for i, addrs := range r.Rules.Widened(ps) {
		if len(addrs) > 0 {
			r.widened[endpoints[i].Key] = addrs
		}
	}
	r.everywhere(endpoints)
	r.Wish = iptables.Wish{Rules: r.Rules, Containers: Addresses(ps), Homes: homes(endpoints), Subnets: subnetsOf(endpoints)}
	for _, e := range ps {
		r.Wish.Away = append(r.Wish.Away, e.Away...)
	}
	return r
}

// Rule gives the ruling about some endpoints.
func Rule(catalog *netpolicy.Catalog, endpoints []*Endpoint) *Ruling {
	return new(compiler).compile(catalog, endpoints, false, 0)
}

// compiler makes rulings. It makes a new one only if that would differ from the last one.
type compiler struct {
	policies  netpolicy.Compiler
	last      *Ruling
	endpoints []*Endpoint // that the last ruling was asked for
	swarm     uint16
	// published says that an endpoint has published a port. It stays set, so that the rules
	// are not written again for each container that comes and goes.
	published bool
}

// compile gives the ruling for the endpoints.
func (c *compiler) compile(catalog *netpolicy.Catalog, endpoints []*Endpoint, byBridge bool, swarm uint16) *Ruling {
	same := c.last != nil && c.last.catalog == catalog && c.last.ByBridge == byBridge && c.swarm == swarm
	if same && slices.Equal(c.endpoints, endpoints) {
		return c.last
	}
	ps, others := c.parties(endpoints)
	if c.endpoints = endpoints; same && !others {
		return c.last
	}
	var held map[netpolicy.Holding]bool
	var apart map[string]bool
	if c.last != nil {
		held, apart = c.last.Held, c.last.Rules.Apart
	}
	c.swarm = swarm
	c.published = c.published || slices.ContainsFunc(ps, (*netpolicy.Endpoint).Publishes)
	c.last = rule(&c.policies, catalog, endpoints, ps, byBridge, c.published, held, apart, builtIn(swarm)...)
	return c.last
}

// closed keeps the ports that policies isolate for ingress, by ifindex, as they were found last.
type closed struct {
	ruling    *Ruling
	endpoints []*Endpoint
	indexes   []int
	ports     map[int]bool // the same
}

// of gives these ports. The endpoints must be those of the ruling, in the same order. If the
// ports did not change, it gives the same map as before.
func (c *closed) of(r *Ruling, endpoints []*Endpoint) map[int]bool {
	if c.ruling == r && slices.Equal(c.endpoints, endpoints) {
		return c.ports
	}
	indexes := make([]int, 0, len(endpoints))
	for i, e := range endpoints {
		if e.Port != nil && e.Unmanaged == "" && r.Rules.States[i].Isolated(netpolicy.Ingress) {
			indexes = append(indexes, e.Port.Index)
		}
	}
	gone, came := changed.Between(c.indexes, indexes)
	if len(gone)+len(came) > 0 || c.ports == nil {
		ports := make(map[int]bool, len(indexes))
		maps.Copy(ports, c.ports)
		for _, index := range gone {
			delete(ports, index)
		}
		for _, index := range came {
			ports[index] = true
		}
		c.ports = ports
	}
	c.ruling, c.endpoints, c.indexes = r, endpoints, indexes
	return c.ports
}

// Any tells whether policies isolate any endpoint.
func (r *Ruling) Any() bool {
	for _, s := range r.Rules.States {
		if s.Isolated(netpolicy.Ingress) || s.Isolated(netpolicy.Egress) {
			return true
		}
	}
	return false
}

// homes binds addresses of managed containers to their bridges: the addresses that Docker gave
// them, their link-local ones, and their extra ones of the same network. It is pure.
func homes(endpoints []*Endpoint) []iptables.Home {
	out := make([]iptables.Home, 0, 2*len(endpoints))
	for _, e := range endpoints {
		if e.Unmanaged != "" || e.Network.Bridge == "" {
			continue
		}
		for _, all := range [][]netip.Addr{e.Own(), e.Extra} {
			for _, a := range all {
				out = append(out, iptables.Home{Addr: a, Bridge: e.Network.Bridge})
			}
		}
	}
	return out
}

// subnetsOf gives the subnets of managed containers, and the one of link-local addresses. It is
// pure.
func subnetsOf(endpoints []*Endpoint) []netip.Prefix {
	out := []netip.Prefix{netip.MustParsePrefix("fe80::/10")}
	seen := map[string]bool{}
	for _, e := range endpoints {
		if e.Unmanaged == "" && e.Network.Bridge != "" && !seen[e.Network.ID] {
			seen[e.Network.ID] = true
			out = append(out, e.Network.Subnets...)
		}
	}
	return out
}

// everywhere makes all bridges of a container hand frames to the rules if policies isolate it
// for ingress on one of its networks. The container takes packets for any of its addresses on
// each of them.
func (r *Ruling) everywhere(endpoints []*Endpoint) {
	held := map[string]bool{} // those that may be on several networks
	for i, e := range endpoints {
		if !e.alone && e.Unmanaged == "" && r.Rules.States[i].Isolated(netpolicy.Ingress) {
			held[e.Key.Container] = true
		}
	}
	for i, e := range endpoints {
		if r.within[i] = (r.within[i] || !e.alone && held[e.Key.Container]) && e.Unmanaged == "" && e.Network.Bridge != ""; r.within[i] {
			r.Bridges[e.Network.Bridge] = true
		}
	}
}

// State says what isolates an endpoint.
func (r *Ruling) State(key endpoint.Key) netpolicy.State {
	if i, known := r.at()[key]; known {
		return *r.Rules.States[i]
	}
	return netpolicy.State{}
}

// Within tells whether policies may decide about an endpoint's intra-bridge traffic.
func (r *Ruling) Within(key endpoint.Key) bool {
	i, known := r.at()[key]
	return known && r.within[i]
}

// Governs tells whether policies may decide about any traffic of an endpoint.
func (r *Ruling) Governs(key endpoint.Key) bool {
	s := r.State(key)
	return s.Isolated(netpolicy.Ingress) || s.Isolated(netpolicy.Egress) || r.Within(key)
}
