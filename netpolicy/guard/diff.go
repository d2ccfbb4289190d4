package guard

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"netguard/netpolicy/guard/checksum"
)

// kernelState is what the kernel was seen to hold.
type kernelState struct {
	table *tableState
	// limits is the table of limits; nil where connections cannot be counted.
	limits *tableState
	// arp is the third table; nil where the kernel has no such tables.
	arp   *tableState
	ports map[int]bridgePort
	// pins are the FDB entries of MACs that are, or were, a port's business.
	pins       map[int]map[MAC]fdbEntry
	neighbours map[Neighbour]MAC
	bridges    map[int]MAC
	// gateways are the addresses that the bridges have. The engine does not
	// always say which.
	gateways map[int][]netip.Addr
	// learned is how many MACs each of the host's bridges learns; see learned.go.
	learned map[int]uint32
	// no6 are the bridges on which the host speaks no IPv6, so that there is
	// nothing to be protected.
	no6 map[int]bool
	// before is what the ports were set to, for those that are guarded.
	before map[int]settings
	// programs are the programs of package checksum at each device, of whatever agent.
	programs map[int][]attached
	// reassembly is how the host puts fragments together.
	reassembly reassembly
}

// op is a kind of step. They are taken in this order: a neighbour entry is there as
// long as its pin is, so that recover finds what an agent or a clean-up that was
// killed has left.
type op int

const (
	opNeighbour op = iota
	opPin
	opAttach
	opSet
	opUnpin
	opForget
	opDetach
	opKnob
	opLearn
)

// step is one change of a port, an FDB entry or a neighbour.
type step struct {
	op        op
	port      int // what it is about; 0 for neighbours of nobody
	mac       MAC
	neighbour Neighbour
	settings  settings
	flush     bool
	program   checksum.ID
	knob      int // of knobs
	value     string
	bridge    int // opLearn
	learn     uint32
}

func (s step) String() string {
	switch s.op {
	case opPin:
		return fmt.Sprintf("pin %s to port %d", s.mac, s.port)
	case opNeighbour:
		return fmt.Sprintf("add neighbour %s at %s", s.neighbour.Addr, s.mac)
	case opSet:
		return fmt.Sprintf("set port %d to %q", s.port, s.settings)
	case opAttach:
		return fmt.Sprintf("attach the checksum program to port %d", s.port)
	case opDetach:
		return fmt.Sprintf("detach a checksum program from port %d", s.port)
	case opKnob:
		return fmt.Sprintf("set %s to %s", knobs[s.knob], s.value)
	case opLearn:
		return fmt.Sprintf("limit what bridge %d learns to %d", s.bridge, s.learn)
	case opUnpin:
		return fmt.Sprintf("unpin %s from port %d", s.mac, s.port)
	}
	return fmt.Sprintf("delete neighbour %s", s.neighbour.Addr)
}

// work is all that is to be done, in the order of its fields: what is added comes
// before what is taken away, and what a port was set to before is forgotten
// last.
type work struct {
	limits    limitWork
	arp       arpWork
	additions []step // FDB entries and neighbours
	admit     change // one transaction
	settings  []step
	deletions []step
	release   change // the records of what is as it was
}

func (w work) count() int {
	n := w.limits.count() + w.arp.count() + len(w.additions) + len(w.settings) + len(w.deletions) + size(w.admit.add) + size(w.admit.del) + size(w.release.del)
	if w.admit.replace != nil {
		n++
	}
	return n
}

// about lists what is to be done about each port.
func (w work) about() map[int][]string {
	out := map[int][]string{}
	w.limits.describe(out)
	w.arp.describe(out)
	for _, s := range slices.Concat(w.additions, w.settings, w.deletions) {
		out[s.port] = append(out[s.port], s.String())
	}
	for verb, c := range map[string]map[string]elements{"add to": w.admit.add, "take from": w.admit.del, "delete from": w.release.del} {
		for set, all := range c {
			for e := range all {
				port := 0
				if !slices.Contains(portless, set) {
					port = e.portOf()
				}
				out[port] = append(out[port], fmt.Sprintf("%s set %s", verb, set))
			}
		}
	}
	return out
}

// portless are the sets whose keys do not begin with a port of the wish.
var portless = []string{setAll4, setOwn4, setOwn6, setBridges, setNames, setSubnets4, setSubnets6, setOthers, setPrograms, setReassembly}

