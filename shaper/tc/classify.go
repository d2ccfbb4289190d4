package tc

import (
	"encoding/binary"
	"hash/crc32"

	"golang.org/x/net/bpf"

	"netguard/shaper"
)

// Offsets in an Ethernet frame, which is what a classifier sees on both devices.
const (
	macSrc     = 8 // its last four bytes
	etherType  = 12
	ip4Frag    = 20
	ip4Proto   = 23
	ip4Src     = 26
	ip4Dst     = 30
	ip4Start   = 14
	ip6Next    = 20
	ip6Src     = 22
	ip6Dst     = 38
	ip6Payload = 54
)

// golden spreads flows over the top bits of a 32-bit product (Knuth's
// multiplicative hash).
const golden = 0x9e3779b1

// classifier makes the program that names the class of each packet. The size of a packet decides
// between the classes for small packets and those for large ones.
//
// Among these, the class of a packet to the container depends on its sender: on the low bits of
// the source address or, if it is not IP, of the source MAC. Docker hands out consecutive
// addresses. So senders with neighbouring addresses share no class, as long as there are no more
// of them than classes. No sender can choose another's class: the guard binds MAC and address to
// the port.
//
// The class of a packet from the container depends on its flow: on a hash of addresses, protocol
// and ports. Fragments have no ports. So a fragmented flow is hashed by addresses alone and stays
// in order.
//
// The program is classic BPF: the kernel checks, compiles and bounds it, and it needs no bpf(2)
// and none of its privileges. It returns the class (cls_bpf without direct action). A packet that
// is too short to be read gets no class, and goes to HTB's default class.
func classifier(dir shaper.Direction) (program, error) {
	v4, v6, other := sender(ip4Src), sender(ip6Src+12), sender(macSrc)
	if dir == shaper.Egress {
		v4, v6, other = flow4(), flow6(), append(fold(macSrc), mix...)
	}
	end := finish(shaper.Spreads[dir])
	v4, v6, other = append(v4, end...), append(v6, end...), append(other, end...)
	all := []bpf.Instruction{
		bpf.LoadAbsolute{Off: etherType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x0800, SkipTrue: uint8(1 + len(other))},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x86dd, SkipTrue: uint8(len(other) + len(v4))},
	}
	return assemble(append(append(append(all, other...), v4...), v6...))
}

// sender puts the last four bytes of an address into scratch 0.
func sender(address uint32) []bpf.Instruction {
	return []bpf.Instruction{bpf.LoadAbsolute{Off: address, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: 0}}
}

// flow4 puts the hash of a flow of IPv4 into scratch 0, flow6 that of one of IPv6.
func flow4() []bpf.Instruction {
	withPorts := append([]bpf.Instruction{
		bpf.LoadMemShift{Off: ip4Start},
		bpf.LoadAbsolute{Off: ip4Proto, Size: 1},
	}, ports(bpf.LoadIndirect{Off: ip4Start, Size: 4})...)
	all := append(fold(ip4Src, ip4Dst),
		bpf.LoadAbsolute{Off: ip4Frag, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: uint8(len(withPorts))})
	return append(append(all, withPorts...), mix...)
}

func flow6() []bpf.Instruction {
	all := append(fold(ip6Src, ip6Src+4, ip6Src+8, ip6Src+12, ip6Dst, ip6Dst+4, ip6Dst+8, ip6Dst+12),
		bpf.LoadAbsolute{Off: ip6Next, Size: 1})
	return append(append(all, ports(bpf.LoadAbsolute{Off: ip6Payload, Size: 4})...), mix...)
}

// mix spreads the hash in scratch 0 over its low bits.
var mix = []bpf.Instruction{
	bpf.LoadScratch{Dst: bpf.RegA, N: 0},
	bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: golden},
	bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 24},
	bpf.StoreScratch{Src: bpf.RegA, N: 0},
}

// fold gathers the words at the offsets in scratch 0.
func fold(offsets ...uint32) []bpf.Instruction {
	out := []bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegA, Val: 0}, bpf.StoreScratch{Src: bpf.RegA, N: 0}}
	for _, off := range offsets {
		out = append(out,
			bpf.LoadScratch{Dst: bpf.RegX, N: 0},
			bpf.LoadAbsolute{Off: off, Size: 4},
			bpf.ALUOpX{Op: bpf.ALUOpAdd},
			bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: golden},
			bpf.StoreScratch{Src: bpf.RegA, N: 0})
	}
	return out
}

// ports mixes source and destination port into scratch 0, if the protocol has ports. The
// protocol is in A.
func ports(load bpf.Instruction) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 17, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 132, SkipTrue: 1},
		bpf.Jump{Skip: 4},
		load,
		bpf.LoadScratch{Dst: bpf.RegX, N: 0},
		bpf.ALUOpX{Op: bpf.ALUOpXor},
		bpf.StoreScratch{Src: bpf.RegA, N: 0},
	}
}

// finish returns the class for the number in scratch 0.
func finish(spread shaper.Spread) []bpf.Instruction {
	one := func(first, of uint16) []bpf.Instruction {
		return []bpf.Instruction{
			bpf.LoadScratch{Dst: bpf.RegA, N: 0},
			bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(of)},
			bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: rootHandle | uint32(first)},
			bpf.RetA{},
		}
	}
	small := one(shaper.SmallLeafMinor, spread.Small)
	all := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: shaper.SmallPacket, SkipTrue: uint8(len(small))},
	}
	return append(append(all, small...), one(shaper.FlowMinor, spread.Large)...)
}

// everything matches each packet and leaves it to the filter's action.
func everything() (program, error) {
	return assemble([]bpf.Instruction{bpf.RetConstant{Val: 1<<32 - 1}})
}

// program is a filter's code, and the handle that the filter has for it. The
// handle tells a filter of netguard's from others, and the filter of an older
// netguard from this one's.
type program struct {
	code   []byte // struct sock_filter, as the kernel reads it
	handle uint32
}

func assemble(instructions []bpf.Instruction) (program, error) {
	raw, err := bpf.Assemble(instructions)
	if err != nil {
		return program{}, err
	}
	var p program
	for _, ins := range raw {
		p.code = binary.NativeEndian.AppendUint16(p.code, ins.Op)
		p.code = append(p.code, ins.Jt, ins.Jf)
		p.code = binary.NativeEndian.AppendUint32(p.code, ins.K)
	}
	p.handle = shaper.RootMajor<<16 | crc32.ChecksumIEEE(p.code)>>16
	return p, nil
}
