package netpolicy

import (
	"net/netip"
	"slices"
	"strings"
)

// class is ends of connections that all rules of both rule sets treat alike in one family.
type class struct {
	names    []string
	endpoint *Endpoint // the first of them, nil for the host and the world
	network  string
	host     bool
	addr     netip.Addr
}

// compare walks all services between all classes.
func (p *planner) compare() {
	for _, ipv6 := range []bool{false, true} {
		total := spans(ipv6, p.before, p.after)
		differ := p.differences(ipv6)
		classes := p.classes(ipv6)
		for i := range classes {
			for j := range classes {
				from, to := &classes[i], &classes[j]
				if !meet(from, to, i == j) {
					continue
				}
				p.spent += 1 + len(differ.rules[0]) + len(differ.rules[1])
				if to.host || differ.between(from.addr, to.addr, from.bridge(), to.bridge()) {
					p.pair(from, to, ipv6, total)
				}
				if p.spent > p.work {
					return
				}
			}
		}
	}
}

// bridge gives the bridge of the class, "" for the host and the world.
func (c *class) bridge() string { return c.endpoint.bridge() }

// meet tells whether rules are asked about connections from one class to
// another.
func meet(from, to *class, same bool) bool {
	switch {
	case from.endpoint == nil && to.endpoint == nil:
		return to.host && !from.host // to published ports
	case scopeOf(from.addr) != scopeOf(to.addr):
		return false
	case from.endpoint == nil || to.endpoint == nil:
		return true
	case same:
		return len(from.names) > 1
	}
	return from.network == to.network
}

func (p *planner) pair(from, to *class, ipv6 bool, total []span) {
	path := Forward
	if to.host {
		path = Input
	} else if from.host {
		path = Output
	}
	is := explainer{rs: p.after, judge: p.is, endpoints: p.endpoints, src: from.party(), dst: to.party()}
	was := is
	was.rs, was.judge = p.before, p.was
	ends := pair{path, from.endpoint, to.endpoint, from.addr, to.addr}
	type lot struct {
		found
		spans []span
	}
	var lots []*lot
	for _, s := range total {
		packet, ok := s.first.packet(Packet{Path: path, Src: from.addr, Dst: to.addr, From: from.bridge(), To: to.bridge()}, ipv6)
		if !ok {
			continue
		}
		then, now := p.was.Walk(packet), p.is.Walk(packet)
		p.spent += then.steps + now.steps
		if then.Allowed == now.Allowed {
			continue
		}
		policies := is.answer(ends, "", now, &s.first).Policies
		open := len(policies) == 0
		if open {
			policies = was.answer(ends, "", then, &s.first).Policies
		}
		i := slices.IndexFunc(lots, func(l *lot) bool {
			return l.Allowed == now.Allowed && l.open == open && slices.Equal(l.Policies, policies)
		})
		if i < 0 {
			i = len(lots)
			lots = append(lots, &lot{found: found{ConnectionChange{
				From: slices.Clone(from.names), To: slices.Clone(to.names), Networks: networksOf(from, to),
				Allowed: now.Allowed, Policies: policies, open: open,
			}, ipv6}})
		}
		lots[i].spans = append(lots[i].spans, s)
	}
	for _, l := range lots {
		l.Service = spansText(l.spans, total)
		p.found = append(p.found, l.found)
	}
}

// networksOf names the network of a pair, or the host if neither end is a container.
func networksOf(from, to *class) []string {
	for _, c := range []*class{from, to} {
		if c.endpoint != nil {
			return []string{c.network}
		}
	}
	return []string{"the host"}
}

func (c *class) party() Party {
	p := Party{Name: c.names[0], Host: c.host}
	if c.endpoint != nil {
		p.Endpoints = []Endpoint{*c.endpoint}
	}
	return p
}