// diff compares. It is pure. Without a filter the table is left out.
func diff(p *plan, k *kernelState, f Features, l layout) work {
	var w work
	if f.Filter {
		w.admit, w.release = diffTable(p, k, l)
	}
	if f.Limits {
		w.limits = diffLimits(p.limits(), k.limits)
	}
	if f.ARP {
		w.arp = diffARP(p.arp(), k.arp)
	}
	for _, index := range slices.Sorted(maps.Keys(p.ports)) {
		pp := p.ports[index]
		if port, ok := k.ports[index]; ok && port.bridge == pp.Bridge && pp.state != Trusted {
			diffPort(&w, p, pp, port, k, f)
		}
	}
	// Ports that the wish names no more get back what they had.
	for _, index := range slices.Sorted(maps.Keys(k.before)) {
		if pp, ok := p.ports[index]; ok && pp.state != Trusted {
			continue
		}
		if port, ok := k.ports[index]; ok {
			if want := f.able(k.before[index]); port.settings != want {
				w.settings = append(w.settings, step{op: opSet, port: index, settings: want})
			}
			unpin(&w, k, index, nil)
		}
	}
	for key, n := range p.neighbours {
		if k.neighbours[key] != n.mac && (key.Addr.Is4() || !k.no6[key.Bridge]) {
			w.additions = append(w.additions, step{op: opNeighbour, port: n.port, neighbour: key, mac: n.mac})
		}
	}
	for key := range k.neighbours {
		if _, ok := p.neighbours[key]; !ok {
			w.deletions = append(w.deletions, step{op: opForget, neighbour: key})
		}
	}
	diffPrograms(&w, p, k)
	diffReassembly(&w, p, &k.reassembly)
	diffLearned(&w, p, k)
	slices.SortStableFunc(w.additions, compareSteps)
	slices.SortStableFunc(w.deletions, compareSteps)
	return w
}

func compareSteps(a, b step) int {
	return cmp.Or(cmp.Compare(a.op, b.op), cmp.Compare(a.port, b.port), slices.Compare(a.mac[:], b.mac[:]),
		a.neighbour.Addr.Compare(b.neighbour.Addr))
}

func diffPort(w *work, p *plan, pp *portPlan, port bridgePort, k *kernelState, f Features) {
	before, ok := k.before[pp.Index]
	if !ok {
		before = portDefaults
	}
	want := jailed
	switch {
	case p.mode == Monitor:
		want = before
	case pp.state == Admitted:
		want = guarded(before)
	}
	if want = f.able(want); port.settings != want {
		// Up to here the bridge may have learned from the container.
		flush := want.on&learning == 0 && port.settings.on&(learning|locked) != want.on&locked
		w.settings = append(w.settings, step{op: opSet, port: pp.Index, settings: want, flush: flush})
	}
	var pinned []MAC
	if p.mode == Enforce && pp.state == Admitted {
		pinned = pp.macs
	}
	for _, m := range pinned {
		if e, ok := k.pins[pp.Index][m]; !ok || !e.pinned(pp.Index, f.Sticky) {
			w.additions = append(w.additions, step{op: opPin, port: pp.Index, mac: m})
		}
	}
	unpin(w, k, pp.Index, pinned)
}

// unpin removes the static entries of a port but for those that are to stay.
func unpin(w *work, k *kernelState, port int, stay []MAC) {
	for mac, e := range k.pins[port] {
		if e.static(port) && !slices.Contains(stay, mac) {
			w.deletions = append(w.deletions, step{op: opUnpin, port: port, mac: mac})
		}
	}
}

// diffTable compares the sets. All that changes at once does so in the first
// transaction; only what is known of a port and of its MACs stays until these are
// as they were before.
func diffTable(p *plan, k *kernelState, l layout) (admit, release change) {
	admit = change{add: map[string]elements{}, del: map[string]elements{}}
	release = change{del: map[string]elements{}}
	adopted := k.table.keeps(l)
	if !k.table.matches(l) {
		admit.replace, admit.existing = &l, k.table.present
		if adopted {
			admit.chains = append(sortedKeys(k.table.rules), k.table.id)
		}
	}
	for set, want := range p.sets {
		have := k.table.sets[set]
		add, del := elements{}, elements{}
		for e := range want {
			if _, ok := have[e]; !ok || !adopted {
				add[e] = ""
			}
		}
		for e, comment := range have {
			if _, ok := want[e]; !ok {
				del[e] = comment
			}
		}
		if set == setPorts || set == setMAC || set == setPrograms || set == setReassembly {
			release.del[set] = del
			if !adopted {
				maps.Copy(add, del)
			}
		} else if adopted {
			admit.del[set] = del
		}
		if set == setPorts {
			for e := range add {
				add[e] = k.recorded(e.portOf())
			}
		}
		if set == setReassembly {
			for i := range knobs {
				if _, ok := add[k.reassembly.element(i)]; ok {
					add[k.reassembly.element(i)] = k.reassembly.comment(i)
				}
			}
		}
		admit.add[set] = add
	}
	return admit, release
}

// recorded is the comment that keeps what a port was set to.
func (k *kernelState) recorded(port int) string {
	if before, ok := k.before[port]; ok {
		return before.recorded()
	}
	return portDefaults.recorded()
}
