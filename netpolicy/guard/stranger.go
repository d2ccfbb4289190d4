package guard

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A stranger is a port of a managed bridge that the wish does not name: it came
// while no agent was running, or a moment ago. It has no address that could be
// trusted: a new container may get that of one that is gone, and its MAC as well.
// So nothing is asked but whether its port is known.
//
// Where rules can see the bridge of a port (CONFIG_NFT_BRIDGE_META), that is all.
// Elsewhere the bridge is told by what only its frames have: its own MAC, which the
// host's have as the source and those to the host as the destination; and, between
// two strangers, the addresses of its subnets. The latter, and they alone, might be
// another bridge's too, where its network overlaps with Docker's without the host
// being on it. Ports that the wish names as others' are therefore let alone.

// StrangerChain is a chain of the table that is there while admission is closed, and
// only then. watchChain has its place in monitor mode.
const (
	StrangerChain = "refuse-stranger"
	watchChain    = "watch-stranger"
)

// Before it, frames of unknown ports are counted by the port that they came in by, and
// frames for them by the port that they leave by.
const fromStranger, toStranger = "from-stranger", "to-stranger"

// closed tells whether strangers are refused.
func (o Options) closed() bool { return !o.Open && o.Mode == Enforce }

// strangers tells whether there are rules about strangers. Monitor mode counts with
// them what closed admission would refuse.
func (o Options) strangers() bool { return !o.Open }

// stranger is the chain in which frames of strangers end.
func (o Options) stranger() string {
	if o.Mode == Monitor {
		return watchChain
	}
	return StrangerChain
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
	// inKind is of what kind a device is, if it is virtual (NFT_META_IIFKIND).
	inKind = meta(26, unix.IFNAMSIZ)
	// carried is the protocol behind a VLAN tag, if there is one.
	carried = meta(expr.MetaKeyPROTOCOL, 2)

	arpTarget = network(24, 4)
	ip4To     = network(16, 4)
	ip6To     = network(24, 16)
)

const protoIP4, protoARP, protoIP6 = "\x08\x00", "\x08\x06", "\x86\xdd"

// strangerSets lists the sets that tell which bridges are managed.
func strangerSets(f Features) []setSpec {
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

// strangers adds the rules about ports that the wish does not name.
func (b *builder) strangers(o Options, f Features) {
	from, to := goTo(fromUnknown), goTo(toUnknown)
	b.add("output", "from the host to a known port", accept, in(setKnown, outPort))
	b.add("output", "from a bridge to an unknown port", to, in(setBridges, etherFrom))
	if o.Mode == Monitor {
		// Enforcing, nothing of it comes that far.
		b.add("input", "counted when it came in", accept, in(setJail, inPort))
		b.add("forward", "counted when it came in", accept, in(setJail, inPort))
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
		b.add("input", "to all, from an unknown port", goTo("strange"), aVeth)
		b.add("forward", "between unknown ports", goTo("strange"), aVeth)
		b.strange(goTo(fromStranger))
	}
	b.remember(o, f)
	b.add(fromStranger, "count the sender's", nil, count(kindQuarantine))
	b.add(fromStranger, "all of them", goTo(o.stranger()))
	b.add(toStranger, "count the receiver's", nil, countFor(outPort, kindWithheld))
	b.add(toStranger, "all of them", goTo(o.stranger()))
	b.add(o.stranger(), "count", goTo("refuse"), match{&expr.Counter{}})
}

// strange adds the chain that tells which of the bridges two unknown ports are on.
func (b *builder) strange(stranger expr.Any) {
	b.add("strange", "from a port of another bridge", accept, in(setOthers, inPort))
	b.add("strange", "to a port of another bridge", accept, in(setOthers, outPort))
	b.add("strange", "to a port that was on a managed bridge", goTo(fromUnknown), in(setUnknown, outPort))
	// A bridge without STP forwards the first of the link-local groups like any frame.
	for _, c := range []struct{ kind, proto string }{{"IPv4", protoIP4}, {"ARP", protoARP}, {"IPv6", protoIP6}} {
		b.add("strange", c.kind+" for a link-local group", stranger, carried.is([]byte(c.proto)...), toLinkLocalGroup)
	}
	for _, c := range []struct {
		comment, set string
		address      field
	}{
		{"from an IPv4 address", setSubnets4, ip4From}, {"to an IPv4 address", setSubnets4, ip4To},
		{"ARP about an address", setSubnets4, arpIP}, {"ARP for an address", setSubnets4, arpTarget},
		{"from an IPv6 address", setSubnets6, ip6From}, {"to an IPv6 address", setSubnets6, ip6To},
	} {
		b.add("strange", c.comment+" of a managed network", stranger, in(c.set, carried, c.address))
	}
	// Docker before 28 makes MACs of addresses. What such frames carry does not
	// matter.
	b.add("strange", "from a MAC made of such an address", stranger, madeMAC(6))
	b.add("strange", "to a MAC made of such an address", stranger, madeMAC(0))
	b.add("strange", "any other", accept)
}

// madeMAC holds when the MAC at an offset of the frame is one that Docker made of
// an IPv4 address of a managed network.
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

// strangers fills the sets that tell which bridges are managed.
func (p *plan) strangers(w Wish, bridgeMACs map[int]MAC) {
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

// others are the elements for ports of other bridges. More than the set holds are not
// named, and nothing is lost but the grace.
func others(ports []int) elements {
	out := elements{}
	for _, port := range ports[:min(len(ports), maxPorts)] {
		out[element{key: portKey(port)}] = ""
	}
	return out
}
