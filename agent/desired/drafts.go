package desired

import (
	"slices"

	"netguard/agent/config"
	"netguard/agent/endpoint"
	"netguard/shaper"
)

// drafts keeps what endpoints should have by their labels, so that each is worked out
// once. What did not change is the same pointer as before. The zero value is ready.
type drafts struct {
	cfg   *config.Config
	leaf  shaper.Leaf
	of    map[endpoint.Key]*draft
	round uint64
	out   []*Endpoint
}

// draft is what was worked out of an endpoint.
type draft struct {
	from  *endpoint.Endpoint
	is    *Endpoint
	round uint64 // the last one that it was in
}

// desired gives what each endpoint should have, in the order of the endpoints. Nobody may
// change what a pointer leads to. It is pure, but for what it keeps.
func (m *drafts) desired(endpoints []*endpoint.Endpoint, cfg *config.Config, leaf shaper.Leaf) []*Endpoint {
	if m.of == nil || m.cfg != cfg || m.leaf != leaf {
		*m = drafts{cfg: cfg, leaf: leaf, of: make(map[endpoint.Key]*draft, len(endpoints))}
	}
	m.round++
	var others map[string]bool // containers of which an endpoint is another one
	other := func(container string) {
		if others == nil {
			others = map[string]bool{}
		}
		others[container] = true
	}
	moved := len(m.out) != len(endpoints)
	for i, e := range endpoints {
		d := m.of[e.Key]
		if d == nil {
			d = &draft{}
			m.of[e.Key] = d
		}
		if d.round = m.round; d.from != e {
			other(e.Key.Container)
		}
		moved = moved || m.out[i] != d.is
	}
	if len(m.of) > len(endpoints) {
		for key, d := range m.of {
			if d.round != m.round {
				delete(m.of, key)
				other(key.Container)
			}
		}
	}
	if others == nil && !moved {
		return m.out
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
		d := m.of[e.Key]
		d.from, d.is = e, newEndpoint(e, cfg, leaf, on[e.Key.Container])
		d.is.alone = places[e.Key.Container] == 1 && len(d.is.Allow.Prefixes) == 0 && len(e.Container.LocalAddrs) == 0 &&
			(e.Port == nil || len(e.Port.LinkLocals) == 0)
	}
	m.out = make([]*Endpoint, len(endpoints))
	for i, e := range endpoints {
		m.out[i] = m.of[e.Key].is
	}
	return m.out
}

// copies gives endpoints that may be changed: copies of those that others decide about,
// and the rest as they are.
func copies(endpoints []*Endpoint) []*Endpoint {
	out := slices.Clone(endpoints)
	for i, d := range out {
		if !d.alone {
			out[i] = d.copy()
		}
	}
	return out
}

// copy is one that may be changed.
func (d *Endpoint) copy() *Endpoint {
	c := *d
	c.base = d
	return &c
}

// settled are the endpoints of the last round, by key: a copy that came to the same is
// the same pointer.
type settled map[endpoint.Key]*Endpoint

// settle replaces the copies that came to the same as before, and tells whether any endpoint
// is another one than before.
func (s *settled) settle(endpoints []*Endpoint) (changed bool) {
	if *s == nil {
		*s = settled{}
	}
	changed = len(*s) != len(endpoints)
	for i, d := range endpoints {
		was := (*s)[d.Key]
		if was != nil && was != d && was.base == d.base && d.base != nil && was.same(d) {
			endpoints[i] = was
			continue
		}
		if was != d {
			changed = true
			(*s)[d.Key] = d
		}
	}
	if len(*s) > len(endpoints) {
		clear(*s)
		for _, d := range endpoints {
			(*s)[d.Key] = d
		}
	}
	return changed
}

// same tells whether what was decided about two copies of one endpoint is the same.
func (d *Endpoint) same(o *Endpoint) bool {
	return slices.Equal(d.Allow.Prefixes, o.Allow.Prefixes) && slices.Equal(d.Allow.MACs, o.Allow.MACs) &&
		slices.Equal(d.Extra, o.Extra) && slices.Equal(d.locals, o.locals) && slices.Equal(d.answers, o.answers) &&
		slices.Equal(d.Wrong, o.Wrong) && slices.Equal(d.notes, o.notes)
}

// Narrow leaves out the extra addresses that the ruling says an endpoint must not have, and
// those that the rules in force do not know yet; inForce is nil while there are none.
func (s *State) Narrow(inForce *Ruling) {
	s.Endpoints = slices.Clone(s.Endpoints)
	for i, d := range s.Endpoints {
		found := s.Ruling.States[d.Key].Uncounted
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
