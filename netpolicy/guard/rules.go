package guard

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// kind is a kind of violation, as it stands in the set "violations".
type kind uint32

const (
	kindMAC kind = iota + 1
	kindARP
	kindIP
	kindND
	kindDHCP
	kindEthertype
	kindStorm
	kindQuarantine
	kindChecksum
	kindFragments
	kindWithheld
	kinds = kindWithheld
)

// refusals are the chains that count a violation.
var refusals = map[kind]string{
	kindMAC: "refuse-mac", kindARP: "refuse-arp", kindIP: "refuse-ip", kindND: "refuse-nd",
	kindDHCP: "refuse-dhcp", kindEthertype: "refuse-ethertype", kindStorm: "refuse-storm",
	kindQuarantine: "refuse-quarantine", kindChecksum: "refuse-checksum",
	kindFragments: "refuse-fragments", kindWithheld: "refuse-withheld",
}

// What rules look at.
var (
	inPort  = meta(expr.MetaKeyIIF, 4)
	outPort = meta(expr.MetaKeyOIF, 4)
	// packetType tells whether a frame is for one receiver, for all or for a group.
	packetType = meta(expr.MetaKeyPKTTYPE, 1)
	// l4 is the protocol behind all of IPv6's extension headers. It cannot be
	// read where the kernel could not walk through them.
	l4 = meta(expr.MetaKeyL4PROTO, 1)
	// fragment is the offset field of an IPv6 fragment header.
	fragment = field{func(r uint32) expr.Any {
		return &expr.Exthdr{DestRegister: r, Type: 44, Offset: 2, Len: 2, Op: expr.ExthdrOpIpv6}
	}, 2}

	etherTo   = link(0, 6)
	etherFrom = link(6, 6)
	etherType = link(12, 2)
	groupByte = link(0, 1) // its last bit: to a group

	arpKind = network(0, 6) // hardware and protocol, types and lengths
	arpOp   = network(6, 2)
	arpMAC  = network(8, 6)
	arpIP   = network(14, 4)

	ip4Length = network(2, 2)
	ip4Frag   = network(6, 2)
	ip4Proto  = network(9, 1)
	ip4From   = network(12, 4)

	ip6Length = network(4, 2)
	ip6Next   = network(6, 1)
	ip6Hops   = network(7, 1)
	ip6From   = network(8, 16)
	// ip6ToGroup is 0xff for a group.
	ip6ToGroup = network(24, 1)

	// ICMPv6 right behind the IPv6 header.
	ndType   = network(40, 1)
	ndTarget = network(48, 16)
	rsOption = network(48, 2) // type and length
	rsMAC    = network(50, 6)
	ndOption = network(64, 2)
	ndMAC    = network(66, 6)

	sourcePort  = transport(0, 2)
	messageType = transport(0, 1)
)

const (
	icmp4, igmp, tcp, udp, icmp6 = 1, 2, 6, 17, 58
	pim                          = 103
	hopByHop                     = 0
	reserved                     = 255 // a protocol and an ICMPv6 type that nobody has
)

// builder gathers rules.
type builder struct{ rules []rule }

func (b *builder) add(chain, comment string, verdict expr.Any, parts ...match) {
	r := rule{chain: chain, comment: comment}
	for _, p := range parts {
		r.exprs = append(r.exprs, p...)
	}
	if verdict != nil {
		r.exprs = append(r.exprs, verdict)
	}
	b.rules = append(b.rules, r)
}

// refuse adds the rule that counts a violation.
func (b *builder) refuse(chain, comment string, k kind, parts ...match) {
	b.add(chain, comment, goTo(refusals[k]), parts...)
}

// pass adds a rule that lets a frame go, but for the limit on storms.
func (b *builder) pass(chain, comment string, parts ...match) {
	b.add(chain, comment, goTo("pass"), parts...)
}

// rules builds the rule set.
func rules(o Options, f Features) []rule {
	b := &builder{}
	b.hooks(o, f)
	b.frame()
	b.arp(f)
	b.ipv4(o, f)
	b.ipv6(o, f)
	b.icmpv6(f)
	b.quotes(f)
	b.control()
	b.dhcp(f)
	b.verdicts(o, f)
	return b.rules
}

