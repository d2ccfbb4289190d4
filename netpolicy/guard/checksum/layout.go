package checksum

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"
)

// layout is where this kernel keeps what the program reads.
type layout struct {
	// Of struct sk_buff.
	summed, encapsulation bits
	csumStart, csumOffset int16
	head, data, end       int16
	// gsoType is of struct skb_shared_info, whose type is info.
	gsoType int16
	info    btf.TypeID
	// Kernel functions.
	toKernel, readOnly btf.TypeID
}

// bits are a bit field within one byte.
type bits struct {
	at    int16
	shift uint8
	mask  int32 // where it is in the byte
}

// newLayout reads the kernel's own description of its types.
func newLayout() (layout, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return layout{}, fmt.Errorf("read types of the kernel: %w", err)
	}
	var l layout
	var skb, info *btf.Struct
	var toKernel, readOnly *btf.Func
	err = errors.Join(spec.TypeByName("sk_buff", &skb), spec.TypeByName("skb_shared_info", &info),
		spec.TypeByName("bpf_cast_to_kern_ctx", &toKernel), spec.TypeByName("bpf_rdonly_cast", &readOnly))
	if err != nil {
		return l, fmt.Errorf("find types of the kernel: %w", err)
	}
	var errs []error
	plain := func(of *btf.Struct, name string, size int) int16 {
		m, at, ok := member(of.Members, 0, name)
		if n, err := btf.Sizeof(m.Type); !ok || m.BitfieldSize != 0 || at%8 != 0 || err != nil || n != size {
			errs = append(errs, fmt.Errorf("struct %s has no %s of %d bytes", of.Name, name, size))
		}
		return int16(at / 8)
	}
	field := func(name string) bits {
		m, at, ok := member(skb.Members, 0, name)
		if !ok || m.BitfieldSize == 0 || uint32(at%8)+uint32(m.BitfieldSize) > 8 {
			errs = append(errs, fmt.Errorf("struct sk_buff has no bits %s", name))
			return bits{}
		}
		b := bits{at: int16(at / 8), shift: uint8(at % 8)}
		if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 { // the first bit is the highest
			b.shift = uint8(8 - at%8 - m.BitfieldSize)
		}
		b.mask = (1<<m.BitfieldSize - 1) << b.shift
		return b
	}
	l.summed, l.encapsulation = field("ip_summed"), field("encapsulation")
	l.csumStart, l.csumOffset = plain(skb, "csum_start", 2), plain(skb, "csum_offset", 2)
	// On a 32-bit kernel end is a pointer: that is not supported.
	l.head, l.data, l.end = plain(skb, "head", 8), plain(skb, "data", 8), plain(skb, "end", 4)
	l.gsoType = plain(info, "gso_type", 4)
	for typ, id := range map[btf.Type]*btf.TypeID{info: &l.info, toKernel: &l.toKernel, readOnly: &l.readOnly} {
		var err error
		if *id, err = spec.TypeID(typ); err != nil {
			errs = append(errs, err)
		}
	}
	return l, errors.Join(errs...)
}

// member finds a member, in structs and unions without a name as well, and gives its
// offset in bits.
func member(all []btf.Member, from btf.Bits, name string) (btf.Member, btf.Bits, bool) {
	for _, m := range all {
		at := from + m.Offset
		if m.Name == name {
			return m, at, true
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if m, at, ok := member(inner, at, name); ok {
			return m, at, true
		}
	}
	return btf.Member{}, 0, false
}
