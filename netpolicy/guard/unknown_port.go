package guard

import (
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// On some kernels the rules before the bridge cannot see which bridge a port is on. They
// still know two things about an unknown port (see unknown_port_rules.go):
//
//   - It is unknown. They write that into the frame's priority. The host's rules see the
//     bridge that the frame comes in by, and the priority, and refuse the frame. The kernel
//     resets the priority that the sender gave to a frame (____dev_forward_skb).
//   - It exchanged a frame with a known port, or with the bridge itself, before. So it is on
//     a managed bridge. From then on it is refused like a port whose bridge can be seen.

// unknownChain is a chain in the tables of the host. It looks at what comes in.
const (
	unknownChain = "unknown-port"
	// unknownPriority is before the kernel puts fragments together (-400).
	unknownPriority = -450
	// setHostBridges is a set of these tables: the managed bridges, by ifindex.
	setHostBridges = "bridges"
)

const (
	// fromUnknown and toUnknown are chains that remember in setUnknown the port that a
	// frame comes from, or goes to, before the frame is counted and refused.
	fromUnknown = "from-unknown"
	toUnknown   = "to-unknown"
	// unknownLife is how long a port is remembered after the last frame.
	unknownLife = time.Hour
)

// toLinkLocalGroup holds for frames to 01:80:c2:00:00:00 to :0f.
var toLinkLocalGroup = etherTo.maskedIs([]byte{255, 255, 255, 255, 255, 0xf0}, []byte{1, 0x80, 0xc2, 0, 0, 0})

var (
	framePriority = meta(expr.MetaKeyPRIORITY, 4)
	// unknownMark is not the handle of any queue. Queues that read only its last four bits
	// see 0 there, the usual priority.
	unknownMark = binaryutil.NativeEndian.PutUint32(0x6e670100)
	markUnknown = match{
		&expr.Immediate{Register: register(0), Data: unknownMark},
		&expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: register(0)},
	}
	// aVeth holds for what comes in by a veth: Docker's ports are always veths.
	aVeth = inKind.is(ifname("veth")...)
)

// unknownPorts adds the rules about frames of unknown ports that come before the bridge
// learns anything from them.
func (b *builder) unknownPorts(f Features) {
	switch {
	case f.BridgeNames:
		b.add("prerouting", "from an unknown port of a managed bridge", goTo(countFrom), notIn(setKnown, inPort), in(setNames, inBridge))
	case f.Prefixes:
		b.add("prerouting", "from an unknown port that was on a managed bridge", goTo(fromUnknown),
			in(setUnknown, inPort), notIn(setKnown, inPort), notIn(setOthers, inPort))
		b.add("prerouting", "mark what is from an unknown port", nil,
			aVeth, notIn(setKnown, inPort), notIn(setOthers, inPort), markUnknown)
	}
}

// remember adds the chains that remember ports. Monitor mode does not need to remember any.
func (b *builder) remember(o Options, f Features) {
	for _, c := range []struct {
		chain, then string
		port        field
	}{{fromUnknown, countFrom, inPort}, {toUnknown, countTo, outPort}} {
		if o.closed() && !f.BridgeNames && f.Prefixes {
			b.add(c.chain, "remember the port", nil, match{c.port.load(register(0))}, note(setUnknown, unix.NFT_DYNSET_OP_UPDATE, unknownLife))
		}
		b.add(c.chain, "and count", goTo(c.then))
	}
}

// hostRules adds the chain that looks at what comes in to the host. The table needs the set
// of bridges.
//
// A bridge hands frames to link-local groups (01:80:c2:00:00:00 to :0f, such as LLDP) to the
// host as if they had come in by the port itself. LLDP passes no hook of the bridge on the
// way (br_handle_frame). A port that the agent has seen forwards such frames like all others
// (see settings.group), so the rules before the bridge see them. An unknown port does not.
// No honest packet of IP or ARP is in such a frame, so this rule is about every veth.
func (b *builder) hostRules(refuse expr.Any) {
	b.add(unknownChain, "for a link-local group", refuse, aVeth, toLinkLocalGroup)
	b.add(unknownChain, "of an unknown port of a managed bridge", refuse, framePriority.is(unknownMark...), in(setHostBridges, inPort))
}

// loopback adds the rule about what containers send to the host's 127.0.0.0/8. Docker
// without its proxy makes the kernel accept that from bridges (route_localnet). Rules of the
// bridge cannot refuse it. The host may have opened a connection to a container by 127.0.0.1. If
// iptables sees what the bridge forwards, the answer already has that destination when rules of
// the bridge see it. In this chain the answer does not have it yet.
func (b *builder) loopback() {
	b.add(unknownChain, "for the host's loopback", goTo("refuse"),
		nfproto.is(unix.NFPROTO_IPV4), ip4To.maskedIs([]byte{0xff, 0, 0, 0}, []byte{127, 0, 0, 0}), in(setHostBridges, inPort))
}

func hostBridges() setSpec {
	return setSpec{name: setHostBridges, key: []nftables.SetDatatype{nftables.TypeIFIndex}, size: maxBridges}
}

// hostBridges are the elements of that set.
func (p *plan) hostBridges() elements {
	out := elements{}
	for _, index := range p.bridges {
		out[element{key: portKey(index)}] = ""
	}
	return out
}

// The third table, of the family arp, keeps ARP frames of unknown ports from the host. The table
// of limits does the same for IP. The third table exists only while admission is closed.

const arpFamily = nftables.TableFamilyARP

// arp is what the third table shall have.
func (p *plan) arp() tablePlan {
	if !p.closed {
		return tablePlan{}
	}
	b := &builder{}
	b.hostRules(drop)
	return tablePlan{b.rules, map[string]elements{setHostBridges: p.hostBridges()}}
}

func arpSets() []setSpec { return []setSpec{hostBridges()} }