// hooks adds the chains that the kernel calls. The first three rules with a look-up are the fast
// path: nearly every frame ends at one of them.
func (b *builder) hooks(o Options, f Features) {
	// The kernel makes the packet type from the destination MAC, and it is cheaper to read.
	unicast := packetType.noneOf(unix.PACKET_BROADCAST, unix.PACKET_MULTICAST)
	b.unfinished(o, f)
	var whole match
	if o.Fragments || o.FragmentRate != 0 {
		whole = ip4Frag.noBit(0x3f, 0xff)
	}
	b.add("prerouting", "IPv4 of a container", accept, etherType.is(8, 0), unicast,
		in(setV4, inPort, etherFrom, ip4From), ip4Proto.noneOf(icmp4, igmp), sourcePort.isNot(0, 67), targetPort.isNot(0, 68), whole)
	b.add("prerouting", "TCP over IPv6 of a container", accept, etherType.is(0x86, 0xdd), unicast,
		ip6Next.is(tcp), in(setV6, inPort, etherFrom, ip6From))
	b.add("prerouting", "UDP over IPv6 of a container", accept, etherType.is(0x86, 0xdd), unicast,
		ip6Next.is(udp), in(setV6, inPort, etherFrom, ip6From),
		sourcePort.isNot(547>>8, 547&0xff), targetPort.isNot(546>>8, 546&0xff))
	b.add("prerouting", "all else of a container", goTo("frame"), in(setPorts, inPort))
	if o.closed() {
		b.unknownPorts(f)
	}
	b.fragments(o, f)

	// The bridge floods the host's own broadcasts to each port, whatever its
	// settings.
	b.add("output", "to a port that is not admitted", goTo(refusals[kindWithheld]), in(setQuarantined, outPort))
	b.isolated(f)
	if !o.Open {
		b.unknownOnBridge(o, f)
	}
}

// frame adds the checks of the Ethernet header. What is not plain IPv4, IPv6 or ARP
// does not pass: a VLAN tag of any kind, LLC and SNAP would all hide what they
// carry from iptables.
func (b *builder) frame() {
	b.refuse("frame", "not admitted yet", kindQuarantine, in(setQuarantined, inPort))
	b.refuse("frame", "written to after it is judged", kindChecksum, frameMark.is(spoiltMark...))
	b.refuse("frame", "not the port's MAC", kindMAC, notIn(setMAC, inPort, etherFrom))
	b.refuse("frame", "a link-local protocol (LLDP and the like)", kindEthertype,
		etherTo.maskedIs([]byte{255, 255, 255, 255, 255, 0xf0}, []byte{1, 0x80, 0xc2, 0, 0, 0}))
	b.add("frame", "IPv4", goTo("ipv4"), etherType.is(8, 0))
	b.add("frame", "IPv6", goTo("ipv6"), etherType.is(0x86, 0xdd))
	b.add("frame", "ARP", goTo("arp"), etherType.is(8, 6))
	b.refuse("frame", "any other", kindEthertype)
}

func (b *builder) arp(f Features) {
	b.refuse("arp", "not IPv4 over Ethernet", kindARP, arpKind.isNot(0, 1, 8, 0, 6, 4))
	b.refuse("arp", "neither request nor reply", kindARP, arpOp.isNot(0, 1), arpOp.isNot(0, 2))
	b.add("arp", "of its own length", goTo("arp-exact"), frameLength.is(word(arpLength)...))
	b.add("arp", "filled up with zeros", goTo("arp-exact"), frameLength.is(word(shortest)...), arpFill[0].is(make([]byte, 16)...), arpFill[1].is(0, 0))
	b.refuse("arp", "of another length", kindARP)

	b.add("arp-exact", "own address", goTo("arp-pass"), in(setV4, inPort, arpMAC, arpIP))
	b.add("arp-exact", "probe", goTo("arp-pass"), etherTo.is(everybody...), arpOp.is(0, 1), arpIP.is(0, 0, 0, 0), in(setMAC, inPort, arpMAC))
	if f.Prefixes {
		b.refuse("arp-exact", "another's address", kindARP, in(setOwn4, arpIP))
		b.add("arp-exact", "allowed prefix", goTo("arp-pass"), in(setMAC, inPort, arpMAC), in(setNet4, inPort, arpIP))
	}
	b.refuse("arp-exact", "any other", kindARP)
}

