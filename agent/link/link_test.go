package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"

	"netguard/internal/asroot"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a network namespace of the test's own, in which the test's goroutine
// stays, with a watched table.
type host struct {
	*testing.T
	ns    netns.NsHandle
	table *Table
	woken chan struct{}
}

func newHost(t *testing.T) *host {
	t.Helper()
	asroot.Only(t)
	runtime.LockOSThread()
	before, err := netns.Get()
	must(t, err)
	ns, err := netns.New()
	must(t, err)
	t.Cleanup(func() {
		must(t, netns.Set(before))
		must(t, before.Close())
		must(t, ns.Close())
		runtime.UnlockOSThread()
	})
	h := &host{T: t, ns: ns, woken: make(chan struct{}, 1)}
	h.table, err = New(slog.New(slog.NewTextHandler(t.Output(), nil)))
	must(t, err)
	t.Cleanup(h.table.Close)
	return h
}

func (h *host) wake() {
	select {
	case h.woken <- struct{}{}:
	default:
	}
}

// watch runs Watch until the test ends.
func (h *host) watch() { h.watchWith(h.wake) }

func (h *host) watchWith(wake func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.table.Watch(ctx, wake) }()
	h.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			h.Errorf("Watch ended with %v", err)
		}
	})
}

// await looks at the table at each wake until ok says yes.
func (h *host) await(what string, ok func() bool) {
	h.Helper()
	late := time.NewTimer(10 * time.Second)
	defer late.Stop()
	for !ok() {
		select {
		case <-h.woken:
		case <-late.C:
			h.Fatalf("never seen: %s; ports %+v", what, h.table.Snapshot())
		}
	}
}

func (h *host) find(name string) (Port, bool) {
	for _, p := range h.table.Snapshot() {
		if p.Name == name {
			return *p, true
		}
	}
	return Port{}, false
}

func (h *host) awaitPort(what, name string, ok func(Port) bool) Port {
	h.Helper()
	var p Port
	h.await(what, func() (yes bool) {
		if p, yes = h.find(name); yes {
			yes = ok(p)
		}
		return yes
	})
	return p
}

// container is a network namespace that plays a container's sandbox.
type container struct {
	*host
	ns netns.NsHandle
	*netlink.Handle
}

func (h *host) container() *container {
	h.Helper()
	ns, err := netns.New()
	must(h, err)
	must(h, netns.Set(h.ns))
	c, err := netlink.NewHandleAt(ns)
	must(h, err)
	made := &container{h, ns, c}
	h.Cleanup(made.end)
	return made
}

// end destroys the namespace, and with it the links in it.
func (c *container) end() {
	if c.ns.IsOpen() {
		c.Close()
		must(c, c.ns.Close())
	}
}

func (c *container) path() string { return fmt.Sprintf("/proc/self/fd/%d", int(c.ns)) }

func (h *host) bridge(name string) *netlink.Bridge {
	h.Helper()
	b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	must(h, netlink.LinkAdd(b))
	must(h, netlink.LinkSetUp(b))
	return b
}

// veth makes a pair in the host's namespace and enslaves its host's end, as
// Docker does on network connect.
func (h *host) veth(name string, br *netlink.Bridge) *netlink.Veth {
	h.Helper()
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	must(h, netlink.LinkAdd(v))
	must(h, netlink.LinkSetMaster(v, br))
	must(h, netlink.LinkSetUp(v))
	return v
}

// take moves the peer of a veth into the container and leaves it down.
func (c *container) take(v *netlink.Veth) netlink.Link {
	c.Helper()
	p, err := netlink.LinkByName(v.PeerName)
	must(c, err)
	must(c, netlink.LinkSetNsFd(p, int(c.ns)))
	p, err = c.LinkByName(v.PeerName)
	must(c, err)
	return p
}

// join does all that Docker does to put a container on a bridge.
func (c *container) join(name string, br *netlink.Bridge, mac net.HardwareAddr) (*netlink.Veth, netlink.Link) {
	c.Helper()
	v := c.veth(name, br)
	p := c.take(v)
	must(c, c.LinkSetHardwareAddr(p, mac))
	must(c, c.LinkSetUp(p))
	return v, p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mac(i int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x42, 0xac, 0x11, byte(i >> 8), byte(i)}
}

func pinnedTo(m net.HardwareAddr) func(Port) bool {
	return func(p Port) bool { return p.Pinned && p.PeerMAC.String() == m.String() }
}

// TestSnapshotShares: a port that did not change is the same pointer in the next snapshot, and
// a message that says nothing new makes no new one.
func TestSnapshotShares(t *testing.T) {
	h := newHost(t)
	h.watch()
	br := h.bridge("br0")
	v, _ := h.container().join("veth1", br, mac(1))
	h.container().join("veth2", br, mac(2))
	h.awaitPort("the MAC of the first", "veth1", func(p Port) bool { return pinnedTo(mac(1))(p) && p.Up })
	h.awaitPort("the MAC of the second", "veth2", func(p Port) bool { return pinnedTo(mac(2))(p) && p.Up })
	before := h.table.Snapshot()
	for _, p := range before {
		if cap(p.MAC) > 64 || cap(p.PeerMAC) > 64 {
			t.Errorf("%s keeps %d and %d bytes in memory", p.Name, cap(p.MAC), cap(p.PeerMAC))
		}
	}
	h.table.TakeHint()
	must(t, netlink.LinkSetTxQLen(v, 77))
	h.await("the message about the first", func() bool {
		_, named := h.table.TakeHint().Links[before[0].Index]
		return named
	})
	if now := h.table.Snapshot(); &now[0] != &before[0] {
		t.Error("a message that says nothing new makes a new snapshot")
	}
	must(t, netlink.LinkSetMTU(v, 1400))
	h.awaitPort("the MTU of the first", "veth1", func(p Port) bool { return p.MTU == 1400 })
	if now := h.table.Snapshot(); now[0] == before[0] || before[0].MTU != 1500 || now[1] != before[1] {
		t.Errorf("another MTU of the first port: %+v was %+v, the other port is another: %t", now[0], before[0], now[1] != before[1])
	}
}
