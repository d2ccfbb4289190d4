package guard

import (
	"maps"
	"slices"
)

// observe brings what is known of the kernel up to date. It reads the tables, if another program
// changed them. It reads what the look names. And it reads ports that were not read yet as the
// wish needs them: if some is true, it searches for these only among the changed ports. It gives
// a scope with what may have changed.
func (d *Driver) observe(w Wish, changed map[int]*Port, some bool, look Look) (seen scope, err error) {
	holes := d.links.holes // in the lists of the last look
	d.links.holes = false
	defer func() {
		d.unsure = d.unsure || err != nil
		d.links.holes = d.links.holes || holes && err != nil
	}()
	k := &d.kernel
	look.Full = look.Full || d.plan == nil || holes
	round := false
	if look.Unheard && !look.Full {
		look, round = d.widen(look)
	}
	seen = newScope()
	news, err := d.observeTable(look.Full || round)
	if err != nil {
		return seen, err
	}
	seen.all = look.Full || round || news || d.unsure
	pins := map[int][]MAC{} // that were known
	if look.Full {
		pins, err = d.observeAll()
	} else {
		maps.Copy(seen.neighbours, look.Neighbours)
		err = d.observeNeighbours(look, round)
	}
	if err != nil {
		return seen, err
	}
	knobs := k.reassembly.now
	if err := d.observeReassembly(look.Full || look.Unheard); err != nil {
		return seen, err
	}
	seen.all = seen.all || !maps.Equal(knobs, k.reassembly.now)
	ports := map[int]*Port{}
	if seen.all || !some {
		d.records()
		if look.Full {
			if err := d.recover(pins); err != nil {
				return seen, err
			}
		}
		// MACs that were a port's, so that they can be taken off it.
		for e := range k.table.sets[setMAC] {
			pins[e.portOf()] = append(pins[e.portOf()], e.macOf())
		}
		for index := range k.before {
			ports[index] = nil
		}
		for index := range pins {
			ports[index] = nil
		}
		for _, p := range w.Ports {
			if _, recorded := ports[p.Index]; recorded || p.Guarded {
				ports[p.Index] = p
			}
		}
	} else {
		for index, p := range changed {
			if p != nil && p.Guarded {
				ports[index] = p
			}
		}
	}
	if !look.Full {
		d.lookedAt(look, seen.ports)
	}
	for index := range seen.ports {
		if _, there := ports[index]; there {
			continue
		}
		if ports[index] = changed[index]; ports[index] == nil && d.plan.ports[index] != nil {
			ports[index] = &d.plan.ports[index].Port
		}
	}
	for index, p := range ports {
		if err := d.observePort(index, p, pins[index], look); err != nil {
			return seen, err
		}
	}
	if look.Unheard && !look.Full {
		if err := d.observeAttached(&seen); err != nil {
			return seen, err
		}
	}
	same, err := d.observeBridges(w, changed, some, look)
	seen.all = seen.all || !same
	return seen, err
}

// observeAll reads all but the tables and the FDB. It gives the MACs that were known of
// each port.
func (d *Driver) observeAll() (map[int][]MAC, error) {
	k := &d.kernel
	pins := map[int][]MAC{}
	for port, all := range k.pins {
		pins[port] = slices.Collect(maps.Keys(all))
	}
	clear(k.no6)
	clear(k.pins)
	clear(k.programs)
	clear(k.bridges)
	clear(k.gateways)
	var err error
	if k.ports, err = d.links.ports(); err != nil {
		return nil, err
	}
	if err = d.observeNeighbours(Look{}, true); err != nil {
		return nil, err
	}
	if k.learned, err = d.links.learned(); err != nil {
		return nil, err
	}
	for index := range k.ports {
		if err := d.observePrograms(index); err != nil {
			return nil, err
		}
	}
	return pins, nil
}

// records takes from the table the settings that ports had before, also of ports that are gone.
func (d *Driver) records() {
	for e, comment := range d.kernel.table.sets[setPorts] {
		if before, ok := parseRecord(comment); ok {
			d.kernel.before[e.portOf()] = before
		}
	}
}

// lookedAt adds the ports that a look names.
func (d *Driver) lookedAt(look Look, ports map[int]struct{}) {
	for index := range look.Links {
		if _, recorded := d.kernel.before[index]; recorded || d.plan.ports[index] != nil {
			ports[index] = struct{}{}
		}
	}
	for m := range look.MACs {
		for _, index := range d.plan.askers[asset{mac: m}] {
			ports[index] = struct{}{}
		}
	}
}

