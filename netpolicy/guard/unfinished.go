package guard

import (
	"maps"
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"netguard/internal/fault"
	"netguard/netpolicy/guard/checksum"
)

// An unfinished frame is one that the kernel still writes into, or cuts up, after the rules
// judged it. The program of package checksum is attached to each guarded port, and marks such
// frames. The rules here count them and refuse them. Some kernels cannot run the program.
// There, Options.Fragments is the next best: the most harmful of these frames are fragments.

var (
	frameMark  = meta(expr.MetaKeyMARK, 4)
	spoiltMark = binaryutil.NativeEndian.PutUint32(checksum.Mark)
	unmark     = match{
		&expr.Immediate{Register: register(0), Data: make([]byte, 4)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register(0)},
	}
)

// unfinished adds the rule about marked frames of monitor mode. There the program only marks a
// frame, and the fast path would accept it uncounted. In enforce mode the program also spoils
// the frame, so that the fast path does not match.
func (b *builder) unfinished(o Options, f Features) {
	if o.Mode == Monitor && f.Checksum {
		b.refuse("prerouting", "written to after it is judged", kindChecksum, frameMark.is(spoiltMark...))
	}
}

// probeChecksum tries the program.
func (f *Features) probeChecksum(port int) error {
	p, err := checksum.New(true)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := attachProgram(p, port); err != nil {
		return err
	}
	f.Checksum = true
	return checksum.Detach(port, p.ID())
}

func attachProgram(p *checksum.Program, port int) error {
	return fault.Write("checksum program", func() error { return p.Attach(port) })
}

// attached is a program that netguard attached somewhere, now or earlier.
type attached struct {
	id checksum.ID
	// does is what it does, 0 if that is not known.
	does checksum.Fingerprint
}

// element is the record of the program in the table. Without a record, an agent would need
// CAP_SYS_ADMIN to ask the kernel about a program that another process loaded.
func (a attached) element() element {
	return element{key: string(binaryutil.NativeEndian.PutUint32(uint32(a.id))) + string(binaryutil.NativeEndian.PutUint32(uint32(a.does)))}
}

// recorded gives the programs on record.
func (s *tableState) recorded() map[checksum.ID]attached {
	out := map[checksum.ID]attached{}
	for e := range s.sets[setPrograms] {
		if len(e.key) == 8 {
			a := attached{id: checksum.ID(binaryutil.NativeEndian.Uint32([]byte(e.key[:4]))),
				does: checksum.Fingerprint(binaryutil.NativeEndian.Uint32([]byte(e.key[4:])))}
			out[a.id] = a
		}
	}
	return out
}

// programFor makes the program that a mode needs.
func (d *Driver) programFor(m Mode) error {
	if !d.features.Checksum || d.program != nil && d.programMode == m {
		return nil
	}
	p, err := checksum.New(m == Enforce)
	if err != nil {
		return err
	}
	if d.program != nil {
		_ = d.program.Close() // it stays where it is attached
	}
	d.program, d.programMode = p, m
	return nil
}

// observePrograms reads what is attached to a device. Foreign programs are left out.
func (d *Driver) observePrograms(device int) error {
	delete(d.kernel.programs, device)
	if !d.features.Checksum {
		return nil
	}
	all, err := d.ours(device)
	if len(all) > 0 {
		d.kernel.programs[device] = all
	}
	return err
}

// ours lists what netguard attached to a device.
func (d *Driver) ours(device int) ([]attached, error) {
	ids, err := checksum.Attached(device)
	var out []attached
	for _, id := range ids {
		if d.program != nil && id == d.program.ID() {
			out = append(out, attached{id, d.program.Fingerprint()})
			continue
		}
		a, is := d.kernel.table.recorded()[id]
		if !is {
			if _, known := d.named[id]; !known {
				d.named[id] = checksum.Ours(id)
			}
			a, is = attached{id: id}, d.named[id]
		}
		if is {
			out = append(out, a)
		}
	}
	return out, err
}

