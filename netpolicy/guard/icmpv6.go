package guard

// reports are the multicast listener reports: MLDv1's report and done, MLDv2's.
var reports = []byte{131, 132, 143}

// icmpv6 adds the checks of neighbour discovery. A message must come right behind the IPv6
// header, in no fragment (RFC 6980), with a hop limit of 255 and a known length. It must not
// name another's address or MAC. Messages of routers are refused: no container is a router.
func (b *builder) icmpv6(f Features) {
	b.add("icmpv6", "error message", goTo("quote6"), ndType.between(0, lastError))
	b.add("icmpv6", "neighbour solicitation", goTo("solicit"), ndType.is(135))
	b.add("icmpv6", "neighbour advertisement", goTo("advertise"), ndType.is(136))
	b.add("icmpv6", "router solicitation", goTo("routers"), ndType.is(133))
	b.refuse("icmpv6", "router advertisement, redirect, multicast query", kindND, ndType.between(130, 137))
	b.refuse("icmpv6", "certification path, multicast router", kindND, ndType.between(148, 153))
	b.refuse("icmpv6", "multicast report without its router alert", kindND, ndType.is(143))
	b.pass("icmpv6", "any other", ndType.isNot(reserved))
	b.refuse("icmpv6", "too short", kindND)

	// Behind extension headers, fragment headers among them, there may be multicast reports,
	// errors and echoes, but no neighbour discovery. A later fragment passes, since it shows
	// nothing of its message. It is useless without its first fragment, which is checked here.
	b.pass("icmpv6-behind", "later fragment", fragment.anyBit(0xff, 0xf8))
	b.reports("icmpv6-behind")
	b.refuse("icmpv6-behind", "multicast report without its router alert", kindND, messageType.is(143))
	b.add("icmpv6-behind", "error message", goTo("quote6"), messageType.between(0, lastError))
	b.refuse("icmpv6-behind", "neighbour discovery", kindND, messageType.between(130, 137))
	b.refuse("icmpv6-behind", "certification path, multicast router", kindND, messageType.between(148, 153))
	b.pass("icmpv6-behind", "any other", messageType.isNot(reserved))
	b.refuse("icmpv6-behind", "type that cannot be read", kindND)

	hops := ip6Hops.isNot(255)
	bare, option := exactly6(24), exactly6(32)

	b.refuse("solicit", "routed", kindND, hops)
	b.add("solicit", "without an option", goTo("nd-ask"), bare)
	b.add("solicit", "with its own MAC", goTo("nd-ask"), option, ndOption.is(1, 1), in(setMAC, inPort, ndMAC))
	b.refuse("solicit", "any other", kindND)

	b.refuse("advertise", "routed", kindND, hops)
	b.add("advertise", "its own address", goTo("nd-answer"), bare, in(setV6, inPort, etherFrom, ndTarget))
	b.add("advertise", "its own address and MAC", goTo("nd-answer"), option, ndOption.is(2, 1), in(setV6, inPort, ndMAC, ndTarget))
	if f.Prefixes {
		b.refuse("advertise", "another's address", kindND, in(setOwn6, ndTarget))
		b.add("advertise", "allowed prefix", goTo("nd-answer"), bare, in(setNet6, inPort, ndTarget))
		b.add("advertise", "allowed prefix and its own MAC", goTo("nd-answer"), option, ndOption.is(2, 1),
			in(setMAC, inPort, ndMAC), in(setNet6, inPort, ndTarget))
	}
	b.refuse("advertise", "any other", kindND)

	b.refuse("routers", "routed", kindND, hops)
	b.add("routers", "without an option", goTo("nd-ask"), exactly6(8))
	b.add("routers", "with its own MAC", goTo("nd-ask"), exactly6(16), rsOption.is(1, 1), in(setMAC, inPort, rsMAC))
	b.refuse("routers", "any other", kindND)

	// Detection of duplicates may carry a nonce (RFC 7527). A container that asks for
	// another's address would keep the other container from getting it.
	b.refuse("dad", "routed", kindND, hops)
	b.add("dad", "without an option", goTo("dad-target"), bare)
	b.add("dad", "with a nonce", goTo("dad-target"), option, ndOption.is(14, 1))
	b.refuse("dad", "any other", kindND)
	b.pass("dad-target", "its own address", in(setV6, inPort, etherFrom, ndTarget))
	if f.Prefixes {
		b.refuse("dad-target", "another's address", kindND, in(setOwn6, ndTarget))
		b.pass("dad-target", "allowed prefix", in(setNet6, inPort, ndTarget))
	}
	b.refuse("dad-target", "any other", kindND)
}
