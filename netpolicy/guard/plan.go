package guard

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"netguard/netpolicy/guard/checksum"
)

// plan is a wish worked out: what the kernel shall hold. It is pure.
type plan struct {
	mode Mode
	// closed says that ports which nobody has seen yet are refused, with or without an
	// agent.
	closed bool
	// bridges are the managed bridges, by ifindex.
	bridges []int
	// guests are the bridges whose ports are all guarded.
	guests map[int]bool
	sets   map[string]elements
	ports  map[int]*portPlan
	// neighbours are the permanent entries of the host.
	neighbours map[Neighbour]neighbour
	// extras and prefixes count what labels have added, up to maxExtras and maxPrefixes.
	// scarce says that a label asked for more.
	extras, prefixes int
	scarce           bool
	// connections is the table of limits.
	connections limitPlan

	// replan needs these to work a later wish into the plan; see replan.go.
	owners owners
	more   map[want]int      // how often an element is wanted, beyond the first time
	askers map[asset][]int   // the ports that ask for an asset, even those that do not get it
	totals map[total]int     // how many ports have a property
	turns  map[total]int     // totals that appeared (1) or disappeared (-1)
	news   map[want]struct{} // elements that were added or removed; nil while all are new
	// elsewhere are addresses of containers that have no port here.
	elsewhere map[netip.Addr]bool
	// program is the fingerprint of the program that each port shall have; 0 is none.
	program checksum.Fingerprint
	// stay are the recorded programs, by the port where each stays attached. The program of
	// this process is at 0.
	stay map[int]attached
	// knobs are the wanted values of the host's settings, by their index in the array knobs.
	knobs map[int]string
	// bounded are the bridges that shall learn at most maxMACs MACs.
	bounded map[int]bool
}

// neighbour is the owner of an address.
type neighbour struct {
	mac  MAC
	port int
}

// portPlan is what is wanted of one port.
type portPlan struct {
	Port
	state  State        // Admitted, Quarantined or Trusted
	macs   []MAC        // its own, to be pinned when it is admitted
	addrs  []netip.Addr // its own, and single ones that its label allows
	faults []string

	wants            []want // the elements that are its share
	extras, prefixes int    // its share of the plan's extras and prefixes
}

// want is an element of a set that shall be there.
type want struct {
	set string
	element
}

// newPlan makes the plan for a wish. A port whose own MAC or address has another owner gets a
// fault and is not admitted. An extra address that it cannot have is left out, and is a fault
// too. A fault of one port does not change other ports.
func newPlan(w Wish, f Features, bridgeMACs map[int]MAC) *plan {
	p := &plan{mode: w.Mode, closed: w.closed() && len(w.Bridges) > 0, guests: guests(w), sets: map[string]elements{}, ports: map[int]*portPlan{}, neighbours: map[Neighbour]neighbour{},
		stay: map[int]attached{}, more: map[want]int{}, askers: map[asset][]int{}, totals: map[total]int{}, turns: map[total]int{}, elsewhere: map[netip.Addr]bool{}}
	p.owners = owners{addrs: map[Neighbour]int{}, macs: map[bridgeMAC]int{}, ports: p.ports}
	for _, s := range sets(f) {
		if !s.dynamic {
			p.sets[s.name] = elements{}
		}
	}
	// Oldest first: if two ports ask for the same address, the older port gets it.
	ports := slices.SortedStableFunc(slices.Values(w.Ports), func(a, b *Port) int { return cmp.Compare(a.Index, b.Index) })
	p.reserve(ports, bridgeMACs)
	p.admit(ports)
	// The ports come first: an outdated list of other containers takes no address from a port.
	for _, a := range w.Taken {
		key := at(0, a.Unmap())
		p.elsewhere[a.Unmap()] = true
		if _, taken := p.owners.addrs[key]; !taken && !a.IsLinkLocalUnicast() {
			p.owners.addrs[key] = ownerElsewhere
		}
	}
	for _, index := range slices.Sorted(maps.Keys(p.ports)) {
		p.port(p.ports[index], f)
	}
	p.broadcasts(w)
	p.lengths()
	p.managed(w, bridgeMACs)
	for _, b := range w.Bridges {
		p.bridges = append(p.bridges, b.Index)
	}
	for _, m := range bridgeMACs {
		p.add(want{setOwn6, element{key: string(m.LinkLocal().AsSlice())}})
	}
	p.connections = p.limits()
	return p
}

// reserve makes each bridge the owner of its MAC and addresses, so that no port gets them.
func (p *plan) reserve(ports []*Port, bridgeMACs map[int]MAC) {
	for _, port := range ports {
		for _, g := range port.Gateways {
			p.owners.addrs[at(port.Bridge, g.Unmap())] = ownerBridge
		}
		if m, ok := bridgeMACs[port.Bridge]; ok {
			p.owners.macs[bridgeMAC{port.Bridge, m}] = ownerBridge
			p.owners.addrs[at(port.Bridge, m.LinkLocal())] = ownerBridge
		}
	}
}

// admit decides whether each port can be as wished. A MAC or address that one port gets is not
// for later ports.
func (p *plan) admit(ports []*Port) {
	for _, port := range ports {
		pp := &portPlan{Port: *port, state: Quarantined}
		pp.IPv4, pp.IPv6 = pp.IPv4.Unmap(), pp.IPv6.Unmap()
		if _, twice := p.ports[pp.Index]; twice {
			p.ports[pp.Index].state = Quarantined
			p.ports[pp.Index].faults = append(p.ports[pp.Index].faults, "the port is wished for twice")
			continue
		}
		p.ports[pp.Index] = pp
		p.ask(pp)
		switch {
		case !pp.Guarded:
			pp.state = Trusted
		case pp.Admitted:
			pp.state = Admitted
			fallthrough
		default:
			if p.owners.take(pp); len(pp.faults) > 0 {
				pp.state = Quarantined
			}
		}
		p.count(pp, 1)
	}
}

