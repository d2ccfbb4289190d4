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
		w.limits = diffLimits(p.connections, k.limits)
	}
	if f.ARP {
		w.arp = diffARP(p.arp(), k.arp)
	}
	for _, index := range slices.Sorted(maps.Keys(p.ports)) {
		diffPort(&w, p, index, k, f)
	}
	for _, index := range slices.Sorted(maps.Keys(k.before)) {
		diffReleased(&w, p, index, k, f)
	}
	for key := range p.neighbours {
		diffNeighbour(&w, p, key, k)
	}
	for key := range k.neighbours {
		if _, ok := p.neighbours[key]; !ok {
			diffNeighbour(&w, p, key, k)
		}
	}
	diffPrograms(&w, p, k)
	diffReassembly(&w, p, &k.reassembly)
	diffLearned(&w, p, k)
	w.sort()
	return w
}

func (w *work) sort() {
	slices.SortStableFunc(w.additions, compareSteps)
	slices.SortStableFunc(w.deletions, compareSteps)
}

func compareSteps(a, b step) int {
	return cmp.Or(cmp.Compare(a.op, b.op), cmp.Compare(a.port, b.port), slices.Compare(a.mac[:], b.mac[:]),
		a.neighbour.Addr.Compare(b.neighbour.Addr))
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
		if lasts(set) {
			release.del[set] = del
			if !adopted {
				maps.Copy(add, del)
			}
		} else if adopted {
			admit.del[set] = del
		}
		for e := range add {
			add[e] = k.comment(set, e)
		}
		admit.add[set] = add
	}
	return admit, release
}

// lasts tells whether elements of a set stay until what they are about is as it was before.
func lasts(set string) bool {
	return set == setPorts || set == setMAC || set == setPrograms || set == setReassembly
}

// comment is what an element keeps beside its key: what a port, or a setting of the host,
// was before.
func (k *kernelState) comment(set string, e element) string {
	switch set {
	case setPorts:
		if before, ok := k.before[e.portOf()]; ok {
			return before.recorded()
		}
		return portDefaults.recorded()
	case setReassembly:
		return k.reassembly.comment(e.portOf())
	}
	return ""
}
