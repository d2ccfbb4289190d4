package guard

import (
	"maps"
	"net/netip"
	"slices"
)

// observe brings what is known of the kernel up to date: the table when anything
// in nftables changed, the rest where the look says so, and of ports that were
// not looked at yet. It says whether anything was read that was known before, and
// so might have changed.
func (d *Driver) observe(ports map[int]Port, bridges []Bridge, look Look) (bool, error) {
	k := &d.kernel
	news, err := d.observeTable(look.Full)
	if err != nil {
		return false, err
	}
	news = news || !look.empty()
	guarded := map[int][]MAC{} // what is to be asked for
	if look.Full {
		for port, pins := range k.pins {
			guarded[port] = slices.Collect(maps.Keys(pins))
		}
		clear(k.no6)
		clear(k.pins)
		clear(k.programs)
		clear(k.bridges)
		clear(k.gateways)
		all, err := d.links.ports()
		if err != nil {
			return false, err
		}
		k.ports = all
		if k.neighbours, err = d.links.neighbours(); err != nil {
			return false, err
		}
		if k.learned, err = d.links.learned(); err != nil {
			return false, err
		}
	} else if err := d.observeNeighbours(look); err != nil {
		return false, err
	}
	if look.Full {
		for index := range k.ports {
			if err := d.observePrograms(index); err != nil {
				return false, err
			}
		}
	}
	if err := d.observeReassembly(look.Full); err != nil {
		return false, err
	}
	// The records, of ports that are long gone too.
	for e, comment := range k.table.sets[setPorts] {
		if before, ok := parseRecord(comment); ok {
			k.before[e.portOf()] = before
		}
	}
	if look.Full {
		if err := d.recover(guarded); err != nil {
			return false, err
		}
	}
	for index, p := range ports {
		if p.Guarded {
			guarded[index] = append(guarded[index], p.MAC)
			guarded[index] = append(guarded[index], p.Allow.MACs...)
		}
	}
	// MACs that were a port's, so that they can be taken off it.
	for e := range k.table.sets[setMAC] {
		guarded[e.portOf()] = append(guarded[e.portOf()], e.macOf())
	}
	for index := range k.before {
		if _, ok := guarded[index]; !ok {
			guarded[index] = nil
		}
	}
	for index, macs := range guarded {
		if err := d.observePort(index, ports[index], macs, look); err != nil {
			return false, err
		}
	}
	used := map[int]bool{}
	for _, b := range bridges {
		used[b.Index] = true
	}
	for _, p := range ports {
		used[p.Bridge] = true
	}
	return news, d.observeBridges(used, look)
}

// observeNeighbours reads the entries that the look names.
func (d *Driver) observeNeighbours(look Look) error {
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

// recover finds ports whose record was lost, because somebody removed the table:
// behind each of netguard's neighbour entries there is a MAC that is pinned to a
// port. One that learns was not closed yet when an agent ended, on its way there.
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

func (d *Driver) observePort(index int, port Port, macs []MAC, look Look) error {
	k := &d.kernel
	_, named := look.Links[index]
	named = named || slices.ContainsFunc(macs, func(m MAC) bool { _, ok := look.MACs[m]; return ok })
	before, known := d.seen[index]
	again := look.Full || named || !known || !sameLayer2(before, port)
	if !again {
		return nil
	}
	d.seen[index] = port
	if !look.Full {
		p, ok, err := d.links.port(index)
		if err != nil {
			return err
		}
		delete(k.ports, index)
		if ok {
			k.ports[index] = p
		}
		if err := d.observePrograms(index); err != nil {
			return err
		}
	}
	p, ok := k.ports[index]
	delete(k.pins, index)
	if !ok {
		return nil
	}
	if _, recorded := k.before[index]; !recorded && port.Guarded {
		// A port that is locked already, by nobody who kept a record, was
		// netguard's before somebody removed its table.
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
		// Entries go with their port, which may have gone since it was read.
		// Nobody has taken them away then.
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

// sameLayer2 tells whether what was asked of the bridge is still all there is to
// ask.
func sameLayer2(a, b Port) bool {
	return a.Guarded == b.Guarded && a.Bridge == b.Bridge && a.MAC == b.MAC && slices.Equal(a.Allow.MACs, b.Allow.MACs)
}

// observeTable reads the table unless nothing in nftables changed, and says whether
// it did.
func (d *Driver) observeTable(full bool) (bool, error) {
	if !d.features.Filter {
		d.kernel.table = &tableState{}
		return false, nil
	}
	// At the first Apply they may be known from Earlier.
	if d.kernel.table != nil && (!full || d.plan == nil) {
		if same, err := d.same(); err != nil || same {
			return false, err
		}
	}
	return true, d.readTables()
}

// same tells whether the tables are as they are known to be: nobody else changed them
// since they were read.
func (d *Driver) same() (bool, error) {
	now, err := d.filter.generation()
	if err != nil {
		return false, err
	}
	if now != d.generation && !d.notices.untouched(d.generation, now) {
		return false, nil
	}
	d.generation = now
	return true, nil
}

// readTables reads all tables. If nftables changed in between, the next look at its
// generation tells.
func (d *Driver) readTables() error {
	d.notices.begin()
	d.counts = nil
	s, gen, err := d.filter.read()
	if err != nil {
		return err
	}
	d.kernel.table, d.generation = s, gen
	if d.features.Limits {
		if d.kernel.limits, _, err = d.limiter.read(); err != nil {
			return err
		}
	}
	if d.features.ARP {
		d.kernel.arp, _, err = d.arp.read()
	}
	return err
}

// observeBridges reads the MACs and addresses of the bridges that are used.
func (d *Driver) observeBridges(used map[int]bool, look Look) error {
	maps.DeleteFunc(d.kernel.bridges, func(index int, _ MAC) bool {
		_, named := look.Links[index]
		return named || look.Unheard || !used[index]
	})
	maps.DeleteFunc(d.kernel.gateways, func(index int, _ []netip.Addr) bool {
		_, known := d.kernel.bridges[index]
		return !known
	})
	var addresses map[int][]netip.Addr
	for index := range used {
		if _, ok := d.kernel.bridges[index]; ok || index == 0 {
			continue
		}
		b, ok, err := d.links.bridge(index)
		if err != nil {
			return err
		}
		delete(d.kernel.no6, index)
		delete(d.kernel.learned, index)
		if ok {
			if b.limits {
				d.kernel.learned[index] = b.learned
			}
			if addresses == nil {
				if addresses, err = d.links.addresses(); err != nil {
					return err
				}
			}
			d.kernel.bridges[index], d.kernel.gateways[index] = b.mac, addresses[index]
			if !b.ip6 {
				d.kernel.no6[index] = true
			}
		}
	}
	return nil
}
