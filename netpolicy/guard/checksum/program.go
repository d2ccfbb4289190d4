package checksum

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
)

// Mark is the mark of a frame that the program found to be bad. No container can set it: a
// frame loses its mark on the way out of a network namespace.
const Mark = 0x4e474353

// Types that a spoilt frame has in place of its own: two that IEEE left for experiments,
// and one that nobody has.
const (
	SpoiltIPv4  = 0x88b5
	SpoiltIPv6  = 0x88b6
	SpoiltOther = 0xffff
)

// Bounds that honest senders keep. Segments of 500 bytes or more need no bound: 64 KiB are
// about 131 of them, as with an MTU of 552, the least that Linux takes from others. A receiver
// that asks for smaller ones is small, and so is its window. udpSegments is Linux's
// UDP_MAX_SEGMENTS, leastTCP its TCP_MIN_GSO_SIZE.
const (
	largeSegment = 500
	leastTCP     = 8
	udpSegments  = 128
	segments     = 256
	// headers is how long those of a tunnel's payload may be.
	headers = 256
)

// Of struct __sk_buff (linux/bpf.h).
const (
	ctxLen         = 0
	ctxMark        = 8
	ctxVLANPresent = 20
	ctxGSOSize     = 176
)

// Of enum skb_gso_types, as they are since Linux 4.18, and enum of ip_summed.
const (
	gsoTCPv4, gsoTCPv6, gsoSCTP, gsoUDP, gsoUDPL4 = 1 << 0, 1 << 4, 1 << 14, 1 << 16, 1 << 17

	gsoProtocols = gsoTCPv4 | gsoTCPv6 | gsoSCTP | gsoUDP | gsoUDPL4
	gsoByFrags   = 0xffff
	partial      = 3 // CHECKSUM_PARTIAL
)

const (
	ipip, tcp, udp, ipv6, gre, sctp             = 4, 6, 17, 41, 47, 132
	hopByHop, routing, fragment, auth, destOpts = 0, 43, 44, 51, 60
	etherLen, ip6Len, maxExtensions             = 14, 40, 8
	accept, drop                                = -1, 2 // TCX_NEXT: whoever comes next; TCX_DROP
)

// Places on the stack.
const (
	frame = -48 // the first 34 bytes: Ethernet, and IPv4 or the beginning of IPv6
	// read is how many.
	read    = 34
	scratch = -8
	gsoWant = -16 // the TCP type of the family
	spoilt  = -24 // the type that the frame gets if it is spoilt
)

// Registers that calls leave alone.
const (
	ctx      = asm.R6
	skb      = asm.R7
	protocol = asm.R8
	header   = asm.R9 // offset of the transport header
)

// code is the program. One that does not spoil frames marks them only.
func code(l layout, spoil bool) asm.Instructions {
	a := &assembler{layout: l}
	a.emit(asm.Mov.Reg(ctx, asm.R1))
	a.kernel(l.toKernel)
	a.emit(asm.Mov.Reg(skb, asm.R0))
	// Most frames that are judged need no more than this.
	a.emit(asm.StoreImm(asm.RFP, spoilt, SpoiltOther, asm.Word))
	a.bits(asm.R1, l.summed)
	a.emit(
		asm.JEq.Imm(asm.R1, partial<<l.summed.shift, "look"),
		asm.LoadMem(asm.R2, ctx, ctxGSOSize, asm.Word),
		asm.JNE.Imm(asm.R2, 0, "look"),
		asm.Ja.Label("fine"))

	// The guard refuses all that has a VLAN tag, and says so.
	a.at("look", asm.LoadMem(asm.R1, ctx, ctxVLANPresent, asm.Word))
	a.emit(asm.JNE.Imm(asm.R1, 0, "fine"))
	a.load(asm.Mov.Imm(asm.R2, 0), frame, read)
	a.emit(
		asm.LoadMem(asm.R1, asm.RFP, frame+12, asm.Half),
		asm.HostTo(asm.BE, asm.R1, asm.Half),
		asm.JEq.Imm(asm.R1, 0x0800, "ipv4"),
		asm.JEq.Imm(asm.R1, 0x86dd, "ipv6"),
		asm.Ja.Label("bad"))
	a.ipv4()
	a.ipv6()
	a.pending()
	a.segments()
	a.at("fine", asm.Mov.Imm(asm.R0, accept))
	a.emit(asm.Return())
	a.at("bad", asm.Mov.Imm(asm.R1, Mark))
	a.emit(asm.StoreMem(ctx, ctxMark, asm.R1, asm.Word))
	if spoil {
		a.spoil()
	}
	a.emit(asm.Mov.Imm(asm.R0, accept), asm.Return())
	return a.code
}

