package guard

import "github.com/google/nftables/expr"

// A port that is shut is one that policies close for what reaches it. They go by the
// address that a packet is for. What is for all, or for a group, is for no address of
// the container's, and each socket in it that is bound to no address would get it. The
// container may also have addresses that policies here know nothing of: those of a
// network that is not managed, of a macvlan, of its loopback. So packets to such a port
// are for an address that is its own there or that its label allows (it may be a
// router), and of those for groups only what IP itself needs passes: ARP, neighbour
// discovery, the groups themselves, and answers of DHCP. Whom the frame is for does not
// matter: a packet for all may be in one that is for this port alone.

// refuseShut counts what is refused so. It is no violation: the sender may do what he
// does, and others get it.
const refuseShut = "refuse-shut"

// shut adds the rules about such ports, for the hooks by which frames leave.
func (b *builder) shut(f Features) {
	comeBack := &expr.Verdict{Kind: expr.VerdictReturn}
	refuse := goTo(refuseShut)
	for _, hook := range []string{"output", "forward"} {
		b.add(hook, "to a port that is shut", &expr.Verdict{Kind: expr.VerdictJump, Chain: "shut"}, in(setShut, outPort))
	}
	b.add("shut", "IPv4 for the container", comeBack, etherType.is(8, 0), in(setV4, outPort, etherTo, ip4To))
	b.add("shut", "IPv6 for the container", comeBack, etherType.is(0x86, 0xdd), in(setV6, outPort, etherTo, ip6To))
	b.add("shut", "other IPv4", goTo("shut-ipv4"), etherType.is(8, 0))
	b.add("shut", "other IPv6", goTo("shut-ipv6"), etherType.is(0x86, 0xdd))
	b.add("shut", "ARP", comeBack, etherType.is(8, 6))
	b.add("shut", "any other", refuse)

	b.add("shut-ipv4", "IGMP", comeBack, ip4Proto.is(igmp), ip4Group)
	b.add("shut-ipv4", "DHCP answer", comeBack, ip4To.is(255, 255, 255, 255), ip4Proto.is(udp),
		ip4Frag.noBit(0x1f, 0xff), portPair.is(0, 67, 0, 68))
	b.add("shut-ipv4", "in a frame to many", refuse, groupByte.anyBit(1))
	b.add("shut-ipv4", "of an unguarded port", comeBack, in(setInto4, outPort, ip4To))
	// Before the prefixes, for one of them may be all there is.
	b.add("shut-ipv4", "to a group", refuse, ip4Group)
	b.add("shut-ipv4", "to all", refuse, ip4To.is(255, 255, 255, 255))
	b.add("shut-ipv4", "to all of a network", refuse, in(setAll4, ip4To))
	b.add("shut-ipv4", "to no address", refuse, ip4To.maskedIs([]byte{0xff, 0, 0, 0}, []byte{0, 0, 0, 0}))
	b.add("shut-ipv4", "to the loopback", refuse, ip4To.maskedIs([]byte{0xff, 0, 0, 0}, []byte{127, 0, 0, 0}))
	if f.Prefixes {
		b.add("shut-ipv4", "allowed prefix", comeBack, in(setNet4, outPort, ip4To))
	}
	b.add("shut-ipv4", "any other", refuse)

	b.add("shut-ipv6", "neighbour discovery, group membership", comeBack, ip6ToGroup.is(0xff), ip6Next.is(icmp6), ndType.between(130, 136))
	for _, t := range groupMessages {
		b.add("shut-ipv6", "group membership", comeBack, ip6ToGroup.is(0xff), ip6Next.is(hopByHop), l4.is(icmp6), messageType.is(t))
	}
	b.add("shut-ipv6", "in a frame to many", refuse, groupByte.anyBit(1))
	b.add("shut-ipv6", "of an unguarded port", comeBack, in(setInto6, outPort, ip6To))
	b.add("shut-ipv6", "to a group", refuse, ip6ToGroup.is(0xff))
	// The unspecified address, the loopback, IPv4 as IPv6 has it.
	b.add("shut-ipv6", "to an address of no network", refuse, ip6ToFirst.is(make([]byte, 8)...))
	if f.Prefixes {
		b.add("shut-ipv6", "allowed prefix", comeBack, in(setNet6, outPort, ip6To))
	}
	b.add("shut-ipv6", "any other", refuse)

	b.add(refuseShut, "count", nil, match{&expr.Counter{}})
	b.add(refuseShut, "and refuse", goTo("refuse"))
}

// ip4Group holds when a packet is for a group, ip6ToFirst is the first half of what it
// is for.
var (
	ip4Group   = ip4To.maskedIs([]byte{0xf0, 0, 0, 0}, []byte{0xe0, 0, 0, 0})
	ip6ToFirst = network(24, 8)
)

// into fills the sets of the addresses of ports that are shut and not guarded: nothing
// is known of what else they have.
func (p *plan) into(pp *portPlan) {
	addrs := pp.own()
	for _, prefix := range widest(pp.Allow.Prefixes) {
		if prefix.IsSingleIP() {
			if p.extras < maxExtras {
				p.extras, pp.extras = p.extras+1, pp.extras+1
				addrs = append(addrs, prefix.Addr())
			} else {
				p.scarce = true
			}
		} else if nets := set4or6(prefix.Addr(), setNet4, setNet6); p.sets[nets] != nil && p.prefixes < maxPrefixes {
			p.prefixes, pp.prefixes = p.prefixes+1, pp.prefixes+1
			p.put(pp, nets, prefixElement(pp.Index, prefix))
		} else {
			p.scarce = true
		}
	}
	for _, a := range addrs {
		p.put(pp, set4or6(a, setInto4, setInto6), element{key: portKey(pp.Index) + string(a.AsSlice())})
	}
}

// groupMessages are those of ICMPv6 about multicast groups, queries of routers among
// them.
var groupMessages = append([]byte{130}, reports...)

// broadcasts fills the set of addresses that are all of a network: the last, and the
// first, as some systems have it.
func (p *plan) broadcasts(w Wish) {
	for _, b := range w.Bridges {
		for _, s := range b.Subnets {
			if s.Addr().Is4() && s.Bits() < 31 {
				first, last := bounds(s)
				p.sets[setAll4][element{key: first}], p.sets[setAll4][element{key: last}] = "", ""
			}
		}
	}
}