// observeStrayPrograms reads the programs of all devices, also of those that are in no bridge
// any more.
func (d *Driver) observeStrayPrograms() error {
	devices, err := d.links.devices()
	if err != nil {
		return err
	}
	for _, device := range devices {
		all, err := d.ours(device)
		switch {
		case err != nil && d.features.Checksum:
			return err
		case err != nil:
			return nil // a kernel that cannot list them has none
		case len(all) > 0:
			d.kernel.programs[device] = all
		}
	}
	return nil
}

// programs plans which programs are recorded: the program of this process, and those programs of
// earlier processes that do the same and stay attached. It looks at the ports of the scope. It
// adds to the scope the elements that were added or removed.
func (p *plan) programs(mine *checksum.Program, k *kernelState, s scope) {
	if mine == nil {
		return
	}
	p.program, p.news = mine.Fingerprint(), s.elements
	defer func() { p.news = nil }()
	ports := maps.Keys(s.ports)
	if s.all {
		ports = maps.Keys(k.programs)
	}
	stays := func(port int, now attached) {
		was := p.stay[port]
		if was == now {
			return
		}
		if now.id != 0 {
			p.add(want{setPrograms, now.element()})
		}
		if was.id != 0 {
			p.remove(want{setPrograms, was.element()})
		}
		if p.stay[port] = now; now.id == 0 {
			delete(p.stay, port)
		}
	}
	stays(0, attached{mine.ID(), p.program}) // no port has this number
	for index := range ports {
		var now attached
		if i := p.keeps(k.programs[index]); i >= 0 && p.wantsProgram(index) {
			now = k.programs[index][i]
		}
		stays(index, now)
	}
}

func diffAttach(w *work, p *plan, k *kernelState, index int) {
	pp := p.ports[index]
	if port, here := k.ports[index]; here && pp != nil && port.bridge == pp.Bridge && p.wantsProgram(index) && p.keeps(k.programs[index]) < 0 {
		w.additions = append(w.additions, step{op: opAttach, port: index})
	}
}

func diffDetach(w *work, p *plan, k *kernelState, index int) {
	all, keep := k.programs[index], -1
	if p.wantsProgram(index) {
		keep = p.keeps(all)
	}
	for i, a := range all {
		if i != keep {
			w.deletions = append(w.deletions, step{op: opDetach, port: index, program: a.id})
		}
	}
}

func (p *plan) wantsProgram(index int) bool {
	pp, ok := p.ports[index]
	return ok && pp.state != Trusted && p.program != 0
}

// keeps gives the place of the program that stays, -1 if none does.
func (p *plan) keeps(all []attached) int {
	return slices.IndexFunc(all, func(a attached) bool { return a.does == p.program })
}

// watchPorts attaches the program before any port is admitted. A port where that fails is not
// admitted. If there is a table, the program is recorded first: the next agent then knows the
// programs of an agent that was killed.
func (d *Driver) watchPorts(w Wish, todo work, l layout) (Wish, bool, error) {
	todo.additions = slices.DeleteFunc(slices.Clone(todo.additions), func(s step) bool { return s.op != opAttach })
	if len(todo.additions) == 0 {
		return w, false, nil
	}
	if err := d.program.Load(); err != nil {
		return d.hold(w, err, func(*Port) bool { return true }), true, nil
	}
	if record := (attached{d.program.ID(), d.program.Fingerprint()}).element(); d.features.Filter && d.kernel.table.keeps(l) {
		if _, ok := d.kernel.table.sets[setPrograms][record]; !ok {
			if err := d.commit(change{add: map[string]elements{setPrograms: {record: ""}}}); err != nil {
				return w, false, err
			}
		}
	}
	for _, s := range todo.additions {
		if err := d.step(s); err != nil {
			w = d.hold(w, err, func(p *Port) bool { return p.Index == s.port })
		}
	}
	return w, true, nil
}
