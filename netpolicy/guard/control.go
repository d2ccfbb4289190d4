package guard

import (
	"encoding/binary"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Control frames are what IP needs of the bridge: ARP, neighbour discovery, and reports of
// multicast groups. No policy is about them, and each may be for anybody. Two containers that
// may not talk could carry data in them. So each frame must have the length that its message
// needs, reports must go to groups, and each port has a rate that no honest program reaches.

var (
	// perNeighbour is for ARP and neighbour discovery to one MAC. Each MAC has a meter of its
	// own: a neighbour that makes a container answer takes nothing from other neighbours.
	perNeighbour = Storm{Rate: 500, Burst: 1000}
	// perPort is for ARP and neighbour discovery to all MACs together. Questions and answers
	// have meters of their own, here and above.
	perPort = Storm{Rate: 5000, Burst: 5000}
	// perReports is for reports: two for each change, and one for each query.
	perReports = Storm{Rate: 20, Burst: 200}
)

const (
	// pairLife is how long a meter of a pair stays. It is short, since a sender can make as
	// many pairs as there are MACs. When the set is full, the port's own meter still limits.
	pairLife = 10 * time.Second
	maxPairs = 4 * maxPorts

	// arpLength is the length of an ARP message. Hardware and some virtual machines fill up a
	// frame to the shortest that Ethernet has.
	arpLength, shortest = 28, 46
	longestReport       = ordinary
	header6             = 40
)

var (
	// frameLength is the length of what follows the Ethernet header.
	frameLength = meta(expr.MetaKeyLEN, 4)
	arpFill     = [2]field{network(arpLength, 16), network(arpLength+16, 2)}

	everybody = []byte{255, 255, 255, 255, 255, 255}
	// A frame to a group of IPv4 or IPv6 begins so.
	toGroup4, toGroup6 = link(0, 3).is(1, 0, 0x5e), link(0, 2).is(0x33, 0x33)

	allRouters     = []byte{0: 0xff, 1: 2, 15: 2}
	solicitedMask  = []byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0}
	solicitedGroup = []byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 15: 0}
)

func controlSets() []setSpec {
	port := nftables.TypeIFIndex
	meter := func(name string, size uint32, key ...nftables.SetDatatype) setSpec {
		return setSpec{name: name, key: key, size: size, dynamic: true, timeout: true}
	}
	return []setSpec{
		meter(setAsks, maxPairs, port, nftables.TypeEtherAddr),
		meter(setAnswers, maxPairs, port, nftables.TypeEtherAddr),
		meter(setAsksAll, maxPorts, port),
		meter(setAnswersAll, maxPorts, port),
		meter(setReports, maxPorts, port),
		meter(setClients, maxPorts, port),
		{name: setLengths, key: []nftables.SetDatatype{nftables.TypeEtherType, nftables.TypeInetService, nftables.TypeMark}, size: longestReport},
	}
}

// exactly6 holds for an IPv6 packet that carries n bytes and ends there.
func exactly6(n byte) match {
	return append(ip6Length.is(0, n), frameLength.is(word(header6+uint32(n))...)...)
}

// refuseAnswers counts answers beyond the rate. They are no violation: others can make a
// container answer.
const refuseAnswers = "refuse-answers"

// pace adds the chains by which correct ARP and neighbour discovery pass. They limit frames
// to one neighbour. The limit on storms is about frames to groups and to all.
func (b *builder) pace() {
	limit := func(chain string, refuse expr.Any, pairs, all string, parts ...match) {
		one := append(parts, groupByte.noBit(1))
		b.add(chain, "more to one neighbour than anybody needs", refuse, append(one, beyond(pairs, perNeighbour, pairLife, inPort, etherTo))...)
		b.add(chain, "more to all of them than anybody needs", refuse, append(one, beyond(all, perPort, meterLife, inPort))...)
	}
	limit("arp-pass", goTo(refusals[kindARP]), setAsks, setAsksAll, arpOp.is(0, 1))
	limit("arp-pass", goTo(refuseAnswers), setAnswers, setAnswersAll, arpOp.is(0, 2))
	b.pass("arp-pass", "ARP")
	limit("nd-ask", goTo(refusals[kindND]), setAsks, setAsksAll)
	b.pass("nd-ask", "solicitation")
	limit("nd-answer", goTo(refuseAnswers), setAnswers, setAnswersAll)
	b.pass("nd-answer", "advertisement")
	b.add(refuseAnswers, "count", nil, match{&expr.Counter{}})
	b.add(refuseAnswers, "and refuse", goTo("refuse"))
}

// reports leads the multicast reports of IPv6 to their chain. Such a report has a hop-by-hop
// header with the router alert.
func (b *builder) reports(chain string) {
	for _, t := range reports {
		b.add(chain, "multicast report", goTo("mld"), ip6Next.is(hopByHop), l4.is(icmp6), messageType.is(t))
	}
}

// control adds the checks of reports. Hosts report which groups they are in. A query is
// refused: it makes its sender the querier of the network, which can then starve the bridge of
// all multicast. A fragment is refused: the bridge reads a later one as a whole message.
func (b *builder) control() {
	b.pace()
	b.refuse("igmp", "fragment", kindIP, ip4Frag.anyBit(0x3f, 0xff))
	for _, t := range []byte{0x12, 0x16, 0x17, 0x22} {
		b.add("igmp", "report or leave", goTo("igmp-report"), messageType.is(t))
	}
	b.refuse("igmp", "any other", kindIP)
	b.add("igmp-report", "to a group", goTo("igmp-exact"), toGroup4, ip4To.maskedIs([]byte{0xf0, 0, 0, 0}, []byte{0xe0, 0, 0, 0}),
		in(setLengths, etherType, ip4Length, frameLength))
	b.refuse("igmp-report", "to no group, or of another length than it says", kindIP)
	b.refuse("igmp-exact", "more than anybody needs", kindIP, beyond(setReports, perReports, meterLife, inPort))
	b.pass("igmp-exact", "report or leave")

	b.refuse("mld", "fragment", kindND, fragment.anyBit(0xff, 0xf9))
	b.add("mld", "to a group", goTo("mld-exact"), toGroup6, ip6ToGroup.is(0xff), in(setLengths, etherType, ip6Length, frameLength))
	b.refuse("mld", "to no group, or of another length than it says", kindND)
	b.refuse("mld-exact", "more than anybody needs", kindND, beyond(setReports, perReports, meterLife, inPort))
	b.pass("mld-exact", "report or done")
}

// lengths fills the set of the lengths that reports may have, since a rule cannot compare two
// fields. All parts of a report have a length that is a multiple of 4.
func (p *plan) lengths() {
	put := func(proto string, says, has int) {
		key := binary.BigEndian.AppendUint16([]byte(proto+"\x00\x00"), uint16(says))
		p.sets[setLengths][element{key: string(append(append(key, 0, 0), word(uint32(has))...))}] = ""
	}
	for n := 4; n <= longestReport; n += 4 {
		put(protoIP4, n, n)
		if n < shortest {
			put(protoIP4, n, shortest)
		}
		if n > header6 {
			put(protoIP6, n-header6, n)
		}
	}
}
