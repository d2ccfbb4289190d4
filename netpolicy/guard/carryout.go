package guard

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"netguard/internal/fault"
	"netguard/netpolicy/guard/checksum"
)

// carryOut does all of the work, in order. It stops if the transaction that admits fails:
// nothing is taken away then. A failure of one port is noted, and the records of that port
// stay.
func (d *Driver) carryOut(w work) error {
	for _, s := range w.additions {
		d.note(s.port, d.step(s))
	}
	if !w.admit.empty() {
		if w.admit.create {
			if err := d.carry(); err != nil {
				return err
			}
		}
		if err := d.commit(w.admit); err != nil {
			return err
		}
	}
	d.takeAway(w)
	for set, all := range w.release.del {
		if set == setPrograms {
			// Those that could not be detached stay on record.
			maps.DeleteFunc(all, func(element, string) bool { return len(d.failed) > 0 })
			continue
		}
		if set == setReassembly {
			d.kernel.reassembly.release(all)
			continue
		}
		maps.DeleteFunc(all, func(e element, _ string) bool { return len(d.failed[e.portOf()]) > 0 })
		if set == setPorts {
			if err := d.forget(all, w.release); err != nil {
				return err
			}
		}
	}
	if w.release.empty() {
		return nil
	}
	return d.commit(w.release)
}

// takeAway sets ports and then deletes. If a port could not be set, nothing of it is deleted: a
// port without flooding receives frames only by its FDB entries.
func (d *Driver) takeAway(w work) {
	for _, s := range w.settings {
		d.note(s.port, d.step(s))
	}
	for _, s := range w.deletions {
		if len(d.failed[s.port]) == 0 || s.port == 0 {
			d.note(s.port, d.step(s))
		}
	}
}

func (d *Driver) note(port int, err error) {
	if err != nil {
		d.failed[port] = append(d.failed[port], err)
		d.log.Debug("guard step failed", "port", port, "error", err)
	}
}

// step carries out one step. If the device is gone meanwhile, that is no error.
func (d *Driver) step(s step) error {
	switch s.op {
	case opPin:
		return d.unlessGone(s.port, d.links.pin(s.port, s.mac))
	case opSet:
		return d.unlessGone(s.port, d.links.set(s.port, s.settings, s.flush))
	case opAttach:
		err := attachProgram(d.program, s.port)
		if mine := (attached{d.program.ID(), d.program.Fingerprint()}); err == nil && !slices.Contains(d.kernel.programs[s.port], mine) {
			d.kernel.programs[s.port] = append([]attached{mine}, d.kernel.programs[s.port]...)
		}
		return d.unlessGone(s.port, err)
	case opDetach:
		return fault.Write("checksum detach", func() error { return checksum.Detach(s.port, s.program) })
	case opKnob:
		return d.turn(s)
	case opLearn:
		return d.bound(s)
	case opUnpin:
		return d.links.unpin(s.port, s.mac)
	case opForget:
		delete(d.kernel.neighbours, s.neighbour)
		return d.links.deleteNeighbour(s.neighbour)
	}
	err := d.links.addNeighbour(s.neighbour, s.mac)
	switch {
	case err == nil:
		d.kernel.neighbours[s.neighbour] = s.mac
	case errors.Is(err, unix.EINVAL) && s.neighbour.Addr.Is6():
		// IPv6 was switched off there meanwhile.
		d.kernel.no6[s.neighbour.Bridge] = true
		return nil
	}
	return d.unlessGone(s.port, err)
}

// unlessGone drops an error about a device that is in no bridge any more.
func (d *Driver) unlessGone(port int, err error) error {
	if err == nil || !gone(err) {
		return err
	}
	if _, here, lookErr := d.links.port(port); here || lookErr != nil {
		return errors.Join(err, lookErr)
	}
	return nil
}

// commit changes the table of the bridge.
func (d *Driver) commit(c change) error {
	err := d.commitTo(d.filter, d.kernel.table, c, d.layout.sets)
	if err != nil {
		d.kernel.table = nil
	}
	return err
}

// limit changes the table of limits.
func (d *Driver) limit(c change) error {
	if err := d.commitTo(d.limiter, d.kernel.limits, c, limitSets()); err != nil {
		return errors.Join(fmt.Errorf("limit connections: %w", err), d.readTables())
	}
	return nil
}

