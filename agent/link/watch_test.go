package link

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func TestFindsWhatWasThereBefore(t *testing.T) {
	h := newHost(t)
	br := h.bridge("br-x")
	v, _ := h.container().join("veth1", br, mac(1))
	h.watch()
	// The kernel may be a moment late to say that both ends are up.
	p := h.awaitPort("the port", "veth1", func(p Port) bool { return pinnedTo(mac(1))(p) && p.Up })
	if p.Index != v.Index || p.Master != br.Index || p.MasterName != "br-x" || p.MTU != 1500 {
		t.Errorf("got %+v", p)
	}
	if got := h.table.Bridges(); len(got) != 1 || got["br-x"] != br.Index {
		t.Errorf("bridges %v", got)
	}
	if hint := h.table.TakeHint(); !hint.Full {
		t.Errorf("the first hint is %+v, want full", hint)
	}
	if hint := h.table.TakeHint(); !hint.Empty() {
		t.Errorf("a hint taken twice is %+v, want empty", hint)
	}
}

// Docker 20.10's order: see the package comment.
func TestPinsTheMACThatDockerGaveAndNotTheOneBefore(t *testing.T) {
	h := newHost(t)
	h.watch()
	c := h.container()
	v := h.veth("veth1", h.bridge("br-x"))
	p := h.awaitPort("a port whose peer is here", "veth1", func(p Port) bool { return p.PeerIndex != 0 })
	if p.NSID != -1 || p.PeerMAC != nil || p.Pinned {
		t.Errorf("before the move: %+v", p)
	}
	peer := c.take(v)
	// No message tells of the port when its peer moves; the peer's DELLINK
	// has to do.
	p = h.awaitPort("the peer in its namespace", "veth1", func(p Port) bool { return p.NSID >= 0 })
	if p.Pinned {
		t.Errorf("pinned before the peer is up: %+v", p)
	}
	id, err := h.table.NSIDOf(c.path())
	must(t, err)
	if id != p.NSID {
		t.Errorf("the sandbox has id %d, the port %d", id, p.NSID)
	}
	must(t, c.LinkSetHardwareAddr(peer, mac(7)))
	must(t, c.LinkSetUp(peer))
	h.awaitPort("the final MAC", "veth1", pinnedTo(mac(7)))
}

func TestKeepsTheMACThatItPinned(t *testing.T) {
	h := newHost(t)
	h.watch()
	c := h.container()
	v, peer := c.join("veth1", h.bridge("br-x"), mac(1))
	h.awaitPort("the MAC", "veth1", pinnedTo(mac(1)))
	must(t, c.LinkSetDown(peer))
	must(t, c.LinkSetHardwareAddr(peer, mac(66)))
	must(t, c.LinkSetUp(peer))
	p, err := h.table.Resolve(v.Index)
	must(t, err)
	if !pinnedTo(mac(1))(p) {
		t.Errorf("the container changed its MAC: %+v", p)
	}
	must(t, h.table.list(t.Context()))
	if p, _ := h.find("veth1"); !pinnedTo(mac(1))(p) {
		t.Errorf("a re-list lost the pin: %+v", p)
	}
}

func TestTellsWhenThePeerMovesOn(t *testing.T) {
	h := newHost(t)
	h.watch()
	c, nested := h.container(), h.container()
	v, peer := c.join("veth1", h.bridge("br-x"), mac(1))
	first := h.awaitPort("the MAC", "veth1", pinnedTo(mac(1)))
	must(t, c.LinkSetNsFd(peer, int(nested.ns)))
	p, err := h.table.Resolve(v.Index)
	must(t, err)
	if p.NSID == first.NSID || !pinnedTo(mac(1))(p) {
		t.Errorf("was %+v, is %+v", first, p)
	}
}