// classes divides into classes all that may be an end of a connection in a family.
func (p *planner) classes(ipv6 bool) []class {
	var all []class
	at := map[string]int{}
	add := func(key string, c class) {
		if i, ok := at[key]; ok {
			for _, name := range c.names {
				if c.endpoint != nil || !slices.Contains(all[i].names, name) {
					all[i].names = append(all[i].names, name)
				}
			}
			return
		}
		at[key] = len(all)
		all = append(all, c)
	}
	for i := range p.endpoints {
		cleaned := cleaned(*p.endpoints[i])
		e := &cleaned
		j := slices.IndexFunc(e.Addrs, func(a netip.Addr) bool { return a.Is6() == ipv6 })
		if j < 0 {
			continue
		}
		// A change names the policies that close its ends, so these tell classes apart.
		key := "container\x00" + e.Network + "\x00" + p.memberships(e.Addrs[j], e.Bridge, ipv6) + "\x00" + p.closedBy(i)
		add(key, class{names: []string{e.Name}, endpoint: e, network: e.Network, addr: e.Addrs[j]})
	}
	for _, a := range ends(Party{Host: true, Addrs: p.host}, Party{}) {
		if a.addr.Is6() != ipv6 {
			continue
		}
		// Its ports may be published on one address and not on another.
		add("host\x00"+a.addr.String(), class{names: []string{"host"}, host: true, addr: a.addr})
	}
	hosts := filter(all, func(c class) bool { return c.host })
	for i := range all {
		if all[i].host && len(hosts) > 1 {
			all[i].names = []string{"host (" + all[i].addr.String() + ")"}
		}
	}
	for _, o := range p.world(ipv6) {
		add("world\x00"+p.memberships(o.addr, "", ipv6), o)
	}
	return all
}

// closedBy lists what closes an endpoint in both rule sets.
func (p *planner) closedBy(i int) string {
	var b strings.Builder
	for _, rs := range []*RuleSet{p.before, p.after} {
		for _, d := range Directions {
			b.WriteString(strings.Join(closers(rs.States[i], d), "\x01") + "\x02")
		}
	}
	return b.String()
}

// memberships tells in which sets of both rule sets an address is.
func (p *planner) memberships(a netip.Addr, bridge string, ipv6 bool) string {
	var b strings.Builder
	for _, j := range []*Judge{p.was, p.is} {
		f := &j.families[index(ipv6)]
		for i := range f.Sets {
			if s := &f.Sets[i]; s.Kind != Published && s.has(a, bridge, &Packet{}) {
				b.WriteString(s.Name + " ")
			}
		}
	}
	return b.String()
}

// world gives one address for each part of the outside world that the CIDRs of both rule sets
// tell apart. The name of a part is the CIDRs that it is in.
func (p *planner) world(ipv6 bool) []class {
	var bounds []netip.Addr
	bound := func(a netip.Addr) {
		if a.IsValid() {
			bounds = append(bounds, a)
		}
	}
	start := netip.MustParseAddr("1.0.0.0") // what is below is not reached
	if ipv6 {
		start = netip.MustParseAddr("2000::")
	}
	bound(start)
	cost := 0 // of one address
	var nets []Set
	for _, rs := range []*RuleSet{p.before, p.after} {
		for _, s := range rs.Families()[index(ipv6)].Sets {
			if s.Kind != Nets || slices.ContainsFunc(nets, func(o Set) bool { return o.Name == s.Name }) {
				continue
			}
			nets = append(nets, s)
			cost += 1 + len(s.of)
			for _, c := range s.of {
				for _, prefix := range c.prefixes {
					bound(prefix.Addr())
					bound(lastOf(prefix).Next())
				}
			}
		}
	}
	taken := holders{}
	for _, e := range p.endpoints {
		taken.add(&subject{inspected: &inspected{Endpoint: cleaned(*e)}})
	}
	for i, a := range bounds {
		for len(taken[a].by()) > 0 && a.Next().IsValid() {
			a = a.Next()
		}
		bounds[i] = a
	}
	slices.SortFunc(bounds, netip.Addr.Compare)
	var all []class
	for _, a := range slices.Compact(bounds) {
		if p.spent += cost; p.spent > p.work {
			return all
		}
		all = append(all, class{names: []string{partOf(nets, a)}, addr: a})
	}
	return all
}

// partOf names the part of the world that an address is in, by the CIDRs that
// operators wrote.
func partOf(nets []Set, a netip.Addr) string {
	var names []string
	for _, s := range nets {
		for _, c := range s.of {
			if name := c.String(); c.contains(a) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return "the rest of the world"
	}
	return strings.Join(names, " and ")
}

func lastOf(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := p.Bits(); i < len(raw)*8; i++ {
		raw[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a
}
