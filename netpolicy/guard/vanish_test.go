package guard

import "testing"

// A container that goes takes its port and all that hangs on it away, in steps.
func TestPortThatGoesWhileItIsLookedAt(t *testing.T) {
	h := newHost(t, 1)
	d := h.driver()
	w := h.wish()
	h.apply(d, w)
	b := h.boxes[0]
	p, ok, err := d.links.port(b.port)
	if err != nil || !ok {
		t.Fatalf("port %d: %v, %v", b.port, ok, err)
	}
	d.kernel.ports[b.port] = p // what was read of it
	run(t, "ip", "link", "del", b.name)
	if err := d.observePort(b.port, w.Ports[0], []MAC{b.mac}, Everything); err != nil {
		t.Fatal(err)
	}
	if left := d.diff(scope{all: true}); left.count() != 0 {
		t.Errorf("somebody is said to have changed it: %q", sentences(left))
	}
}