func TestFollowsAPort(t *testing.T) {
	h := newHost(t)
	h.watch()
	a, b := h.bridge("br-a"), h.bridge("br-b")
	c := h.container()
	v, _ := c.join("veth1", a, mac(1))
	h.awaitPort("the port", "veth1", pinnedTo(mac(1)))

	must(t, netlink.LinkSetName(v, "blue"))
	p := h.awaitPort("the new name", "blue", pinnedTo(mac(1)))
	if p.Index != v.Index {
		t.Errorf("renamed %+v", p)
	}
	must(t, netlink.LinkSetMTU(v, 1400))
	h.awaitPort("the MTU", "blue", func(p Port) bool { return p.MTU == 1400 })
	must(t, netlink.LinkSetMaster(v, b))
	h.awaitPort("the other bridge", "blue", func(p Port) bool { return p.MasterName == "br-b" })
	must(t, netlink.LinkSetName(b, "br-c"))
	h.awaitPort("the bridge's new name", "blue", func(p Port) bool { return p.MasterName == "br-c" })
	must(t, netlink.LinkSetNoMaster(v))
	h.await("the port gone", func() bool { _, ok := h.find("blue"); return !ok })
	must(t, netlink.LinkSetMaster(v, a))
	h.awaitPort("the port back with its pin", "blue", pinnedTo(mac(1)))
	h.table.TakeHint()
	must(t, netlink.LinkDel(v))
	h.await("the veth deleted", func() bool { _, ok := h.find("blue"); return !ok })
	if hint := h.table.TakeHint(); !has(hint, v.Index) {
		t.Errorf("the deleted veth %d is not in %+v", v.Index, hint)
	}
	if _, err := h.table.Resolve(v.Index); !errors.Is(err, ErrNotFound) {
		t.Errorf("resolving the deleted veth gave %v", err)
	}
	must(t, netlink.LinkDel(a))
	h.await("the bridge deleted", func() bool { return len(h.table.Bridges()) == 1 })
}

func TestMarksADevice(t *testing.T) {
	h := newHost(t)
	br := h.bridge("br-x")
	c := h.container()
	v, _ := c.join("veth1", br, mac(1))
	other := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vxlan0"}, VxlanId: 1, Port: 4789}
	must(t, netlink.LinkAdd(other))
	h.watch()
	h.awaitPort("the port", "veth1", pinnedTo(mac(1)))

	root := netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: v.Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT})
	class := netlink.NewHtbClass(netlink.ClassAttrs{LinkIndex: v.Index, Parent: root.Handle, Handle: netlink.MakeHandle(1, 1)},
		netlink.HtbClassAttrs{Rate: 1e6})
	filter := &netlink.U32{FilterAttrs: netlink.FilterAttrs{LinkIndex: v.Index, Parent: root.Handle, Priority: 1, Protocol: 3},
		ClassId: class.Handle}
	ifb := &netlink.Ifb{LinkAttrs: netlink.LinkAttrs{Name: "ifb-x"}}
	steps := []struct {
		what string
		do   func() error
		dev  func() int
	}{
		{"a qdisc added", func() error { return netlink.QdiscAdd(root) }, nil},
		{"a class added", func() error { return netlink.ClassAdd(class) }, nil},
		{"a filter added", func() error { return netlink.FilterAdd(filter) }, nil},
		{"a class changed", func() error { class.Rate *= 2; return netlink.ClassChange(class) }, nil},
		{"a qdisc deleted", func() error { return netlink.QdiscDel(root) }, nil},
		{"a bridge port flag", func() error { return netlink.LinkSetLearning(v, false) }, nil},
		{"an IFB added", func() error { return netlink.LinkAdd(ifb) }, func() int { return ifb.Index }},
		{"an IFB deleted", func() error { return netlink.LinkDel(ifb) }, func() int { return ifb.Index }},
	}
	for _, s := range steps {
		h.table.TakeHint()
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.what, err)
		}
		index := v.Index
		if s.dev != nil {
			index = s.dev()
		}
		h.await(s.what, func() bool { return has(h.table.TakeHint(), index) })
	}
	must(t, netlink.LinkSetUp(other))
	must(t, netlink.LinkSetMTU(v, 1300))
	h.awaitPort("the last change", "veth1", func(p Port) bool { return p.MTU == 1300 })
	if hint := h.table.TakeHint(); has(hint, other.Index) {
		t.Errorf("somebody else's link is in %+v", hint)
	}
}

