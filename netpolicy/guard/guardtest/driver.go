package guardtest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"netguard/netpolicy/guard"
)

const (
	// maxPorts is how many ports the table takes.
	maxPorts = 16384
	// wholeIn is how many looks with Unheard it takes to read all ports.
	wholeIn = 30
)

// Driver has the methods of guard.Driver by which an agent writes. It knows no more of the
// kernel than that one does.
type Driver struct {
	kernel *Kernel
	wish   guard.Wish
	ports  map[int]*planned // nil before the first Apply
	known  map[int]port     // as they were when they were looked at
	table  *table           // the same
	gen    int
	// settled: the last Apply left nothing undone.
	settled bool
	failed  map[int][]string
	round   int
}

// Open makes a Driver of the host, as a new process has one.
func (k *Kernel) Open() *Driver { return &Driver{kernel: k, known: map[int]port{}, gen: -1} }

// Features is guard.Driver's.
func (d *Driver) Features() guard.Features { return d.kernel.Features }

func (k *Kernel) read() error {
	if k.Reads == nil {
		return nil
	}
	return k.Reads()
}

// Earlier is guard.Driver's.
func (d *Driver) Earlier() (guard.Earlier, error) {
	k := d.kernel
	if !k.Features.Filter {
		return guard.Earlier{}, nil
	}
	if err := k.read(); err != nil {
		return guard.Earlier{}, fmt.Errorf("guard: %w", err)
	}
	if k.table == nil {
		return guard.Earlier{Fresh: true}, nil
	}
	out := guard.Earlier{Admitted: map[int]bool{}, Bridges: map[int]bool{}, LinkLocals: map[int]map[netip.Addr]bool{}}
	for index, e := range k.table.entries {
		if e.state != guard.Quarantined {
			out.Admitted[index] = true
		}
		for _, a := range e.addrs {
			if a.Is6() && a.IsLinkLocalUnicast() {
				if out.LinkLocals[index] == nil {
					out.LinkLocals[index] = map[netip.Addr]bool{}
				}
				out.LinkLocals[index][a] = true
			}
		}
	}
	for bridge := range k.table.bridges {
		if k.bridges[bridge] {
			out.Bridges[bridge] = true
		}
	}
	return out, nil
}

// Apply is guard.Driver's.
func (d *Driver) Apply(w guard.Wish, look guard.Look) (guard.Report, error) {
	k := d.kernel
	if len(w.Ports) > maxPorts {
		return guard.Report{}, fmt.Errorf("guard: %d ports, at most %d", len(w.Ports), maxPorts)
	}
	if err := k.read(); err != nil {
		return guard.Report{}, fmt.Errorf("guard: %w", err)
	}
	was := d.ports
	looked := d.look(w, look)
	var r guard.Report
	if was != nil && d.settled {
		r.Drift = d.drift(was, looked)
	}
	d.wish, d.ports, d.failed, d.settled = w, k.plan(w), map[int][]string{}, false
	for index, pp := range d.ports {
		if old := was[index]; old == nil || old.MAC != pp.MAC || old.Bridge != pp.Bridge || old.Guarded != pp.Guarded || !slices.Equal(old.Allow.MACs, pp.Allow.MACs) {
			d.see(index)
		}
	}
	before := k.Writes
	if err := d.write(); err != nil {
		d.gen = -1
		return guard.Report{}, fmt.Errorf("guard: %w", err)
	}
	r.Ports, r.Changes = d.report(), k.Writes-before
	d.settled = len(d.failed) == 0
	return r, nil
}

// see reads one port.
func (d *Driver) see(index int) {
	delete(d.known, index)
	if p := d.kernel.ports[index]; p != nil {
		d.known[index] = *p
	}
}

// look reads what may have changed and gives the ports that it looked at.
func (d *Driver) look(w guard.Wish, look guard.Look) map[int]bool {
	k, looked := d.kernel, map[int]bool{}
	all := d.ports == nil || look.Full || !d.settled
	if all {
		for index := range k.ports {
			looked[index] = true
		}
		for index := range d.known {
			looked[index] = true
		}
	}
	for index := range look.Links {
		looked[index] = true
	}
	order := slices.Sorted(maps.Keys(d.ports))
	for i, index := range order {
		pp := d.ports[index]
		looked[index] = looked[index] || slices.ContainsFunc(pp.macs, func(m guard.MAC) bool { _, ok := look.MACs[m]; return ok }) ||
			look.Unheard && i*wholeIn/len(order) == d.round
		p, there := k.ports[index]
		if known, seen := d.known[index]; there && seen {
			if look.Unheard && known.program != p.program {
				known.program, looked[index] = p.program, true
			}
			if slices.ContainsFunc(pp.addrs, func(a netip.Addr) bool {
				_, named := look.Neighbours[guard.Neighbour{Bridge: pp.Bridge, Addr: a}]
				return named
			}) {
				known.near, looked[index] = p.near, true
			}
			d.known[index] = known
		}
	}
	if look.Unheard {
		d.round = (d.round + 1) % wholeIn
	}
	for index := range looked {
		if looked[index] {
			d.see(index)
		}
	}
	return looked
}

