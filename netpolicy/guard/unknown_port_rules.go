package guard

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// An unknown port is a port of a managed bridge that the wish does not name: it came
// while no agent was running, or a moment ago. Its addresses cannot be trusted: a new
// container may get the address, and the MAC, of one that is gone. So the rules look only
// at whether the port is known.
//
// Some kernels let rules see the bridge of a port (CONFIG_NFT_BRIDGE_META). There, that is
// enough. On other kernels the rules tell a managed bridge by what only its frames have.
// Frames of the host have the bridge's own MAC as their source, and frames to the host have
// it as their destination. Frames between two unknown ports have addresses of its subnets.
// Another bridge's network may overlap with these subnets while the host is not on it. So
// the rules leave ports alone that the wish names as ports of other bridges.

// UnknownPortChain is a chain of the table. It is there only while admission is closed.
// Monitor mode has watchChain in its place.
const (
	UnknownPortChain = "refuse-unknown-port"
	watchChain       = "watch-unknown-port"
)

// countFrom and countTo are chains that frames pass on their way to UnknownPortChain. countFrom
// counts a frame for the port that it came in by, countTo for the port that it leaves by.
const countFrom, countTo = "count-from-unknown", "count-to-unknown"

// closed tells whether unknown ports are refused. Monitor mode counts what would be.
func (o Options) closed() bool { return !o.Open && o.Mode == Enforce }

// unknownEnd is the chain in which frames of unknown ports end.
func (o Options) unknownEnd() string {
	if o.Mode == Monitor {
		return watchChain
	}
	return UnknownPortChain
}

// Bridge is a managed bridge.
type Bridge struct {
	Index   int
	Name    string
	Subnets []netip.Prefix
}

var (
	inBridge  = meta(expr.MetaKeyBRIIIFNAME, unix.IFNAMSIZ)
	outBridge = meta(expr.MetaKeyBRIOIFNAME, unix.IFNAMSIZ)
	// inKind is the kind of a virtual device, such as "veth" (NFT_META_IIFKIND).
	inKind = meta(26, unix.IFNAMSIZ)
	// carried is the protocol behind a VLAN tag, if there is one.
	carried = meta(expr.MetaKeyPROTOCOL, 2)

	arpTarget = network(24, 4)
	ip4To     = network(16, 4)
	ip6To     = network(24, 16)
)

const protoIP4, protoARP, protoIP6 = "\x08\x00", "\x08\x06", "\x86\xdd"

// managedSets lists the sets that tell which bridges are managed.
func managedSets(f Features) []setSpec {
	out := []setSpec{{name: setBridges, key: []nftables.SetDatatype{nftables.TypeEtherAddr}, size: maxBridges}}
	if f.Prefixes {
		out = append(out,
			setSpec{name: setSubnets4, key: []nftables.SetDatatype{nftables.TypeEtherType, nftables.TypeIPAddr}, interval: true},
			setSpec{name: setSubnets6, key: []nftables.SetDatatype{nftables.TypeEtherType, nftables.TypeIP6Addr}, interval: true})
	}
	switch {
	case f.BridgeNames:
		out = append(out, setSpec{name: setNames, key: []nftables.SetDatatype{nftables.TypeIFName}, size: maxBridges})
	case f.Prefixes:
		out = append(out, setSpec{name: setOthers, key: []nftables.SetDatatype{nftables.TypeIFIndex}, size: maxPorts},
			setSpec{name: setUnknown, key: []nftables.SetDatatype{nftables.TypeIFIndex}, size: maxPorts, dynamic: true, timeout: true})
	}
	return out
}

// unknownOnBridge adds the rules about ports that the wish does not name.
func (b *builder) unknownOnBridge(o Options, f Features) {
	from, to := goTo(fromUnknown), goTo(toUnknown)
	b.add("output", "from the host to a known port", accept, in(setKnown, outPort))
	b.add("output", "from a bridge to an unknown port", to, in(setBridges, etherFrom))
	if o.Mode == Monitor {
		// Enforce mode has refused such frames before.
		b.add("input", "counted when it came in", accept, in(setQuarantined, inPort))
		b.add("forward", "counted when it came in", accept, in(setQuarantined, inPort))
	}
	b.add("input", "to the host from a known port", accept, in(setKnown, inPort))
	b.add("input", "to the host from an unknown port", from, in(setBridges, etherTo))
	b.add("forward", "between known ports", accept, in(setKnown, inPort), in(setKnown, outPort))
	b.add("forward", "to an unknown port", to, in(setKnown, inPort))
	b.add("forward", "from an unknown port", from, in(setKnown, outPort))
	switch {
	case f.BridgeNames:
		b.add("output", "to an unknown port of a managed bridge", to, in(setNames, outBridge))
		b.add("input", "from an unknown port of a managed bridge", from, in(setNames, inBridge))
		b.add("forward", "between unknown ports of a managed bridge", from, in(setNames, inBridge))
	case f.Prefixes:
		b.add("input", "to all, from an unknown port", goTo("which-bridge"), aVeth)
		b.add("forward", "between unknown ports", goTo("which-bridge"), aVeth)
		b.whichBridge(goTo(countFrom))
	}
	b.remember(o, f)
	b.add(countFrom, "count the sender's", nil, count(kindQuarantine))
	b.add(countFrom, "all of them", goTo(o.unknownEnd()))
	b.add(countTo, "count the receiver's", nil, countFor(outPort, kindWithheld))
	b.add(countTo, "all of them", goTo(o.unknownEnd()))
	b.add(o.unknownEnd(), "count", goTo("refuse"), match{&expr.Counter{}})
}

