package desired

import (
	"slices"

	"netguard/agent/config"
	"netguard/agent/endpoint"
	"netguard/internal/changed"
	"netguard/shaper"
)

// drafts keeps what endpoints should have by their labels, so that each is worked out only
// once. An endpoint that did not change keeps its pointer. The zero value is ready.
type drafts struct {
	op   endpoint.Operator
	cfg  *config.Config
	leaf shaper.Leaf
	in   []*endpoint.Endpoint // of the last call
	of   map[*endpoint.Endpoint]*Endpoint
	out  []*Endpoint
}

// desired gives what each endpoint should have, in the order of the endpoints. Nobody may
// change the slice, or what its pointers lead to. It is pure, except for what drafts keeps.
func (m *drafts) desired(endpoints []*endpoint.Endpoint, op endpoint.Operator, cfg *config.Config, leaf shaper.Leaf) []*Endpoint {
	if m.of == nil || !m.op.Same(op) || m.cfg != cfg || m.leaf != leaf {
		*m = drafts{op: op, cfg: cfg, leaf: leaf, of: make(map[*endpoint.Endpoint]*Endpoint, len(endpoints))}
	}
	if slices.Equal(m.in, endpoints) {
		return m.out
	}
	gone, came := changed.Between(m.in, endpoints)
	others := make(map[string]bool, len(came)+len(gone)) // containers with an endpoint that changed
	for _, e := range came {
		others[e.Key.Container] = true
	}
	for _, e := range gone {
		others[e.Key.Container] = true
		delete(m.of, e)
	}
	var affected []*endpoint.Endpoint
	for _, e := range endpoints {
		if others[e.Key.Container] {
			affected = append(affected, e)
		}
	}
	on, places := networksOf(affected), map[string]int{}
	for _, e := range affected {
		places[e.Key.Container]++
	}
	for _, e := range affected {
		d := newEndpoint(e, op, cfg, leaf, on[e.Key.Container])
		d.alone = places[e.Key.Container] == 1 && len(d.Allow.Prefixes) == 0 && len(e.Container.LocalAddrs) == 0 &&
			(e.Port == nil || len(e.Port.LinkLocals) == 0)
		m.of[e] = d
	}
	m.in, m.out = endpoints, make([]*Endpoint, len(endpoints))
	for i, e := range endpoints {
		m.out[i] = m.of[e]
	}
	return m.out
}

// copies gives endpoints that Decide may change. It copies each endpoint that more than its
// labels decides about (not alone). All others keep their pointers.
func copies(endpoints []*Endpoint) []*Endpoint {
	first := slices.IndexFunc(endpoints, func(d *Endpoint) bool { return !d.alone })
	if first < 0 {
		return endpoints
	}
	out := slices.Clone(endpoints)
	for i := first; i < len(out); i++ {
		if !out[i].alone {
			out[i] = out[i].copy()
		}
	}
	return out
}

// copy gives a copy that may be changed.
func (d *Endpoint) copy() *Endpoint {
	c := *d
	c.base = d
	return &c
}

// settled keeps the endpoints of the last Decide, and the copies among them by key. So a copy
// that did not change keeps its pointer.
type settled struct {
	all    []*Endpoint
	copies map[endpoint.Key]*Endpoint
}

// settle replaces each copy that equals the one before by that one. It tells whether any
// endpoint changed.
func (s *settled) settle(endpoints []*Endpoint) (changed bool) {
	now := map[endpoint.Key]*Endpoint{}
	for i, d := range endpoints {
		if d.base == nil {
			continue
		}
		if was := s.copies[d.Key]; was != nil && was.base == d.base && was.same(d) {
			endpoints[i] = was
		}
		now[d.Key] = endpoints[i]
	}
	changed = !slices.Equal(s.all, endpoints)
	s.all, s.copies = endpoints, now
	return changed
}

// same tells whether Decide decided the same about two copies of one endpoint.
func (d *Endpoint) same(o *Endpoint) bool {
	return slices.Equal(d.Allow.Prefixes, o.Allow.Prefixes) && slices.Equal(d.Allow.MACs, o.Allow.MACs) &&
		slices.Equal(d.Extra, o.Extra) && slices.Equal(d.locals, o.locals) && slices.Equal(d.answers, o.answers) &&
		slices.Equal(d.Wrong, o.Wrong) && slices.Equal(d.notes, o.notes)
}

// Narrow removes extra addresses of endpoints: those that the ruling does not permit, and those
// that the rules in force do not know yet. inForce is nil while no rules are in force.
func (s *State) Narrow(inForce *Ruling) {
	if !s.Ruling.uncounted && !slices.ContainsFunc(s.Endpoints, func(d *Endpoint) bool { return len(d.Allow.Prefixes) > 0 }) {
		return
	}
	s.Endpoints = slices.Clone(s.Endpoints)
	for i, d := range s.Endpoints {
		found := s.Ruling.Rules.States[i].Uncounted
		if len(found) == 0 && len(d.Allow.Prefixes) == 0 {
			continue
		}
		c := d.copy()
		c.uncounted(found)
		c.narrow(s.Ruling, s.Config.Claims)
		c.await(inForce)
		s.Endpoints[i] = c
	}
}