// ipv4 finds the transport header of IPv4, or that it is a fragment.
func (a *assembler) ipv4() {
	a.at("ipv4", asm.StoreImm(asm.RFP, spoilt, SpoiltIPv4, asm.Word))
	a.emit(
		asm.StoreImm(asm.RFP, gsoWant, gsoTCPv4, asm.Word),
		asm.LoadMem(asm.R1, asm.RFP, frame+etherLen+6, asm.Half),
		asm.HostTo(asm.BE, asm.R1, asm.Half),
		asm.JSet.Imm(asm.R1, 0x3fff, "bad"),
		asm.LoadMem(protocol, asm.RFP, frame+etherLen+9, asm.Byte),
		asm.LoadMem(header, asm.RFP, frame+etherLen, asm.Byte),
		asm.And.Imm(header, 15),
		asm.LSh.Imm(header, 2),
		asm.Add.Imm(header, etherLen),
		asm.Ja.Label("transport"))
}

// ipv6 walks through the extension headers, as ip6tables does.
func (a *assembler) ipv6() {
	a.at("ipv6", asm.StoreImm(asm.RFP, spoilt, SpoiltIPv6, asm.Word))
	a.emit(
		asm.StoreImm(asm.RFP, gsoWant, gsoTCPv6, asm.Word),
		asm.LoadMem(protocol, asm.RFP, frame+etherLen+6, asm.Byte),
		asm.Mov.Imm(header, etherLen+ip6Len))
	for i := range maxExtensions {
		measure, next := fmt.Sprintf("measure%d", i), fmt.Sprintf("next%d", i)
		a.emit(
			asm.JEq.Imm(protocol, tcp, "transport"),
			asm.JEq.Imm(protocol, udp, "transport"),
			asm.JEq.Imm(protocol, fragment, "bad"),
			asm.JEq.Imm(protocol, hopByHop, measure),
			asm.JEq.Imm(protocol, routing, measure),
			asm.JEq.Imm(protocol, destOpts, measure),
			asm.JEq.Imm(protocol, auth, measure),
			asm.Ja.Label("transport"))
		a.at(measure, asm.Mov.Reg(asm.R2, header))
		a.load(asm.Instruction{}, scratch, 2)
		a.emit(
			asm.LoadMem(asm.R1, asm.RFP, scratch+1, asm.Byte),
			asm.Add.Imm(asm.R1, 1),
			asm.LSh.Imm(asm.R1, 3),
			asm.JNE.Imm(protocol, auth, next),
			// Its length is in other units: words, less two.
			asm.LoadMem(asm.R1, asm.RFP, scratch+1, asm.Byte),
			asm.Add.Imm(asm.R1, 2),
			asm.LSh.Imm(asm.R1, 2))
		a.at(next, asm.Add.Reg(header, asm.R1))
		a.emit(asm.LoadMem(protocol, asm.RFP, scratch, asm.Byte))
	}
	a.emit(asm.Ja.Label("bad"))
}

// pending looks at a checksum that is to be filled in.
func (a *assembler) pending() {
	l := a.layout
	a.bitsAt("transport", asm.R1, l.summed)
	a.emit(asm.JNE.Imm(asm.R1, partial<<l.summed.shift, "cut"))
	a.start(asm.R2)
	a.emit(
		asm.LoadMem(asm.R4, skb, l.csumOffset, asm.Half),
		asm.JNE.Reg(asm.R2, header, "tunnel"))
	for _, own := range []struct{ protocol, offset int32 }{{tcp, 16}, {udp, 6}, {sctp, 8}, {gre, 4}} {
		other := fmt.Sprintf("not%d", own.protocol)
		a.emit(
			asm.JNE.Imm(protocol, own.protocol, other),
			asm.JEq.Imm(asm.R4, own.offset, "cut"),
			asm.Ja.Label("bad"))
		a.at(other, asm.Mov.Reg(asm.R4, asm.R4))
	}
	a.emit(asm.Ja.Label("bad"))

	// The checksum is not the packet's own. Where this sender's kernel wrapped a packet
	// into another one, it is the inner packet's. Policies judge the outer one.
	a.bitsAt("tunnel", asm.R1, l.encapsulation)
	a.emit(
		asm.JEq.Imm(asm.R1, 0, "bad"),
		asm.Mov.Reg(asm.R3, header),
		asm.Add.Imm(asm.R3, 8), // behind UDP's header
		asm.JEq.Imm(protocol, udp, "inside"),
		asm.Add.Imm(asm.R3, 12), // behind an inner IP header, or GRE's with a key
		asm.JEq.Imm(protocol, gre, "inside"),
		asm.JEq.Imm(protocol, ipip, "inside"),
		asm.JEq.Imm(protocol, ipv6, "inside"),
		asm.Ja.Label("bad"))
	a.at("inside", asm.JSLT.Reg(asm.R2, asm.R3, "bad"))
}