// whichBridge adds the chain that tells which bridge two unknown ports are on.
func (b *builder) whichBridge(unknown expr.Any) {
	b.add("which-bridge", "from a port of another bridge", accept, in(setOthers, inPort))
	b.add("which-bridge", "to a port of another bridge", accept, in(setOthers, outPort))
	b.add("which-bridge", "to a port that was on a managed bridge", goTo(fromUnknown), in(setUnknown, outPort))
	// A bridge without STP forwards the first of the link-local groups like any frame.
	for _, c := range []struct{ kind, proto string }{{"IPv4", protoIP4}, {"ARP", protoARP}, {"IPv6", protoIP6}} {
		b.add("which-bridge", c.kind+" for a link-local group", unknown, carried.is([]byte(c.proto)...), toLinkLocalGroup)
	}
	for _, c := range []struct {
		comment, set string
		address      field
	}{
		{"from an IPv4 address", setSubnets4, ip4From}, {"to an IPv4 address", setSubnets4, ip4To},
		{"ARP about an address", setSubnets4, arpIP}, {"ARP for an address", setSubnets4, arpTarget},
		{"from an IPv6 address", setSubnets6, ip6From}, {"to an IPv6 address", setSubnets6, ip6To},
	} {
		b.add("which-bridge", c.comment+" of a managed network", unknown, in(c.set, carried, c.address))
	}
	// Docker before 28 makes MACs from addresses, so the MAC tells the network whatever the
	// frame carries.
	b.add("which-bridge", "from a MAC made of such an address", unknown, madeMAC(6))
	b.add("which-bridge", "to a MAC made of such an address", unknown, madeMAC(0))
	b.add("which-bridge", "any other", accept)
}

// madeMAC holds when the MAC at this offset of the frame is one that Docker made from an
// IPv4 address of a managed network.
func madeMAC(offset uint32) match {
	proto := field{func(r uint32) expr.Any { return &expr.Immediate{Register: r, Data: []byte(protoIP4 + "\x00\x00")} }, 4}
	return append(link(offset, 2).is(2, 0x42), in(setSubnets4, proto, link(offset+2, 4))...)
}

// ifname is a name as rules see it.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// managed fills the sets that tell which bridges are managed.
func (p *plan) managed(w Wish, bridgeMACs map[int]MAC) {
	put := func(set string, e element) {
		if all, ok := p.sets[set]; ok {
			all[e] = ""
		}
	}
	for _, m := range bridgeMACs {
		put(setBridges, element{key: string(m[:])})
	}
	var subnets []netip.Prefix
	for _, b := range w.Bridges {
		put(setNames, element{key: string(ifname(b.Name))})
		for _, s := range b.Subnets {
			if s.IsValid() && s.Bits() > 0 {
				subnets = append(subnets, s)
			}
		}
	}
	for _, s := range widest(subnets) {
		first, last := bounds(s)
		if s.Addr().Is6() {
			put(setSubnets6, element{key: protoIP6 + "\x00\x00" + first, end: protoIP6 + "\x00\x00" + last})
			continue
		}
		for _, proto := range []string{protoIP4, protoARP} {
			put(setSubnets4, element{key: proto + "\x00\x00" + first, end: proto + "\x00\x00" + last})
		}
	}
	if _, ok := p.sets[setOthers]; ok {
		p.exchange(setOthers, others(w.Others), nil)
	}
}

// others are the elements for ports of other bridges. Ports beyond the size of the set are
// left out: the rules may take their frames for those of a managed bridge.
func others(ports []int) elements {
	out := elements{}
	for _, port := range ports[:min(len(ports), maxPorts)] {
		out[element{key: portKey(port)}] = ""
	}
	return out
}