// own are the addresses that Docker gave, and the link-local one.
func (pp *portPlan) own() []netip.Addr {
	var out []netip.Addr
	for _, a := range []netip.Addr{pp.IPv4, pp.IPv6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return append(out, pp.MAC.LinkLocal())
}

// port fills the sets for one port.
func (p *plan) port(pp *portPlan, f Features) {
	put := func(set string, e element) { p.put(pp, set, e) }
	port := portKey(pp.Index)
	for _, g := range pp.Gateways {
		put(set4or6(g.Unmap(), setOwn4, setOwn6), element{key: string(g.Unmap().AsSlice())})
	}
	if pp.Isolated {
		put(setIsolated, element{key: port})
	}
	if pp.state == Trusted {
		put(setKnown, element{key: port})
		if pp.Isolated {
			p.into(pp)
		}
		return
	}
	put(setPorts, element{key: port})
	if pp.state == Quarantined {
		put(setQuarantined, element{key: port})
		return
	}
	put(setKnown, element{key: port})
	if pp.DHCPServer {
		put(setServers, element{key: port})
	}
	if f.Limits && p.guests[pp.Bridge] {
		put(setRouted, element{key: port})
	}

	addrs := pp.own()
	for _, a := range addrs {
		put(set4or6(a, setOwn4, setOwn6), element{key: string(a.AsSlice())})
		if p.mode == Enforce {
			p.neighbours[Neighbour{pp.Bridge, a}] = neighbour{pp.MAC, pp.Index}
		}
	}
	pp.macs = []MAC{pp.MAC}
	addrs = p.allow(pp, f, addrs)
	pp.addrs = addrs
	answers := pp.answers(p.owners)
	if more := len(pp.macs) * len(answers); p.extras+more > maxExtras {
		pp.faults, answers = append(pp.faults, "its addresses on other networks are left out: there are too many of all containers"), nil
		p.scarce = true
	} else {
		p.extras, pp.extras = p.extras+more, pp.extras+more
	}
	for _, m := range pp.macs {
		put(setMAC, element{key: port + macKey(m)})
		for _, a := range slices.Concat(addrs, answers) {
			put(set4or6(a, setV4, setV6), element{key: port + macKey(m) + string(a.AsSlice())})
		}
	}
}

// allow adds the MACs, addresses and prefixes that the port's label allows, except those that
// have another owner. It returns all addresses of the port, and sets the port's MACs.
func (p *plan) allow(pp *portPlan, f Features, own []netip.Addr) []netip.Addr {
	taken := p.owners
	fault := func(format string, args ...any) {
		pp.faults = append(pp.faults, fmt.Sprintf("label %s: %s", LabelAllow, fmt.Sprintf(format, args...)))
	}
	macs, addrs := pp.macs, own
	for _, m := range pp.Allow.MACs {
		other, ok := taken.macs[bridgeMAC{pp.Bridge, m}]
		switch {
		case slices.Contains(macs, m):
		case ok:
			fault("%s is the MAC of %s", m, taken.holder(other))
		case m == MAC{} || m[0]&1 != 0:
			fault("%s is no MAC of a container", m)
		default:
			macs = append(macs, m)
		}
	}
	var prefixes []netip.Prefix
	for _, prefix := range widest(pp.Allow.Prefixes) {
		a := prefix.Addr()
		other, ok := taken.addrs[at(pp.Bridge, a)]
		switch {
		case !prefix.IsSingleIP() && !f.Prefixes:
			fault("%s: this kernel has no sets of prefixes (Linux 5.6): name single addresses", prefix)
		case !prefix.IsSingleIP():
			prefixes = append(prefixes, prefix)
		case slices.Contains(addrs, a):
		case ok:
			fault("%s is the address of %s", a, taken.holder(other))
		default:
			addrs = append(addrs, a)
		}
	}
	extras := len(macs)*len(addrs) - len(own)
	if p.extras+extras > maxExtras || p.prefixes+len(prefixes) > maxPrefixes {
		fault("left out: the labels of all containers together allow too much (%d pairs of MAC and address, %d prefixes at most)", maxExtras, maxPrefixes)
		p.scarce = true
		return own
	}
	p.extras, pp.extras = p.extras+extras, pp.extras+extras
	p.prefixes, pp.prefixes = p.prefixes+len(prefixes), pp.prefixes+len(prefixes)
	for _, m := range macs {
		// From here on it is taken: a second port does not get it.
		taken.macs[bridgeMAC{pp.Bridge, m}] = pp.Index
	}
	for _, prefix := range prefixes {
		p.put(pp, set4or6(prefix.Addr(), setNet4, setNet6), prefixElement(pp.Index, prefix))
	}
	pp.macs = macs
	return addrs
}

// widest leaves out the prefixes that are within others: the kernel takes no
// elements that overlap.
func widest(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.SortedFunc(slices.Values(prefixes), func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), a.Addr().Compare(b.Addr()))
	})
	var out []netip.Prefix
	for _, p := range sorted {
		if !slices.ContainsFunc(out, func(wide netip.Prefix) bool { return wide.Contains(p.Addr()) }) {
			out = append(out, p)
		}
	}
	return out
}
