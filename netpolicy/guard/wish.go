package guard

import (
	"net/netip"
	"slices"
)

// Mode says what becomes of a frame that is refused.
type Mode int

const (
	// Enforce drops it.
	Enforce Mode = iota
	// Monitor counts it and lets it pass. Nothing that could change traffic
	// is set: ports, FDB and neighbours stay as they were.
	Monitor
)

func (m Mode) String() string {
	if m == Monitor {
		return "monitor"
	}
	return "enforce"
}

// Storm limits the broadcast and multicast frames of each port. Unknown unicast
// needs no limit: it is not flooded.
type Storm struct {
	Rate  uint64 // frames a second; 0 is no limit
	Burst uint32 // frames beyond it that pass at once
}

// DefaultStorm is far above what ARP, ND and mDNS need.
var DefaultStorm = Storm{Rate: 1000, Burst: 2000}

// Options hold for all ports.
type Options struct {
	Mode  Mode
	Storm Storm
	// Open lets frames pass from and to ports of managed bridges that the wish
	// does not name. Without it they are refused, and in Monitor mode counted.
	Open bool
	// Fragments refuses all fragments of IPv4 and IPv6 that ports send.
	Fragments bool
	// FragmentRate is how many of them a second each port may send otherwise; 0 is no
	// limit, and leaves the host's reassembly as it is.
	FragmentRate uint32
}

// Port is one port of a managed bridge.
type Port struct {
	Index      int    // of the host's veth
	Name       string // of the host's veth, for messages
	Bridge     int    // ifindex
	BridgeName string
	MAC        MAC        // of the container's end; zero if it is not known
	IPv4, IPv6 netip.Addr // invalid where there is none; the link-local address is implied
	Gateways   []netip.Addr
	// Allow are further addresses of its own, by its label. It never takes an
	// address that is another port's or a gateway's.
	Allow Allow
	// LinkLocals are those of Allow's that are this port's alone, though no label names
	// them. They are announced as those that Docker gave are.
	LinkLocals []netip.Addr
	// Container is whose it is, for messages, and so that its ports may share addresses.
	Container string
	// Answers are addresses of the same container on other bridges: it may use them here
	// as well, to answer whoever reached it by them. The host keeps the rest away.
	Answers []netip.Addr
	// Connections is how many connections it may have open at a time; 0 is no
	// limit.
	Connections uint32
	// DHCPServer lets it answer DHCP clients of its bridge.
	DHCPServer bool
	// Guarded is false for a port that is not a container's (an uplink that the
	// operator attached): it is left alone, and may talk to all.
	Guarded bool
	// Admitted is false while not every rule for the port is in the kernel: it
	// can neither send nor receive.
	Admitted bool
	// Standing keeps a port that is not to be admitted as it is in the kernel, if
	// it was admitted there with this MAC and these addresses.
	Standing bool
	// Isolated says that policies close it for what reaches it: nothing that is for a
	// group or for all does, but for what IP itself needs.
	Isolated bool
}

// Wish is all that is wanted of the kernel. Nobody changes what it points to.
type Wish struct {
	Options
	// Ports are told apart by their pointers.
	Ports []*Port
	// Bridges are the managed bridges, with a port or without.
	Bridges []Bridge
	// Others are ports of other bridges, by ifindex. All that is done about them
	// is to leave them alone even if they look like those of a managed bridge.
	Others []int
	// Taken are addresses of containers that have no port here, sorted.
	Taken []netip.Addr
}

// equalHost tells whether two wishes say the same but for ports.
func (w Wish) equalHost(v Wish) bool {
	return w.Options == v.Options && slices.Equal(w.Taken, v.Taken) && slices.EqualFunc(w.Bridges, v.Bridges, func(a, b Bridge) bool {
		return a.Index == b.Index && a.Name == b.Name && slices.Equal(a.Subnets, b.Subnets)
	})
}

// with adds what only the kernel says: the addresses that bridges have to the
// gateways that are known, and which ports are admitted there.
func (w Wish) with(k *kernelState) Wish {
	w.Ports = slices.Clone(w.Ports)
	for i, p := range w.Ports {
		w.Ports[i] = p.with(k)
	}
	return w
}

func (p Port) with(k *kernelState) *Port {
	p.Gateways = slices.Concat(p.Gateways, k.gateways[p.Bridge])
	p.Admitted = p.Admitted || p.Standing && k.table.admits(&p)
	return &p
}

// Look says what may have changed in the kernel since the last Apply, beyond
// what the wish itself changes; nothing else is read again. (The table is checked
// each time: that is one message.)
type Look struct {
	Full       bool
	Links      map[int]struct{} // ifindexes
	MACs       map[MAC]struct{} // whose FDB entries may have changed, on any bridge
	Neighbours map[Neighbour]struct{}
	// Unheard is what the kernel tells nobody of: programs taken off ports, settings of
	// the host.
	Unheard bool
}

// Everything looks at all.
var Everything = Look{Full: true}

// State is what became of a port of the wish.
type State string

const (
	Admitted    State = "admitted"    // guarded, and as wished in the kernel
	Quarantined State = "quarantined" // it can neither send nor receive
	Trusted     State = "trusted"     // not guarded by wish
	Gone        State = "gone"        // no port of its bridge (any more)
	Pending     State = "pending"     // not as wished
)

// Violations count the frames that were refused, by kind. In Monitor mode they
// passed all the same.
type Violations struct {
	MAC        uint64 // the sender's MAC is not the port's
	ARP        uint64
	IP         uint64 // the source address is not the port's; no header that could be read; an IGMP query
	ND         uint64 // neighbour discovery, router advertisements, an MLD query
	DHCP       uint64 // a server's answer, or a client's question with another's MAC
	Ethertype  uint64 // neither IPv4 nor IPv6 nor ARP: VLAN tags and LLC among them
	Storm      uint64 // broadcast and multicast beyond the limit
	Quarantine uint64 // sent while not admitted; no violation
	Withheld   uint64 // was for it while it was not admitted; no violation either
	// Connections counts packets that would have opened one beyond the limit.
	Connections uint64
	// Checksum counts frames that the kernel would have written into, or cut into very
	// many, after they were judged; with Options.Fragments, fragments.
	Checksum uint64
	// Fragments counts those of IP beyond Options.FragmentRate.
	Fragments uint64
}

// Total is the sum of all kinds of violation.
func (v Violations) Total() uint64 {
	return v.MAC + v.ARP + v.IP + v.ND + v.DHCP + v.Ethertype + v.Storm + v.Connections + v.Checksum + v.Fragments
}

// PortReport is what is true of one port.
type PortReport struct {
	State State
	// Passes says that what the port sends gets past the table: it is admitted
	// there with its addresses, or there is no table.
	Passes bool
	// Faults say what is wrong, each with its remedy.
	Faults []string
}

// Report is what the kernel holds. It is not to be changed.
type Report struct {
	Ports map[int]PortReport // by ifindex, one for each port of the wish
	// Violations are those of ports that have any. Read counts them.
	Violations map[int]Violations
	// Changes counts what Apply changed, or what Read found to be otherwise.
	Changes int
	// Drift says what Apply or Read found changed by somebody else.
	Drift []string
	// Warnings say what could not be done that guards no port by itself.
	Warnings []string
}
