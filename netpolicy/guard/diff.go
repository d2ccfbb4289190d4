package guard

import (
	"cmp"
	"fmt"
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
	// pins are the FDB entries of MACs that a port has, or had earlier.
	pins       map[int]map[MAC]fdbEntry
	neighbours map[Neighbour]MAC
	bridges    map[int]MAC
	// gateways are the addresses of the bridges themselves. Docker does not always tell all
	// of them.
	gateways map[int][]netip.Addr
	// learned is how many MACs each of the host's bridges learns; see learned.go.
	learned map[int]uint32
	// no6 are the bridges on which the host has no IPv6. There the kernel takes no neighbour
	// entries of IPv6, and none are needed.
	no6 map[int]bool
	// before are the settings that guarded ports had before netguard.
	before map[int]settings
	// programs are the programs of package checksum at each device, of whatever agent.
	programs map[int][]attached
	// reassembly is how the host puts fragments together.
	reassembly reassembly
}

// op is a kind of step. Steps are carried out in this order. So a neighbour entry is there as
// long as its pin is, and recover finds what a killed agent or clean-up left.
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

// work is all that has to be written, in the order of its fields: additions come before
// deletions. The record of what a port was set to before is deleted last.
type work struct {
	limits    change
	arp       change
	additions []step // FDB entries and neighbours
	admit     change // one transaction
	settings  []step
	deletions []step
	release   change // the records of what is as it was
}

func (w work) count() int {
	return w.limits.count() + w.arp.count() + w.admit.count() + w.release.count() + len(w.additions) + len(w.settings) + len(w.deletions)
}

// about lists the work by port, in words.
func (w work) about() map[int][]string {
	if w.count() == 0 {
		return nil
	}
	out := map[int][]string{}
	for _, s := range slices.Concat(w.additions, w.settings, w.deletions) {
		out[s.port] = append(out[s.port], s.String())
	}
	for table, c := range map[string]change{"bridge": w.admit, "inet": w.limits, "arp": w.arp, "": w.release} {
		out[0] = append(out[0], c.describe(table+" "+TableName)...)
		for verb, sets := range map[string]map[string]elements{"add to": c.add, "delete from": c.del} {
			for set, all := range sets {
				for e := range all {
					port := 0
					if (table == "bridge" || table == "") && !slices.Contains(portless, set) {
						port = e.portOf()
					}
					out[port] = append(out[port], fmt.Sprintf("%s set %s", verb, set))
				}
			}
		}
	}
	return out
}

// portless are the sets whose keys do not begin with a port of the wish.
var portless = []string{setAll4, setOwn4, setOwn6, setBridges, setNames, setSubnets4, setSubnets6, setOthers, setPrograms, setReassembly}

// diff compares what the scope names. It is pure. Without a filter the table is left out.
func diff(p *plan, k *kernelState, f Features, l layout, s scope) work {
	var w work
	if s.all {
		s = everything(p, k)
		if f.Filter {
			w.admit, w.release = diffBridgeTable(p, k, l)
		}
		if f.Limits {
			w.limits = p.connections.diff(limitFamily, limitSets(), k.limits)
		}
		if f.ARP {
			w.arp = p.arp().diff(arpFamily, arpSets(), k.arp)
		}
	} else {
		diffElements(&w, p, k, f, s)
	}
	ports := sortedKeys(s.ports)
	for _, index := range ports {
		diffPort(&w, p, index, k, f)
		diffAttach(&w, p, k, index)
		diffDetach(&w, p, k, index)
	}
	for _, index := range ports { // what closes comes before what opens
		diffReleased(&w, p, index, k, f)
	}
	for key := range s.neighbours {
		diffNeighbour(&w, p, key, k)
	}
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

// diffBridgeTable compares the table of the bridge. The first transaction, admit, makes all
// changes but one kind: elements of the lasting sets stay. The second one, release, deletes them
// when what they are about is as it was before netguard.
func diffBridgeTable(p *plan, k *kernelState, l layout) (admit, release change) {
	admit, release = diffTable(&l, p.sets, k.table), change{del: map[string]elements{}}
	for _, set := range lasting {
		if release.del[set] = admit.del[set]; admit.create {
			release.del[set] = elements{}
			for e, comment := range k.table.sets[set] {
				if _, wanted := admit.add[set][e]; !wanted {
					release.del[set][e], admit.add[set][e] = comment, ""
				}
			}
		}
		delete(admit.del, set)
		for e := range admit.add[set] {
			admit.add[set][e] = k.comment(set, e)
		}
	}
	return admit, release
}

// lasting are the sets of records. An element stays until the port, MAC, program or setting
// that it is about is as it was before netguard.
var lasting = []string{setPorts, setMAC, setPrograms, setReassembly}

func lasts(set string) bool { return slices.Contains(lasting, set) }

// comment is the text that an element has beside its key: the earlier settings of a port, or
// the earlier value of a setting of the host.
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
