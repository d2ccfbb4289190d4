package guard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"

	"netguard/integration/attack"
)

// deliver sends a frame and says whether it arrived. Control frames have exact
// lengths, so a frame of ARP or IP is known by all of it. What follows another one, and
// tells it from others, is beyond the lengths in its headers.
func deliver(t *testing.T, a, v *box, frame []byte) bool {
	t.Helper()
	frame, mark := marked(frame)
	// Nobody else asks for that address.
	n := number.Load()
	sentinel := ether(broadcast, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, netip4(192, 0, byte(n>>8), byte(n))))
	for receive(v.socket) != nil {
	}
	a.send(frame)
	a.send(sentinel)
	return got(t, v.socket, mark, sentinel)
}

var number atomic.Int64

func marked(frame []byte) (out, mark []byte) {
	n := number.Add(1)
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x800, 0x806, 0x86dd:
		return frame, frame
	}
	mark = fmt.Appendf(nil, "<frame %d>", n)
	return append(bytes.Clone(frame), mark...), mark
}

// learn lets the bridge learn again where everybody is.
func (h *host) learn(t *testing.T) {
	t.Helper()
	for i, b := range h.boxes {
		if !deliver(t, b, h.boxes[(i+1)%len(h.boxes)], ether(broadcast, b.mac, 0x806, arpPacket(1, b.mac, b.ip4, MAC{}, b.ip4))) {
			t.Fatal("an honest frame did not arrive")
		}
	}
}

func violations(t *testing.T, d *Driver, b *box) Violations {
	t.Helper()
	all, err := d.Violations()
	if err != nil {
		t.Fatal(err)
	}
	return all[b.port]
}

// expect checks that one violation of a kind was counted since.
func expect(t *testing.T, before, after Violations, kind func(*Violations) *uint64) {
	t.Helper()
	*kind(&before)++
	if before != after {
		t.Errorf("counted %+v, want %+v", after, before)
	}
}

func TestAttacks(t *testing.T) {
	h := newHost(t, 3)
	a, v, c := h.boxes[0], h.boxes[1], h.boxes[2]
	for _, at := range attack.All {
		h.run(t, "succeeds_without_the_guard/"+at.Name, func(t *testing.T) {
			h.learn(t)
			if !deliver(t, a, v, at.Frame(scene(a, v, c))) {
				t.Error("the attack fails by itself: it proves nothing")
			}
		})
	}
	d := h.driver()
	monitor := h.wish()
	monitor.Mode = Monitor
	h.apply(d, monitor)
	for _, at := range attack.All {
		h.run(t, "is_counted_in_monitor_mode/"+at.Name, func(t *testing.T) {
			h.learn(t)
			before := violations(t, d, a)
			if !deliver(t, a, v, at.Frame(scene(a, v, c))) {
				t.Error("a frame was dropped in monitor mode")
			}
			expect(t, before, violations(t, d, a), violation(at.Kind))
		})
	}
	h.apply(d, h.wish())
	for _, at := range attack.All {
		h.run(t, "fails_with_the_guard/"+at.Name, func(t *testing.T) {
			before := violations(t, d, a)
			if deliver(t, a, v, at.Frame(scene(a, v, c))) {
				t.Error("the frame arrived")
			}
			expect(t, before, violations(t, d, a), violation(at.Kind))
		})
	}
	for _, b := range []*box{v, c} {
		if got := violations(t, d, b); got != (Violations{}) {
			t.Errorf("%s did nothing wrong, but: %+v", b.name, got)
		}
	}
}
