package guard

import (
	"cmp"
	"net/netip"
	"slices"
)

// There are two ways to a plan. newPlan makes the whole plan. replan works some changed ports
// into the last plan, and its cost does not depend on the other ports. Both come to the same
// plan: where a change could concern any number of ports, replan leaves it to newPlan.

// asset is a MAC or an address that a port asks for. Ports depend on each other only if they ask
// for the same asset. A MAC is one asset on all bridges, though ports of two bridges may have it.
type asset struct {
	bridge int
	mac    MAC
	addr   netip.Addr
}

// total is a property of ports. The plan counts how many ports have it.
type total struct {
	what   string
	number int
	addr   netip.Addr
}

// assets gives all that a port could ask for.
func (p *Port) assets() []asset {
	addrs, macs := []netip.Addr{p.IPv4.Unmap(), p.IPv6.Unmap()}, p.Allow.MACs
	if p.MAC != (MAC{}) {
		addrs, macs = append(addrs, p.MAC.LinkLocal()), append([]MAC{p.MAC}, macs...)
	}
	for _, prefix := range p.Allow.Prefixes {
		if prefix.IsSingleIP() {
			addrs = append(addrs, prefix.Addr())
		}
	}
	for _, a := range p.Answers {
		addrs = append(addrs, a.Unmap())
	}
	out := make([]asset, 0, len(addrs)+len(macs)+2)
	for _, m := range macs {
		out = append(out, asset{mac: m})
	}
	for _, a := range addrs {
		if !a.IsValid() {
			continue
		}
		// A limit of connections belongs to an address on whichever bridge.
		if out = append(out, asset{addr: a}); a.IsLinkLocalUnicast() {
			out = append(out, asset{bridge: p.Bridge, addr: a})
		}
	}
	return out
}

const ofBridge = "of a bridge"

// count counts a port, n is 1 or -1.
func (p *plan) count(pp *portPlan, n int) {
	all := []total{{what: ofBridge, number: pp.Bridge}}
	if !pp.Guarded {
		all = append(all, total{what: "unguarded", number: pp.Bridge})
	}
	if pp.limited() {
		all = append(all, total{what: "connections", number: int(pp.Connections)})
	}
	for _, g := range pp.Gateways {
		all = append(all, total{what: "gateway", number: pp.Bridge, addr: g.Unmap()})
	}
	for _, t := range all {
		was := p.totals[t]
		if p.totals[t] = was + n; p.totals[t] == 0 {
			delete(p.totals, t)
		}
		if was == 0 || was+n == 0 {
			p.turns[t] += n
		}
	}
}

// ask notes what a port asks for.
func (p *plan) ask(pp *portPlan) {
	for _, a := range pp.assets() {
		p.askers[a] = append(p.askers[a], pp.Index)
	}
}

// put adds an element as a port's share.
func (p *plan) put(pp *portPlan, set string, e element) {
	w := want{set, e}
	pp.wants = append(pp.wants, w)
	p.add(w)
}

func (p *plan) add(w want) {
	if _, twice := p.sets[w.set][w.element]; twice {
		p.more[w]++
		return
	}
	p.sets[w.set][w.element] = ""
	if p.news != nil {
		p.news[w] = struct{}{}
	}
}

func (p *plan) remove(w want) {
	if n := p.more[w]; n > 0 {
		if p.more[w] = n - 1; n == 1 {
			delete(p.more, w)
		}
		return
	}
	delete(p.sets[w.set], w.element)
	if p.news != nil {
		p.news[w] = struct{}{}
	}
}

// exchange replaces the elements of a set in which no port has a share. It notes in news which
// elements it added and removed.
func (p *plan) exchange(set string, now elements, news map[want]struct{}) {
	p.news = news
	defer func() { p.news = nil }()
	for e := range p.sets[set] {
		if _, stays := now[e]; !stays {
			p.remove(want{set, e})
		}
	}
	for e := range now {
		if _, there := p.sets[set][e]; !there {
			p.add(want{set, e})
		}
	}
}