func (b *builder) ipv4(o Options, f Features) {
	if o.Fragments {
		b.refuse("ipv4", "fragment", kindChecksum, aFragment4)
	}
	b.paced("ipv4", o, aFragment4)
	b.add("ipv4", "own address", goTo("ipv4-own"), in(setV4, inPort, etherFrom, ip4From))
	b.add("ipv4", "no address", goTo("ipv4-none"), ip4From.is(0, 0, 0, 0))
	if f.Prefixes {
		b.refuse("ipv4", "another's address", kindIP, in(setOwn4, ip4From))
		b.add("ipv4", "allowed prefix", goTo("ipv4-own"), in(setNet4, inPort, ip4From))
	}
	b.refuse("ipv4", "any other", kindIP)

	// In the bridge family, Linux 6.18 reads a transport header even where a later
	// fragment has none.
	b.add("ipv4-own", "DHCP server", goTo("dhcp-server"), ip4Proto.is(udp), ip4Frag.noBit(0x1f, 0xff), sourcePort.is(0, 67))
	b.add("ipv4-own", "to a DHCP client", goTo("dhcp-server"), ip4Proto.is(udp), ip4Frag.noBit(0x1f, 0xff), targetPort.is(0, 68))
	b.add("ipv4-own", "IGMP", goTo("igmp"), ip4Proto.is(igmp))
	b.add("ipv4-own", "ICMP", goTo("icmpv4"), ip4Proto.is(icmp4))
	// A PIM hello makes the bridge take the port for a multicast router's. The port would then
	// get multicast that is for others.
	b.refuse("ipv4-own", "PIM to all routers", kindIP, ip4Proto.is(pim), ip4To.is(224, 0, 0, 13))
	b.pass("ipv4-own", "headers that can be read", l4.isNot(reserved))
	b.refuse("ipv4-own", "any other", kindIP)
}

func (b *builder) ipv6(o Options, f Features) {
	if o.Fragments {
		b.refuse("ipv6", "fragment", kindChecksum, aFragment6)
	}
	b.paced("ipv6", o, aFragment6)
	b.add("ipv6", "own address", goTo("ipv6-own"), in(setV6, inPort, etherFrom, ip6From))
	b.add("ipv6", "no address", goTo("ipv6-none"), ip6From.is(make([]byte, 16)...))
	if f.Prefixes {
		b.refuse("ipv6", "another's address", kindIP, in(setOwn6, ip6From))
		b.add("ipv6", "allowed prefix", goTo("ipv6-own"), in(setNet6, inPort, ip6From))
	}
	b.refuse("ipv6", "any other", kindIP)

	b.add("ipv6-own", "ICMPv6", goTo("icmpv6"), ip6Next.is(icmp6))
	b.pass("ipv6-own", "later fragment", l4.is(udp), fragment.anyBit(0xff, 0xf8))
	b.add("ipv6-own", "DHCPv6 server", goTo("dhcpv6-server"), l4.is(udp), sourcePort.is(547>>8, 547&0xff))
	b.add("ipv6-own", "to a DHCPv6 client", goTo("dhcpv6-server"), l4.is(udp), targetPort.is(546>>8, 546&0xff))
	b.add("ipv6-own", "ICMPv6 behind extension headers", goTo("icmpv6-behind"), l4.is(icmp6))
	b.pass("ipv6-own", "headers that can be read", l4.isNot(reserved))
	b.refuse("ipv6-own", "any other", kindIP)

	// From the unspecified address: detection of duplicate addresses, a router
	// solicitation, reports of groups. All go to groups, in frames to groups.
	b.add("ipv6-none", "detection of duplicates", goTo("dad"), ip6Next.is(icmp6), ndType.is(135),
		groupByte.anyBit(1), ip6To.maskedIs(solicitedMask, solicitedGroup))
	b.pass("ipv6-none", "router solicitation", ip6Next.is(icmp6), ndType.is(133), ip6Hops.is(255),
		etherTo.is(0x33, 0x33, 0, 0, 0, 2), ip6To.is(allRouters...), exactly6(8))
	b.reports("ipv6-none")
	b.refuse("ipv6-none", "any other ICMPv6", kindND, l4.is(icmp6))
	b.refuse("ipv6-none", "any other", kindIP)
}

// verdicts adds the chains in which frames end.
func (b *builder) verdicts(o Options, f Features) {
	if o.Storm.Rate != 0 {
		b.refuse("pass", "beyond the limit of broadcast and multicast", kindStorm, groupByte.anyBit(1), over(o.Storm))
		rate, burst := o.Storm.bytes()
		b.refuse("pass", "beyond its bytes", kindStorm, groupByte.anyBit(1), overBytes(setStormBytes, rate, burst))
	}
	b.add("pass", "as it should be", accept)

	refuse := expr.Any(drop)
	if o.Mode == Monitor {
		refuse = accept
	}
	for k := kindMAC; k <= kinds; k++ {
		port := inPort
		if k == kindWithheld {
			port = outPort
		}
		b.add(refusals[k], "count", nil, countFor(port, k))
		if k == kindChecksum && o.Mode == Monitor {
			b.add(refusals[k], "take the mark off", nil, unmark)
		}
		if f.Samples && k != kindQuarantine && k != kindWithheld {
			b.add(refusals[k], "show a few to who listens", nil, sample(k))
		}
		b.add(refusals[k], "and refuse", goTo("refuse"))
	}
	// While this counter stays the same, all other counters of refusals do too.
	b.add("refuse", o.Mode.String(), refuse, match{&expr.Counter{}})
}
