package guard

// An error message of ICMP says that a packet reached the sender of the message and went no
// further. It quotes that packet. The receiver believes it about the quoted connection: that
// nobody is there, or that the path is narrow. So a container may send errors only about
// packets to itself, and about packets to the prefixes that its label allows. The rules look at
// the destination in the quote, which is always at the same place.

// lastError is the last type of ICMPv6 that is an error. All types up to it quote a packet,
// and the kernel believes unknown ones as well.
const lastError = 127

var (
	quoted4 = transport(8+16, 4)
	quoted6 = transport(8+24, 16)
)

// quotes adds the checks of error messages.
func (b *builder) quotes(f Features) {
	// A later fragment passes, since it shows nothing of its message. It is useless without its
	// first fragment, which is checked here.
	b.pass("icmpv4", "later fragment", ip4Frag.anyBit(0x1f, 0xff), l4.isNot(reserved))
	for _, t := range []byte{3, 4, 11, 12} {
		b.add("icmpv4", "error message", goTo("quote4"), messageType.is(t))
	}
	b.refuse("icmpv4", "redirect", kindIP, messageType.is(5))
	b.pass("icmpv4", "any other", messageType.isNot(reserved))
	b.refuse("icmpv4", "type that cannot be read", kindIP)

	// Errors are short, so no honest one is a fragment. No rule can judge what the receiver
	// puts together later.
	b.refuse("quote4", "in fragments", kindIP, ip4Frag.anyBit(0x20, 0))
	b.pass("quote4", "about a packet to itself", in(setV4, inPort, etherFrom, quoted4))
	b.refuse("quote6", "in fragments", kindIP, fragment.anyBit(0xff, 0xf9))
	b.pass("quote6", "about a packet to itself", in(setV6, inPort, etherFrom, quoted6))
	if f.Prefixes {
		b.refuse("quote4", "about a packet to another", kindIP, in(setOwn4, quoted4))
		b.pass("quote4", "about a packet to an allowed prefix", in(setNet4, inPort, quoted4))
		b.refuse("quote6", "about a packet to another", kindIP, in(setOwn6, quoted6))
		b.pass("quote6", "about a packet to an allowed prefix", in(setNet6, inPort, quoted6))
	}
	b.refuse("quote4", "about any other packet, or none", kindIP)
	b.refuse("quote6", "about any other packet, or none", kindIP)
}
