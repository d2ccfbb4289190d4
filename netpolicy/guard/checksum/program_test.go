package checksum

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"netguard/internal/asroot"
)

// TestLoad has the kernel's verifier read both kinds.
func TestLoad(t *testing.T) {
	asroot.Only(t)
	var prints []Fingerprint
	for _, spoil := range []bool{true, false} {
		p, err := New(spoil)
		if err == nil {
			err = p.Load()
		}
		var refused *ebpf.VerifierError
		if errors.As(err, &refused) {
			t.Fatalf("%+v", refused)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if !Ours(p.ID()) {
			t.Errorf("program %d is not known by its name", p.ID())
		}
		again, err := New(spoil)
		if err != nil || again.Fingerprint() != p.Fingerprint() {
			t.Errorf("the same program has another fingerprint: %x, %x, %v", again.Fingerprint(), p.Fingerprint(), err)
		}
		prints = append(prints, p.Fingerprint())
	}
	if prints[0] == prints[1] {
		t.Error("both kinds have the same fingerprint")
	}
}

// TestMember finds members where the kernel hides them.
func TestMember(t *testing.T) {
	u8, u16 := &btf.Int{Size: 1}, &btf.Int{Size: 2}
	of := []btf.Member{
		{Name: "first", Type: u8},
		{Type: &btf.Union{Members: []btf.Member{
			{Type: &btf.Struct{Members: []btf.Member{{Name: "deep", Type: u16}, {Name: "deeper", Type: u16, Offset: 16}}}},
			{Name: "named", Type: &btf.Struct{Members: []btf.Member{{Name: "hidden", Type: u8}}}},
		}}, Offset: 32},
		{Name: "bit", Type: u8, Offset: 67, BitfieldSize: 2},
	}
	for name, want := range map[string]btf.Bits{"first": 0, "deep": 32, "deeper": 48, "named": 32, "bit": 67} {
		if _, at, ok := member(of, 0, name); !ok || at != want {
			t.Errorf("%s is at %d, %t; want %d", name, at, ok, want)
		}
	}
	if _, _, ok := member(of, 0, "hidden"); ok {
		t.Error("a member of a member with a name was found")
	}
}

// TestMark cannot be mistaken for other types of frames.
func TestSpoiltTypes(t *testing.T) {
	for _, typ := range []uint16{SpoiltIPv4, SpoiltIPv6, SpoiltOther} {
		// A checksum that is still to be filled in may change one of the type's bytes
		// and the version, or both bytes of the type: then the version is zero still.
		b := binary.BigEndian.AppendUint16(nil, typ)
		if b[0] == 0x08 || b[0] == 0x86 {
			t.Errorf("0x%04x is one byte from a type that is taken for IP", typ)
		}
	}
}
