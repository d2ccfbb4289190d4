package link

import (
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

// TestFlap: what a container does to its end of a port wakes nobody, and does not hide
// what happens to the port meanwhile.
func TestFlap(t *testing.T) {
	h := newHost(t)
	var wakes atomic.Int64
	h.watchWith(func() { wakes.Add(1); h.wake() })
	br, c := h.bridge("br-x"), h.container()
	v, peer := c.join("veth1", br, mac(1))
	h.awaitPort("the port", "veth1", pinnedTo(mac(1)))
	// Each time its end comes up, IPv6 would give it a link-local address of its new MAC.
	// A new address of a port is no noise: it is in the hint (TestLinkLocals).
	must(t, c.LinkSetIP6AddrGenMode(peer, nl.IN6_ADDR_GEN_MODE_NONE))
	other, _ := h.container().join("veth2", br, mac(2))
	h.awaitPort("the other", "veth2", pinnedTo(mac(2)))
	marker := 1400
	// settled waits until the kernel's messages so far were read.
	settled := func() {
		marker--
		must(t, netlink.LinkSetMTU(other, marker))
		h.awaitPort("the marker", "veth2", func(p Port) bool { return p.MTU == marker })
	}
	flap := func(n int) {
		for range n {
			must(t, c.LinkSetDown(peer))
			must(t, c.LinkSetUp(peer))
		}
	}
	flap(3) // the bridge has its first carrier
	settled()
	h.table.TakeHint()
	before := wakes.Load()
	const flaps = 300
	for i := range flaps {
		flap(1)
		must(t, c.LinkSetHardwareAddr(peer, mac(100+i)))
		must(t, c.LinkSetMTU(peer, 1300+i)) // below 1280 IPv6 would end, and forget its settings
		must(t, c.LinkSetTxQLen(peer, 10+i))
	}
	settled()
	if n := wakes.Load() - before; n > 30 {
		t.Errorf("%d flaps woke %d times", flaps, n)
	}
	if has(h.table.TakeHint(), v.Index) {
		t.Error("the port that flaps is in the hint")
	}
	// In the midst of it, a port setting changes: by either way.
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if c.LinkSetDown(peer) != nil || c.LinkSetUp(peer) != nil {
				return
			}
		}
	}()
	for _, on := range []bool{false, true} {
		must(t, netlink.LinkSetLearning(v, on))
		h.await("the setting", func() bool { return has(h.table.TakeHint(), v.Index) })
	}
	close(stop)
	<-stopped
	must(t, netlink.LinkSetMTU(v, 1300))
	h.awaitPort("the MTU", "veth1", func(p Port) bool { return p.MTU == 1300 })
}
