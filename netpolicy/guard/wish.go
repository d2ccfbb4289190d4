package guard

import (
	"net/netip"
	"slices"
)

// Mode says what becomes of a frame that is refused.
type Mode int

const (
	// Enforce drops a refused frame.
	Enforce Mode = iota
	// Monitor counts a refused frame and lets it pass. Then the guard sets nothing that
	// could change traffic: ports, FDB and neighbours stay as they were.
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
	// FragmentRate is how many fragments a second each port may send, if Fragments is false.
	// 0 is no limit, and leaves the host's reassembly as it is.
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
	// Allow are the port's extra addresses. The port never gets one that belongs to another
	// port or to a gateway.
	Allow Allow
	// LinkLocals are the addresses in Allow that no label names: link-local addresses that
	// Docker or the container itself chose. They belong to this port alone. So they are
	// announced to neighbours, like IPv4 and IPv6.
	LinkLocals []netip.Addr
	// Container names the port's container, for messages. Ports of one container may share
	// the addresses in Answers.
	Container string
	// Answers are addresses of the same container on other bridges. The container may send
	// from them here too, since its answers may leave by this bridge. The rules of
	// netpolicy/iptables refuse new connections from them.
	Answers []netip.Addr
	// Connections is how many connections it may have open at a time; 0 is no
	// limit.
	Connections uint32
	// DHCPServer lets it answer DHCP clients of its bridge.
	DHCPServer bool
	// Guarded is false for an uplink that the operator attached, and for containers that the
	// operator does not guard. Such a port is not checked, and may talk to all known ports.
	Guarded bool
	// Admitted is false while not every rule for the port is in the kernel. Until then the
	// port can neither send nor receive.
	Admitted bool
	// Standing keeps a port admitted although Admitted is false, if the kernel already admits
	// it with this MAC and these addresses.
	Standing bool
	// Isolated says that a policy closes the port for what reaches it. Then broadcast and
	// multicast packets reach it only if IP itself needs them.
	Isolated bool
}

// Wish is all that is wanted of the kernel. Nobody changes what it points to.
type Wish struct {
	Options
	// Ports are told apart by their pointers.
	Ports []*Port
	// Bridges are the managed bridges, with a port or without.
	Bridges []Bridge
	// Others are ports of bridges that are not managed, by ifindex. The rules leave them
	// alone, even if their frames look like those of a managed bridge.
	Others []int
	// Taken are addresses of containers that have no port here, sorted.
	Taken []netip.Addr
}

// equalHost tells whether two wishes are equal, except for Ports and Others.
func (w Wish) equalHost(v Wish) bool {
	return w.Options == v.Options && slices.Equal(w.Taken, v.Taken) && slices.EqualFunc(w.Bridges, v.Bridges, func(a, b Bridge) bool {
		return a.Index == b.Index && a.Name == b.Name && slices.Equal(a.Subnets, b.Subnets)
	})
}

// with adds what only the kernel says. The addresses of each bridge become gateways of its
// ports. A standing port that the kernel admits becomes admitted.
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

// Look names what may have changed in the kernel since the last Apply. The Driver reads this
// again, and the ports that differ from the last wish. It checks the tables each time, which
// takes one message. With Unheard it also reads a part of all the rest; see unheard.go.
type Look struct {
	Full       bool
	Links      map[int]struct{} // ifindexes
	MACs       map[MAC]struct{} // whose FDB entries may have changed, on any bridge
	Neighbours map[Neighbour]struct{}
	// Unheard asks for what the kernel does not report: programs that somebody took off a
	// port, and settings of the host.
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
	// Checksum counts frames that the kernel would still write into, or cut into very many
	// frames, after the rules judged them. With Options.Fragments it also counts fragments.
	Checksum uint64
	// Fragments counts fragments beyond Options.FragmentRate.
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

// Report is what the kernel holds. Nobody may change it.
type Report struct {
	Ports map[int]PortReport // by ifindex, one for each port of the wish
	// Violations has the counts of each port that has any. Only Read gives them.
	Violations map[int]Violations
	// Changes counts the differences between plan and kernel: those that Apply set out to
	// write, or those that Read found.
	Changes int
	// Drift says what Apply or Read found changed by somebody else.
	Drift []string
	// Warnings name the settings of the host that could not be made. They concern no single
	// port.
	Warnings []string
}
