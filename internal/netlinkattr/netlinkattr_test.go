package netlinkattr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func attr(typ uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, typ), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

func TestWalk(t *testing.T) {
	all := append(attr(7, []byte("odd")), attr(9|unix.NLA_F_NESTED, []byte("even"))...)
	var types []uint16
	var values []byte
	err := Walk(all, func(typ uint16, raw, value []byte) error {
		if len(raw) != 4+len(value) {
			t.Errorf("raw has %d bytes, the value %d", len(raw), len(value))
		}
		types, values = append(types, typ), append(values, value...)
		return nil
	})
	if err != nil || len(types) != 2 || types[0] != 7 || types[1] != 9 || string(values) != "oddeven" {
		t.Errorf("%v %q, %v", types, values, err)
	}
	stop := errors.New("enough")
	if err := Walk(all, func(uint16, []byte, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error is %v", err)
	}
	for _, cut := range [][]byte{all[:5], {2, 0, 1, 0}, {0xff, 0xff, 1, 0}} {
		if err := Walk(cut, func(uint16, []byte, []byte) error { return nil }); !errors.Is(err, ErrCutOff) {
			t.Errorf("% x: error is %v", cut, err)
		}
	}
}

func FuzzWalk(f *testing.F) {
	f.Add(append(attr(1, []byte("a")), attr(2, nil)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = Walk(b, func(_ uint16, raw, value []byte) error {
			if !bytes.Contains(b, raw) || !bytes.HasSuffix(raw, value) {
				t.Error("it is not a part")
			}
			return nil
		})
	})
}