// observeNeighbours reads the entries that the look names, or all.
func (d *Driver) observeNeighbours(look Look, all bool) error {
	if all {
		now, err := d.links.neighbours()
		if err == nil {
			d.kernel.neighbours = now
		}
		return err
	}
	for key := range look.Neighbours {
		mac, ok, err := d.links.neighbour(key)
		if err != nil {
			return err
		}
		if delete(d.kernel.neighbours, key); ok {
			d.kernel.neighbours[key] = mac
		}
	}
	return nil
}

// recover finds ports whose record was lost, because somebody removed the table. Each of
// netguard's neighbour entries has a MAC, and that MAC is pinned to a port. If such a port still
// learns, an agent pinned the MAC but ended before it changed the port's settings.
func (d *Driver) recover(guarded map[int][]MAC) error {
	k := &d.kernel
	known := map[bridgeMAC]bool{}
	for e := range k.table.sets[setMAC] {
		known[bridgeMAC{k.ports[e.portOf()].bridge, e.macOf()}] = true
	}
	for key, mac := range k.neighbours {
		if known[bridgeMAC{key.Bridge, mac}] {
			continue
		}
		known[bridgeMAC{key.Bridge, mac}] = true
		e, ok, err := d.links.fdbOf(key.Bridge, mac)
		if err != nil {
			return err
		}
		if !ok || !e.pinned(e.port, d.features.Sticky) {
			continue
		}
		if _, recorded := k.before[e.port]; !recorded {
			k.before[e.port] = portDefaults
			if now := k.ports[e.port].settings; now.on&learning != 0 {
				k.before[e.port] = now
			}
		}
		guarded[e.port] = append(guarded[e.port], mac)
	}
	return nil
}

// observePort reads a port with its FDB entries, if the look names it or the wish has other
// MACs for it. wished is nil if the wish has no such port. more are MACs that it had before.
func (d *Driver) observePort(index int, wished *Port, more []MAC, look Look) error {
	k := &d.kernel
	var port Port
	if wished != nil {
		port = *wished
	}
	macs := slices.AppendSeq(slices.Clone(more), maps.Keys(k.pins[index]))
	if d.plan != nil && d.plan.ports[index] != nil {
		macs = append(macs, d.plan.ports[index].macs...)
	}
	if port.Guarded {
		macs = append(append(macs, port.MAC), port.Allow.MACs...)
	}
	_, named := look.Links[index]
	named = named || slices.ContainsFunc(macs, func(m MAC) bool { _, ok := look.MACs[m]; return ok })
	before, known := d.seen[index]
	again := look.Full || named || !known || !sameLayer2(before, port)
	if !again {
		return nil
	}
	d.seen[index] = port
	if !look.Full {
		// In this order: if the programs went with their port, the port's answer shows it.
		if err := d.observePrograms(index); err != nil {
			return err
		}
		if err := d.observeLink(index); err != nil {
			return err
		}
	}
	p, ok := k.ports[index]
	delete(k.pins, index)
	if !ok {
		return nil
	}
	if _, recorded := k.before[index]; !recorded && port.Guarded {
		// A port that is locked but has no record was netguard's, before somebody
		// removed the table.
		k.before[index] = p.settings
		if p.settings.on&locked != 0 {
			k.before[index] = portDefaults
		}
	}
	slices.SortFunc(macs, func(a, b MAC) int { return slices.Compare(a[:], b[:]) })
	pins := map[MAC]fdbEntry{}
	macs = slices.Compact(macs)
	for _, m := range macs {
		e, ok, err := d.links.fdb(index, m)
		if err != nil {
			return err
		}
		if ok {
			pins[m] = e
		}
	}
	if len(pins) < len(macs) {
		// FDB entries go with their port. If the port went after it was read, nobody
		// removed the entries.
		still, ok, err := d.links.port(index)
		if err != nil {
			return err
		}
		if !ok || still.bridge != p.bridge {
			delete(k.ports, index)
			return nil
		}
	}
	k.pins[index] = pins
	return nil
}

// observeLink reads whether a device is a port of a bridge, and as which.
func (d *Driver) observeLink(index int) error {
	p, ok, err := d.links.port(index)
	if err != nil {
		return err
	}
	delete(d.kernel.ports, index)
	if ok {
		d.kernel.ports[index] = p
	}
	return nil
}

// sameLayer2 tells whether two versions of a port need the same questions to the bridge.
func sameLayer2(a, b Port) bool {
	return a.Guarded == b.Guarded && a.Bridge == b.Bridge && a.MAC == b.MAC && slices.Equal(a.Allow.MACs, b.Allow.MACs)
}
