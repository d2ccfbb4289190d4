package guard

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
)

// observeSome reads what may be new of some ports. It says which it looked at, and false
// where something is new that concerns others.
func (d *Driver) observeSome(changed map[int]*Port, bridges []Bridge, look Look) (replanned, bool, error) {
	seen := replanned{ports: map[int]struct{}{}, neighbours: maps.Clone(look.Neighbours)}
	if seen.neighbours == nil {
		seen.neighbours = map[Neighbour]struct{}{}
	}
	if err := d.observeNeighbours(look); err != nil {
		return seen, false, err
	}
	for index := range look.Links {
		_, recorded := d.kernel.before[index]
		if d.plan.ports[index] != nil || recorded {
			seen.ports[index] = struct{}{}
		}
	}
	if len(look.MACs) > 0 {
		for index, pp := range d.plan.ports {
			if slices.ContainsFunc(pp.macs, func(m MAC) bool { _, ok := look.MACs[m]; return ok }) {
				seen.ports[index] = struct{}{}
			}
		}
	}
	for index := range seen.ports {
		if err := d.observeAgain(index, changed[index], look); err != nil {
			return seen, false, err
		}
	}
	for index, port := range changed {
		if _, did := seen.ports[index]; !did && port != nil && port.Guarded {
			if err := d.observeAgain(index, port, look); err != nil {
				return seen, false, err
			}
		}
	}
	if look.Unheard {
		if same, err := d.observeUnheard(&seen); err != nil || !same {
			return seen, false, err
		}
	}
	same, err := d.observeSomeBridges(bridges, look)
	return seen, same, err
}

// observeAgain reads one port, as it is wished for, or as it was if that is nil.
func (d *Driver) observeAgain(index int, port *Port, look Look) error {
	macs := slices.Collect(maps.Keys(d.kernel.pins[index]))
	if pp := d.plan.ports[index]; pp != nil {
		if macs = append(macs, pp.macs...); port == nil {
			port = &pp.Port
		}
	}
	if port == nil {
		port = &Port{}
	}
	if port.Guarded {
		macs = append(append(macs, port.MAC), port.Allow.MACs...)
	}
	return d.observePort(index, *port, macs, look)
}

// observeSomeBridges reads the bridges that the look names, and tells whether they are as
// they were.
func (d *Driver) observeSomeBridges(bridges []Bridge, look Look) (bool, error) {
	k := &d.kernel
	used := map[int]bool{}
	for _, b := range bridges {
		used[b.Index] = true
	}
	for t := range d.plan.totals {
		if t.what == ofBridge {
			used[t.number] = true
		}
	}
	macs, gateways, no6 := map[int]MAC{}, map[int][]netip.Addr{}, map[int]bool{}
	for index := range used {
		macs[index], gateways[index], no6[index] = k.bridges[index], k.gateways[index], k.no6[index]
	}
	if err := d.observeBridges(used, look); err != nil {
		return false, err
	}
	for index := range used {
		if macs[index] != k.bridges[index] || !slices.Equal(gateways[index], k.gateways[index]) || no6[index] != k.no6[index] {
			return false, nil
		}
	}
	return true, nil
}

// wholeIn is in how many looks at what nobody tells of everything else was looked at as
// well, and so how often messages of the kernel that got lost unseen are made up for.
const wholeIn = 30

// observeUnheard reads what the kernel tells nobody of, and a part of the rest. It tells
// whether that concerns no more than single ports.
func (d *Driver) observeUnheard(seen *replanned) (bool, error) {
	for index := range d.plan.ports {
		was := d.kernel.programs[index]
		if err := d.observePrograms(index); err != nil {
			return false, err
		}
		if !slices.Equal(was, d.kernel.programs[index]) {
			seen.ports[index] = struct{}{}
		}
	}
	was := d.kernel.reassembly.now
	if err := d.observeReassembly(true); err != nil || !maps.Equal(was, d.kernel.reassembly.now) {
		return false, err
	}
	return d.observeSlice(seen)
}

// observeSlice reads some of the ports, other ones each time, and the tables at the end of
// each round.
func (d *Driver) observeSlice(seen *replanned) (bool, error) {
	all := sortedKeys(d.plan.ports)
	slice := Look{Links: map[int]struct{}{}, Neighbours: map[Neighbour]struct{}{}}
	for _, index := range all[d.round*len(all)/wholeIn : (d.round+1)*len(all)/wholeIn] {
		slice.Links[index] = struct{}{}
		for _, a := range d.plan.ports[index].own() {
			slice.Neighbours[Neighbour{d.plan.ports[index].Bridge, a}] = struct{}{}
		}
		if err := d.observeAgain(index, nil, slice); err != nil {
			return false, err
		}
	}
	if err := d.observeNeighbours(slice); err != nil {
		return false, err
	}
	seen.add(replanned{ports: slice.Links, neighbours: slice.Neighbours})
	if d.round = (d.round + 1) % wholeIn; d.round > 0 || !d.features.Filter {
		return true, nil
	}
	if err := d.readTables(); err != nil {
		return false, err
	}
	var w work
	w.admit, w.release = diffBridgeTable(d.plan, &d.kernel, d.layout)
	if d.features.Limits {
		w.limits = d.plan.connections.diff(limitFamily, limitSets(), d.kernel.limits)
	}
	if d.features.ARP {
		w.arp = d.plan.arp().diff(arpFamily, arpSets(), d.kernel.arp)
	}
	if w.count() > 0 {
		return false, nil
	}
	// What is swept comes again while unknown ports send.
	if err := d.sweep(&w); err != nil || w.release.empty() && size(w.limits.del) == 0 {
		return true, err
	}
	return true, errors.Join(d.commit(w.release), d.limit(w.limits))
}