func TestBurst(t *testing.T) {
	const n = 200
	h := newHost(t)
	h.watch()
	br := h.bridge("br-x")
	c := h.container()
	start := time.Now()
	for i := range n {
		c.join(fmt.Sprint("veth", i), br, mac(i))
	}
	made := time.Since(start)
	h.await("all ports pinned", func() bool { return pinned(h) == n })
	t.Logf("%d veths made in %v, all pinned %v later", n, made, time.Since(start)-made)
	last := uint64(0)
	for i, p := range h.table.Snapshot() {
		if p.Name != fmt.Sprint("veth", i) || p.PeerMAC.String() != mac(i).String() || p.Seen <= last {
			t.Fatalf("port %d is %+v", i, p)
		}
		last = p.Seen
	}
	c.end() // the kernel deletes them all at once
	h.await("all ports gone", func() bool { return len(h.table.Snapshot()) == 0 })
	h.table.mu.Lock()
	defer h.table.mu.Unlock()
	if len(h.table.veths) != 0 || len(h.table.peers) != 0 {
		t.Errorf("left over: %d veths, %d peers", len(h.table.veths), len(h.table.peers))
	}
}

// The reader is held back until the kernel has dropped messages.
func TestListsAgainAfterLostMessages(t *testing.T) {
	h := newHost(t)
	must(t, h.table.events.SetReceiveBufferSize(4096, true))
	held, release := make(chan struct{}), make(chan struct{})
	first := true
	h.watchWith(func() {
		if first {
			first = false
			close(held)
			<-release
		}
		h.wake()
	})
	<-held
	br := h.bridge("br-x")
	c := h.container()
	gone, _ := c.join("gone", br, mac(99))
	for i := range 20 {
		c.join(fmt.Sprint("veth", i), br, mac(i))
	}
	must(t, netlink.LinkDel(gone))
	h.table.TakeHint()
	close(release)
	h.await("all ports", func() bool { return pinned(h) == 20 })
	h.await("a full hint", func() bool { return h.table.TakeHint().Full })
	if _, ok := h.find("gone"); ok {
		t.Error("a deleted port is still there")
	}
}

func TestNSIDOf(t *testing.T) {
	h := newHost(t)
	h.watch()
	stranger := h.container()
	id, err := h.table.NSIDOf(stranger.path())
	if err != nil || id != -1 {
		t.Errorf("a namespace without a link to here: %d, %v", id, err)
	}
	file := filepath.Join(t.TempDir(), "sandbox")
	must(t, os.WriteFile(file, nil, 0o600))
	if id, err := h.table.NSIDOf(file); err == nil {
		t.Errorf("a plain file has id %d", id)
	}
	if _, err := h.table.NSIDOf(file + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file gave %v", err)
	}
	if id, err := h.table.NSIDOf("/proc/self/ns/mnt"); err == nil {
		t.Errorf("a mount namespace has id %d", id)
	}
}

func TestHintIsBounded(t *testing.T) {
	var h Hint
	for i := range maxHint {
		h.add(i)
		h.add(i)
	}
	if h.Full || len(h.Links) != maxHint {
		t.Errorf("full %v with %d links", h.Full, len(h.Links))
	}
	h.add(maxHint)
	h.add(0)
	if !h.Full || h.Links != nil {
		t.Errorf("full %v with %d links after one more", h.Full, len(h.Links))
	}
}

func has(h Hint, index int) bool {
	_, ok := h.Links[index]
	return ok || h.Full
}

func pinned(h *host) (n int) {
	for _, p := range h.table.Snapshot() {
		if p.Pinned {
			n++
		}
	}
	return n
}