// commitTo sends a transaction, and brings what is known of the table up to date. If nobody
// else changed the table, and only elements changed, nothing is read again.
func (d *Driver) commitTo(f *filter, s *tableState, c change, sets []setSpec) error {
	if c.empty() {
		return nil
	}
	if err := f.commit(c, sets); err != nil {
		return err
	}
	d.counts = nil
	if !c.rules() {
		// Deletions first, as in the kernel: they make room for additions.
		for set, all := range c.del {
			for e := range all {
				delete(s.sets[set], e)
			}
		}
		for set, all := range c.add {
			maps.Copy(s.sets[set], all)
		}
		now, err := d.filter.generation()
		if err != nil {
			return err
		}
		if now == d.generation+1 || d.notices.untouched(d.generation, now) {
			d.generation = now
			return nil
		}
	}
	was := d.generation
	if err := d.readTables(); err != nil {
		return err
	}
	read := map[*filter]*tableState{d.filter: d.kernel.table, d.limiter: d.kernel.limits, d.arp: d.kernel.arp}[f]
	if len(c.chains) > 0 && d.generation == was+1 && read.generation == d.generation { // nobody else changed anything
		f.learn(written(c.layout.lines, c.chains), read)
	}
	return nil
}

// hold keeps some ports from being admitted, because of an error. Ports that the kernel already
// admits stay admitted.
func (d *Driver) hold(w Wish, err error, some func(*Port) bool) Wish {
	w.Ports = slices.Clone(w.Ports)
	for i, p := range w.Ports {
		if _, open := d.kernel.table.sets[setKnown][element{key: portKey(p.Index)}]; !open && p.Guarded && p.Admitted && some(p) {
			held := *p
			held.Admitted, w.Ports[i] = false, &held
			d.failed[p.Index] = append(d.failed[p.Index], err)
		}
	}
	return w
}

// carry keeps the counts of a table that is about to be replaced.
func (d *Driver) carry() error {
	if _, ok := d.kernel.table.sets[setViolations]; !ok {
		return nil
	}
	counts, err := d.filter.violations()
	if err != nil {
		return err
	}
	for key, n := range counts {
		d.carried[key] += n
	}
	return nil
}

// forget drops what is known of ports that are released, and adds their counters
// to what is deleted.
func (d *Driver) forget(ports elements, c change) error {
	if len(ports) == 0 {
		return nil
	}
	if c.del[setViolations] == nil {
		c.del[setViolations] = elements{}
	}
	released := map[int]bool{}
	for e := range ports {
		released[e.portOf()] = true
	}
	stale, err := d.filter.countersOf(released)
	if err != nil {
		return err
	}
	for _, key := range stale {
		c.del[setViolations][key.element()] = ""
	}
	maps.DeleteFunc(d.carried, func(key counted, _ uint64) bool { return released[key.port] })
	maps.DeleteFunc(d.seen, func(port int, _ Port) bool { return released[port] })
	maps.DeleteFunc(d.kernel.before, func(port int, _ settings) bool { return released[port] })
	maps.DeleteFunc(d.kernel.pins, func(port int, _ map[MAC]fdbEntry) bool { return released[port] })
	maps.DeleteFunc(d.kernel.programs, func(port int, _ []attached) bool { return released[port] })
	return nil
}

// Cleanup removes from the kernel everything that the guard put there, also what an earlier
// process put there. Ports get their earlier settings back. The static FDB entries, the
// neighbours, the programs and the tables go. From then on frames pass unfiltered.
func (d *Driver) Cleanup() error {
	d.failed = map[int][]error{}
	d.plan, d.settled, d.kernel.table = nil, false, nil
	defer func() { d.kernel.table = nil }() // it is removed, or not known
	if _, err := d.observe(Wish{}, nil, false, Everything); err != nil {
		return fmt.Errorf("guard: clean up: %w", err)
	}
	d.quarantinedByUs()
	if err := d.observeStrayPrograms(); err != nil {
		return fmt.Errorf("guard: clean up: %w", err)
	}
	w := diff(newPlan(Wish{}, d.features, nil), &d.kernel, d.features, d.layout, scope{all: true})
	d.takeAway(w)
	var errs []error
	for _, port := range slices.Sorted(maps.Keys(d.failed)) {
		errs = append(errs, d.failed[port]...)
	}
	if err := errors.Join(errs...); err != nil {
		// The table knows what is left.
		return fmt.Errorf("guard: clean up: %w", err)
	}
	tables := []*tableState{d.kernel.table, d.kernel.limits, d.kernel.arp}
	for i, f := range []*filter{d.filter, d.limiter, d.arp} {
		if tables[i] != nil && tables[i].present {
			if err := f.remove(); err != nil {
				return fmt.Errorf("guard: clean up: %w", err)
			}
		}
	}
	clear(d.kernel.before)
	clear(d.kernel.reassembly.before)
	clear(d.seen)
	clear(d.carried)
	return nil
}
