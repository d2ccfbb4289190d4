package guard

import "github.com/google/nftables/expr"

// Broadcast isolation: a policy closes a container for what reaches it. Policies look at the
// address that a packet is for. A broadcast or multicast packet is for no address of the
// container, and every socket that is bound to no address would get it. The container may
// also have addresses that policies do not know: of a network that is not managed, of a
// macvlan, of its loopback. So two kinds of packets pass to an isolated port. The first are
// packets for its own address on this bridge, or for an address that its label allows (the
// container may be a router). The second are the multicast and broadcast packets that IP
// itself needs: ARP, neighbour discovery, group membership, and answers of DHCP. The
// destination MAC does not matter: a packet for all may be in a frame for this port alone.

// refuseIsolated counts what these rules refuse. That is no violation: the sender may send
// it, and others get it.
const refuseIsolated = "refuse-isolated"

// isolated adds the rules about such ports to the hooks that frames leave by.
func (b *builder) isolated(f Features) {
	comeBack := &expr.Verdict{Kind: expr.VerdictReturn}
	refuse := goTo(refuseIsolated)
	for _, hook := range []string{"output", "forward"} {
		b.add(hook, "to an isolated port", &expr.Verdict{Kind: expr.VerdictJump, Chain: "isolated"}, in(setIsolated, outPort))
	}
	b.add("isolated", "IPv4 for the container", comeBack, etherType.is(8, 0), in(setV4, outPort, etherTo, ip4To))
	b.add("isolated", "IPv6 for the container", comeBack, etherType.is(0x86, 0xdd), in(setV6, outPort, etherTo, ip6To))
	b.add("isolated", "other IPv4", goTo("isolated-ipv4"), etherType.is(8, 0))
	b.add("isolated", "other IPv6", goTo("isolated-ipv6"), etherType.is(0x86, 0xdd))
	b.add("isolated", "ARP", comeBack, etherType.is(8, 6))
	b.add("isolated", "any other", refuse)

	b.add("isolated-ipv4", "IGMP", comeBack, ip4Proto.is(igmp), ip4Group)
	b.add("isolated-ipv4", "DHCP answer", comeBack, ip4To.is(255, 255, 255, 255), ip4Proto.is(udp),
		ip4Frag.noBit(0x1f, 0xff), portPair.is(0, 67, 0, 68))
	b.add("isolated-ipv4", "in a frame to many", refuse, groupByte.anyBit(1))
	b.add("isolated-ipv4", "of an unguarded port", comeBack, in(setInto4, outPort, ip4To))
	// These come before the prefixes: a prefix may contain all addresses.
	b.add("isolated-ipv4", "to a group", refuse, ip4Group)
	b.add("isolated-ipv4", "to all", refuse, ip4To.is(255, 255, 255, 255))
	b.add("isolated-ipv4", "to all of a network", refuse, in(setAll4, ip4To))
	b.add("isolated-ipv4", "to no address", refuse, ip4To.maskedIs([]byte{0xff, 0, 0, 0}, []byte{0, 0, 0, 0}))
	b.add("isolated-ipv4", "to the loopback", refuse, ip4To.maskedIs([]byte{0xff, 0, 0, 0}, []byte{127, 0, 0, 0}))
	if f.Prefixes {
		b.add("isolated-ipv4", "allowed prefix", comeBack, in(setNet4, outPort, ip4To))
	}
	b.add("isolated-ipv4", "any other", refuse)

	b.add("isolated-ipv6", "neighbour discovery, group membership", comeBack, ip6ToGroup.is(0xff), ip6Next.is(icmp6), ndType.between(130, 136))
	for _, t := range groupMessages {
		b.add("isolated-ipv6", "group membership", comeBack, ip6ToGroup.is(0xff), ip6Next.is(hopByHop), l4.is(icmp6), messageType.is(t))
	}
	b.add("isolated-ipv6", "in a frame to many", refuse, groupByte.anyBit(1))
	b.add("isolated-ipv6", "of an unguarded port", comeBack, in(setInto6, outPort, ip6To))
	b.add("isolated-ipv6", "to a group", refuse, ip6ToGroup.is(0xff))
	// These are the unspecified address, the loopback, and IPv4 addresses written as IPv6.
	b.add("isolated-ipv6", "to an address of no network", refuse, ip6ToFirst.is(make([]byte, 8)...))
	if f.Prefixes {
		b.add("isolated-ipv6", "allowed prefix", comeBack, in(setNet6, outPort, ip6To))
	}
	b.add("isolated-ipv6", "any other", refuse)

	b.add(refuseIsolated, "count", nil, match{&expr.Counter{}})
	b.add(refuseIsolated, "and refuse", goTo("refuse"))
}

// ip4Group holds when a packet is for a group. ip6ToFirst is the first half of a packet's
// destination.
var (
	ip4Group   = ip4To.maskedIs([]byte{0xf0, 0, 0, 0}, []byte{0xe0, 0, 0, 0})
	ip6ToFirst = network(24, 8)
)

// into adds the addresses of an isolated port that is not guarded to the sets. The guard knows
// no other address of such a port.
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

// groupMessages are the messages of ICMPv6 about multicast groups, with the queries of
// routers.
var groupMessages = append([]byte{130}, reports...)

// broadcasts fills the set of broadcast addresses: the last address of each network, and the
// first one, which some systems use.
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