// segments looks at a frame that is to be cut up.
func (a *assembler) segments() {
	l := a.layout
	a.at("cut", asm.LoadMem(asm.R1, ctx, ctxGSOSize, asm.Word))
	a.emit(
		asm.JEq.Imm(asm.R1, 0, "fine"),
		// The type is in what the kernel keeps behind the frame.
		asm.LoadMem(asm.R1, skb, l.head, asm.DWord),
		asm.LoadMem(asm.R2, skb, l.end, asm.Word),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.Mov.Imm(asm.R2, int32(l.info)))
	a.kernel(l.readOnly)
	a.emit(
		asm.LoadMem(asm.R3, asm.R0, l.gsoType, asm.Word),
		asm.And.Imm(asm.R3, gsoProtocols),
		asm.LoadMem(asm.R1, ctx, ctxGSOSize, asm.Word),
		asm.LoadMem(asm.R5, ctx, ctxLen, asm.Word),
		asm.Sub.Reg(asm.R5, header), // what there is to be cut up, with its header
		asm.Sub.Imm(asm.R5, 8))
	a.bits(asm.R2, l.encapsulation)
	a.emit(
		asm.JNE.Imm(asm.R2, 0, "wrapped"),
		asm.JEq.Imm(protocol, tcp, "tcp"),
		asm.JEq.Imm(protocol, udp, "udp"),
		asm.JNE.Imm(protocol, sctp, "bad"),
		asm.JNE.Imm(asm.R3, gsoSCTP, "bad"),
		asm.JNE.Imm(asm.R1, gsoByFrags, "bad"),
		asm.Ja.Label("fine"))

	a.at("tcp", asm.LoadMem(asm.R2, asm.RFP, gsoWant, asm.Word))
	a.emit(
		asm.JNE.Reg(asm.R3, asm.R2, "bad"),
		asm.JLT.Imm(asm.R1, leastTCP, "bad"),
		asm.Sub.Imm(asm.R5, 52), // the rest of the longest header
		asm.Ja.Label("many"))

	// Fragments are made before a frame passes a veth: none is to be cut into them here.
	a.at("udp", asm.JNE.Imm(asm.R3, gsoUDPL4, "bad"))
	a.emit(asm.Mov.Imm(asm.R2, udpSegments), asm.Ja.Label("count"))

	a.at("wrapped", asm.Sub.Imm(asm.R5, headers))
	a.at("many", asm.Mov.Imm(asm.R2, segments))
	a.at("count", asm.JGE.Imm(asm.R1, largeSegment, "fine"))
	a.emit(
		asm.Mul.Reg(asm.R2, asm.R1),
		asm.JSGT.Reg(asm.R5, asm.R2, "bad"),
		asm.Ja.Label("fine"))
}

// spoil cuts a frame down to its headers and replaces its type. So the frame harms nobody, even
// if no rule refuses it.
func (a *assembler) spoil() {
	l := a.layout
	a.emit(asm.Mov.Imm(header, etherLen+ip6Len))
	// The kernel does not cut off the place of a pending checksum.
	a.bits(asm.R1, l.summed)
	a.emit(asm.JNE.Imm(asm.R1, partial<<l.summed.shift, "trim"))
	a.start(asm.R2)
	a.emit(
		asm.LoadMem(asm.R3, skb, l.csumOffset, asm.Half),
		asm.Add.Reg(asm.R2, asm.R3),
		asm.Add.Imm(asm.R2, 2),
		asm.JSLE.Reg(asm.R2, header, "trim"),
		asm.Mov.Reg(header, asm.R2))
	a.at("trim", asm.LoadMem(asm.R1, ctx, ctxLen, asm.Word))
	a.emit(
		asm.JLE.Reg(header, asm.R1, "shorten"),
		asm.Mov.Reg(header, asm.R1))
	a.at("shorten", asm.Mov.Reg(asm.R1, ctx))
	a.emit(
		asm.Mov.Reg(asm.R2, header),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnSkbChangeTail.Call(),
		asm.JEq.Imm(asm.R0, 0, "retype"),
		// What cannot be shortened must not be cut up either.
		asm.LoadMem(asm.R1, ctx, ctxGSOSize, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "drop"))
	a.at("retype", asm.LoadMem(asm.R1, asm.RFP, spoilt, asm.Word))
	a.emit(
		asm.HostTo(asm.BE, asm.R1, asm.Half),
		asm.StoreMem(asm.RFP, scratch, asm.R1, asm.Half),
		// The IP version and what follows it become zero.
		asm.StoreImm(asm.RFP, scratch+2, 0, asm.Byte),
		asm.Mov.Reg(asm.R1, ctx),
		asm.Mov.Imm(asm.R2, 12),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, scratch),
		asm.Mov.Imm(asm.R4, 3),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.JEq.Imm(asm.R0, 0, "spoilt"))
	a.at("drop", asm.Mov.Imm(asm.R0, drop))
	a.emit(asm.Return())
	a.at("spoilt", asm.Mov.Reg(asm.R1, ctx))
}