// drift says what somebody else changed since the last Apply.
func (d *Driver) drift(ports map[int]*planned, looked map[int]bool) []string {
	var out []string
	k := d.kernel
	if k.Features.Filter && d.gen != k.generation && !d.table.equal(orEmpty(k.table)) {
		out = append(out, "the table was changed")
	}
	for _, index := range slices.Sorted(maps.Keys(looked)) {
		pp, p := ports[index], d.known[index]
		if pp != nil && looked[index] && p.bridge == pp.Bridge && p != pp.at(d.wish.Options, k.Features) && pp.state != guard.Trusted {
			out = append(out, fmt.Sprintf("port %d: it was changed", index))
		}
	}
	return out
}

func orEmpty(t *table) *table {
	if t == nil {
		return &table{}
	}
	return t
}

// write brings the kernel to the plan: what is added comes before what is taken away.
func (d *Driver) write() error {
	k, o := d.kernel, d.wish.Options
	want := &table{options: o, bridges: map[int]bool{}, entries: map[int]entry{}}
	for _, b := range d.wish.Bridges {
		want.bridges[b.Index] = k.bridges[b.Index]
	}
	var todo []int // ports that are here and not as they shall be
	for _, index := range slices.Sorted(maps.Keys(d.ports)) {
		pp := d.ports[index]
		want.bridges[pp.Bridge] = k.bridges[pp.Bridge]
		if p, here := d.known[index]; here && p.bridge == pp.Bridge && p != pp.at(o, k.Features) {
			todo = append(todo, index)
		}
	}
	for _, index := range todo {
		pp := d.ports[index]
		to := pp.at(o, k.Features)
		if to.program && !d.known[index].program {
			if d.step(Attach, index, func(p *port) { p.program = true }) != nil && !k.table.opens(index) {
				pp.entry = entry{state: guard.Quarantined} // nothing would watch what it sends
				to = pp.at(o, k.Features)
			}
		}
		if p := d.known[index]; to.pins != "" && (p.pins != to.pins || p.near != to.near) {
			_ = d.step(Pin, index, func(p *port) { p.pins, p.near = to.pins, to.near })
		}
	}
	for index, pp := range d.ports {
		want.entries[index] = pp.entry
	}
	for index, p := range d.known {
		if d.ports[index] == nil && p != (port{bridge: p.bridge}) {
			todo = append(todo, index)
		}
	}
	slices.Sort(todo)
	if k.Features.Filter && !k.table.equal(want) {
		if err := k.write(Commit, 0, func(*port) { k.commit(want) }); err != nil {
			return err
		}
	}
	d.table, d.gen = want, k.generation
	for _, index := range todo {
		to := port{bridge: d.known[index].bridge}
		if pp := d.ports[index]; pp != nil {
			to = pp.at(o, k.Features)
		}
		if d.known[index].setting != to.setting {
			_ = d.step(Set, index, func(p *port) { p.setting = to.setting })
		}
		if p := d.known[index]; len(d.failed[index]) == 0 && p != to {
			_ = d.step(Unpin, index, func(p *port) { p.pins, p.near, p.program = to.pins, to.near, to.program })
		}
	}
	return nil
}

// opens tells whether a port may send already.
func (t *table) opens(index int) bool {
	return t != nil && t.entries[index].state != "" && t.entries[index].state != guard.Quarantined
}

// step makes a write that is about a port, and notes its error.
func (d *Driver) step(op Op, index int, does func(*port)) error {
	err := d.kernel.write(op, index, does)
	if err != nil {
		err = fmt.Errorf("%s port %d: %w", op, index, err)
		d.failed[index] = append(d.failed[index], err.Error())
	}
	d.see(index)
	return err
}

// report says what is true of each port.
func (d *Driver) report() map[int]guard.PortReport {
	out := map[int]guard.PortReport{}
	for index, pp := range d.ports {
		r := guard.PortReport{State: pp.state, Passes: d.kernel.table == nil || d.kernel.table.admits(pp.Port), Faults: slices.Concat(pp.faults, d.failed[index])}
		switch p, here := d.known[index]; {
		case pp.state == guard.Trusted:
		case !here || p.bridge != pp.Bridge:
			r.State = guard.Gone
		case len(d.failed[index]) > 0:
			r.State = guard.Pending
		}
		out[index] = r
	}
	return out
}
