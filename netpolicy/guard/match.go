package guard

import (
	"time"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// match is a part of a rule: expressions that must all hold. If an expression cannot be
// carried out, because the frame is too short or has no such header, it does not hold. So a
// frame passes only by a rule that holds, and each chain ends with a refusal.
type match []expr.Any

// field is something that can be read from a frame.
type field struct {
	load func(register uint32) expr.Any
	size int
}

// register gives the register of a word of a concatenation. For the first word it gives the
// register's old name. nft(8) uses that name too, and can print the rule only with it.
func register(word int) uint32 {
	if word == 0 {
		return unix.NFT_REG_1
	}
	return uint32(unix.NFT_REG32_00 + word)
}

func meta(key expr.MetaKey, size int) field {
	return field{func(r uint32) expr.Any { return &expr.Meta{Key: key, Register: r} }, size}
}

func payload(base expr.PayloadBase, offset uint32, size int) field {
	return field{func(r uint32) expr.Any {
		return &expr.Payload{Base: base, Offset: offset, Len: uint32(size), DestRegister: r}
	}, size}
}

// link, network and transport read at an offset of a header. The link header is as on the wire:
// it has the VLAN tag, though the kernel keeps the tag beside the frame. The transport header
// can be read only if the kernel found it. In IPv4, some kernels take the data of a later
// fragment for a transport header.
func link(offset uint32, size int) field {
	return payload(expr.PayloadBaseLLHeader, offset, size)
}

func network(offset uint32, size int) field {
	return payload(expr.PayloadBaseNetworkHeader, offset, size)
}

func transport(offset uint32, size int) field {
	return payload(expr.PayloadBaseTransportHeader, offset, size)
}

// is holds when the field has just these bytes.
func (f field) is(value ...byte) match {
	return match{f.load(register(0)), &expr.Cmp{Op: expr.CmpOpEq, Register: register(0), Data: value}}
}

// isNot holds when the field can be read and has other bytes.
func (f field) isNot(value ...byte) match {
	return match{f.load(register(0)), &expr.Cmp{Op: expr.CmpOpNeq, Register: register(0), Data: value}}
}

// noneOf holds when the field is none of these bytes.
func (f field) noneOf(values ...byte) match {
	m := match{f.load(register(0))}
	for _, v := range values {
		m = append(m, &expr.Cmp{Op: expr.CmpOpNeq, Register: register(0), Data: []byte{v}})
	}
	return m
}

// between holds when the field is from low to high.
func (f field) between(low, high byte) match {
	return match{f.load(register(0)), &expr.Cmp{Op: expr.CmpOpGte, Register: register(0), Data: []byte{low}},
		&expr.Cmp{Op: expr.CmpOpLte, Register: register(0), Data: []byte{high}}}
}

func (f field) masked(mask []byte, op expr.CmpOp, value []byte) match {
	return match{f.load(register(0)),
		&expr.Bitwise{SourceRegister: register(0), DestRegister: register(0), Len: uint32(f.size), Mask: mask, Xor: make([]byte, f.size)},
		&expr.Cmp{Op: op, Register: register(0), Data: value}}
}

// maskedIs holds when the bits of the mask have just this value, anyBit when one
// of them is set, noBit when none is.
func (f field) maskedIs(mask, value []byte) match { return f.masked(mask, expr.CmpOpEq, value) }
func (f field) anyBit(mask ...byte) match         { return f.masked(mask, expr.CmpOpNeq, make([]byte, f.size)) }
func (f field) noBit(mask ...byte) match          { return f.masked(mask, expr.CmpOpEq, make([]byte, f.size)) }

// concat reads fields into one key. Each field begins at a new word of 4 bytes.
func concat(fields []field) match {
	var m match
	word := 0
	for _, f := range fields {
		m = append(m, f.load(register(word)))
		word += (f.size + 3) / 4
	}
	return m
}

// in holds when the fields, together, are an element of a set.
func in(set string, fields ...field) match {
	return append(concat(fields), &expr.Lookup{SourceRegister: register(0), SetName: set})
}

// notIn holds when the fields can be read, and are together no element of a set.
func notIn(set string, fields ...field) match {
	return append(concat(fields), &expr.Lookup{SourceRegister: register(0), SetName: set, Invert: true})
}

// count adds a frame to the counter of its port and kind.
func count(k kind) match { return countFor(inPort, k) }

// countFor is the same for another port than the one that the frame came in by.
func countFor(port field, k kind) match {
	return match{
		port.load(register(0)),
		&expr.Immediate{Register: register(1), Data: binaryutil.NativeEndian.PutUint32(uint32(k))},
		&expr.Dynset{SrcRegKey: register(0), SetName: setViolations, Operation: uint32(unix.NFT_DYNSET_OP_ADD),
			Exprs: []expr.Any{&expr.Counter{}}},
	}
}

// over holds for each frame of a port beyond the limit. The first frame of a port makes the
// port's meter. The kernel removes the meter meterLife after the last frame.
func over(s Storm) match { return beyond(setStorm, s, meterLife, inPort) }

// beyond is like over, with one meter for each value of the fields.
func beyond(set string, s Storm, life time.Duration, fields ...field) match {
	return append(concat(fields),
		&expr.Dynset{SrcRegKey: register(0), SetName: set, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE), Timeout: life,
			Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: s.Rate, Unit: expr.LimitTimeSecond, Burst: s.Burst, Over: true}}})
}

// ordinary is the length of the longest packet in a frame of Ethernet. The rate of a meter of
// bytes is the rate of frames times ordinary. So fewer frames pass if they are longer.
const ordinary = 1500

// overBytes holds for each frame of a port beyond rate bytes a second. At once, the port may
// send the bytes of one second and burst bytes more.
func overBytes(set string, rate uint64, burst uint32) match {
	return append(concat([]field{inPort}),
		&expr.Dynset{SrcRegKey: register(0), SetName: set, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE), Timeout: meterLife,
			Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePktBytes, Rate: rate, Unit: expr.LimitTimeSecond, Burst: burst, Over: true}}})
}

// bytes gives the limit of a storm in bytes, for a second meter. A batch of 64 kB that is not cut
// up yet counts as one frame (UDP_SEGMENT, which needs no capability). Rates above most are
// lowered to most, so that the kernel can count the bytes.
func (s Storm) bytes() (rate uint64, burst uint32) {
	const most = 1 << 20
	rate = min(s.Rate, most)
	return rate * ordinary, uint32((min(max(uint64(s.Burst), rate), 2*most) - rate) * ordinary)
}

// atMost holds when the field, a number in the order of this machine, is not above n.
func (f field) atMost(n uint32) match {
	return match{f.load(register(0)),
		&expr.Byteorder{SourceRegister: register(0), DestRegister: register(0), Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLte, Register: register(0), Data: binaryutil.BigEndian.PutUint32(n)}}
}

func goTo(chain string) *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

var (
	accept = &expr.Verdict{Kind: expr.VerdictAccept}
	drop   = &expr.Verdict{Kind: expr.VerdictDrop}
)
