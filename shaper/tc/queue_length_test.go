package tc_test

import (
	"testing"

	vish "github.com/vishvananda/netlink"

	"netguard/shaper"
)

// The kernel gives a device a queue length when it gets a qdisc of any kind, and keeps
// it. It is to be what it was, whatever came first and whatever went last.
func TestQueueLength(t *testing.T) {
	d, index := vethIn(t)
	length := func() int {
		t.Helper()
		l, err := vish.LinkByIndex(index)
		if err != nil {
			t.Fatal(err)
		}
		return l.Attrs().TxQLen
	}
	if err := vish.LinkSetTxQLen(&vish.Device{LinkAttrs: vish.LinkAttrs{Index: index}}, 0); err != nil {
		t.Fatal(err)
	}
	const limit = shaper.Mbit
	// An agent was killed before it gave the length back.
	apply(t, d, index, shaper.Wish{Egress: tree(t, shaper.Egress, limit, shaper.Hashed)})
	if err := vish.LinkSetTxQLen(&vish.Device{LinkAttrs: vish.LinkAttrs{Index: index}}, 1000); err != nil {
		t.Fatal(err)
	}
	if err := d.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if n := length(); n != 0 {
		t.Fatalf("it is %d after an agent that was killed", n)
	}
	for _, way := range [][][2]shaper.Rate{
		{{0, limit}},
		{{limit, 0}},
		{{limit, limit}},
		{{0, limit}, {limit, limit}},
		{{0, limit}, {limit, limit}, {0, limit}},
		{{limit, 0}, {limit, limit}, {limit, 0}},
	} {
		for _, rates := range way {
			apply(t, d, index, shaper.Wish{Ingress: tree(t, shaper.Ingress, rates[0], shaper.Hashed), Egress: tree(t, shaper.Egress, rates[1], shaper.Hashed)})
		}
		if err := d.Cleanup(); err != nil {
			t.Fatal(err)
		}
		if n := length(); n != 0 {
			t.Errorf("after %v it is %d", way, n)
			_ = vish.LinkSetTxQLen(&vish.Device{LinkAttrs: vish.LinkAttrs{Index: index}}, 0)
		}
	}
}