// replan works changed ports into the plan; a port is nil if the wish no longer has it. Ports
// that ask for the same assets are worked in again too. If the change may concern still other
// ports, replan gives false, and the plan is unusable.
func (p *plan) replan(ports map[int]*Port, f Features) (scope, bool) {
	out := newScope()
	if p.scarce || p.connections.lowered {
		return out, false
	}
	p.news = out.elements
	defer func() { p.news = nil }()
	clear(p.turns)
	all := p.concerned(ports)
	for index, port := range all {
		if pp := p.ports[index]; pp != nil && p.particular(&pp.Port) || port != nil && p.particular(port) {
			return out, false
		}
	}
	var now []*Port
	for index, port := range all {
		out.ports[index] = struct{}{}
		if port != nil {
			now = append(now, port)
		}
		if pp := p.ports[index]; pp != nil {
			p.forget(pp, &out)
		}
	}
	slices.SortFunc(now, func(a, b *Port) int { return cmp.Compare(a.Index, b.Index) })
	p.admit(now)
	for _, n := range p.turns {
		if n != 0 {
			return out, false
		}
	}
	for _, port := range now {
		pp := p.ports[port.Index]
		p.port(pp, f)
		for _, a := range pp.own() {
			if _, ok := p.neighbours[Neighbour{pp.Bridge, a}]; ok {
				out.neighbours[Neighbour{pp.Bridge, a}] = struct{}{}
			}
		}
		p.connections.grant(pp, out.limits)
	}
	return out, !p.scarce
}

// particular tells whether the plan of a port depends on more than the other ports: on what
// the kernel has, or on containers that have no port here.
func (p *plan) particular(port *Port) bool {
	return port.Standing || p.elsewhere[port.IPv4.Unmap()] || p.elsewhere[port.IPv6.Unmap()]
}

// concerned gives ports, and all ports that ask for the same assets.
func (p *plan) concerned(ports map[int]*Port) map[int]*Port {
	out := map[int]*Port{}
	var queue []int
	meet := func(index int, port *Port) {
		if _, met := out[index]; !met {
			out[index] = port
			queue = append(queue, index)
		}
	}
	for index, port := range ports {
		meet(index, port)
	}
	for len(queue) > 0 {
		index := queue[0]
		queue = queue[1:]
		var assets []asset
		if pp := p.ports[index]; pp != nil {
			assets = pp.assets()
		}
		if port := out[index]; port != nil {
			assets = append(assets, port.assets()...)
		}
		for _, a := range assets {
			for _, other := range p.askers[a] {
				meet(other, &p.ports[other].Port)
			}
		}
	}
	return out
}

// forget takes a port out of the plan.
func (p *plan) forget(pp *portPlan, out *scope) {
	for _, w := range pp.wants {
		p.remove(w)
	}
	for _, a := range pp.own() {
		at := at(pp.Bridge, a)
		if p.owners.addrs[at] == pp.Index {
			delete(p.owners.addrs, at)
		}
		if n := (Neighbour{pp.Bridge, a}); p.neighbours[n].port == pp.Index {
			delete(p.neighbours, n)
			out.neighbours[n] = struct{}{}
		}
	}
	for _, m := range append([]MAC{pp.MAC}, pp.macs...) {
		if key := (bridgeMAC{pp.Bridge, m}); p.owners.macs[key] == pp.Index {
			delete(p.owners.macs, key)
		}
	}
	p.connections.revoke(pp, out.limits)
	p.extras, p.prefixes = p.extras-pp.extras, p.prefixes-pp.prefixes
	for _, a := range pp.assets() {
		p.askers[a] = slices.DeleteFunc(p.askers[a], func(index int) bool { return index == pp.Index })
		if len(p.askers[a]) == 0 {
			delete(p.askers, a)
		}
	}
	p.count(pp, -1)
	delete(p.ports, pp.Index)
}
