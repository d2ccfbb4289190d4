package link

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func TestFloodIsBounded(t *testing.T) {
	f := newFlood()
	start := time.Unix(1000, 0)
	read := map[int]int{}
	// Ten thousand messages a second about one link, fifty about another.
	for i := range 100_000 {
		now := start.Add(time.Duration(i) * 100 * time.Microsecond)
		if _, ok := f.take(now)[1]; ok {
			read[-1]++
		}
		for _, index := range []int{1, 2} {
			if _, muted := f.muted[index]; !muted && (index == 1 || i%200 == 0) {
				read[index]++
				if f.heard(index, i%2 == 0, now) {
					f.muted[index] = struct{}{}
				}
			}
		}
	}
	if read[1] > 11*heardMost || read[-1] < 9 {
		t.Errorf("%d messages were heard about the busy link, which was looked at %d times", read[1], read[-1])
	}
	if read[2] != 500 {
		t.Errorf("%d messages of 500 were heard about the calm link", read[2])
	}
	// One container may be on any number of networks.
	all := 0
	for i := range 100_000 {
		if index := 10 + i%200; !has(Hint{Links: f.muted}, index) {
			all++
			if f.heard(index, false, start.Add(time.Minute)) {
				f.muted[index] = struct{}{}
			}
		}
	}
	if all > idleMost+few*200 {
		t.Errorf("%d messages were heard about 200 busy links", all)
	}
	if f.heard(1, true, start.Add(time.Minute)) {
		t.Error("a link that says something new is muted at once")
	}
	for index := range 2 * mutedMost {
		for range few {
			if f.heard(1000+index, false, start.Add(time.Minute)) {
				f.muted[1000+index] = struct{}{}
			}
		}
	}
	if len(f.muted) != mutedMost {
		t.Errorf("%d links are muted, at most %d are to be", len(f.muted), mutedMost)
	}
	if f.take(start.Add(time.Hour)); len(f.muted) != 0 || !f.due().IsZero() {
		t.Errorf("after all: %d muted, due %v", len(f.muted), f.due())
	}
}

// noisy is a port whose container makes noise.
type noisy struct {
	*host
	port, other *netlink.Veth
	container   *container
	peer        netlink.Link
	mtu         int
}

func newNoisy(t *testing.T) *noisy {
	n := &noisy{host: newHost(t), mtu: 1400}
	n.watch()
	br := n.bridge("br-x")
	n.container = n.host.container()
	n.port, n.peer = n.container.join("veth1", br, mac(1))
	n.awaitPort("the port", "veth1", pinnedTo(mac(1)))
	n.other, _ = n.host.container().join("veth2", br, mac(2))
	n.awaitPort("the other", "veth2", pinnedTo(mac(2)))
	return n
}

func (n *noisy) flap(times int) {
	n.Helper()
	for range times {
		must(n, n.container.LinkSetDown(n.peer))
		must(n, n.container.LinkSetUp(n.peer))
	}
}

func (n *noisy) flapUntil(what string, ok func() bool) {
	n.Helper()
	for late := time.Now().Add(20 * time.Second); !ok(); n.flap(5) {
		if time.Now().After(late) {
			n.Fatal("never seen: " + what)
		}
	}
}

// settled waits until the kernel's messages so far were read.
func (n *noisy) settled() {
	n.Helper()
	n.mtu--
	must(n, netlink.LinkSetMTU(n.other, n.mtu))
	n.awaitPort("the marker", "veth2", func(p Port) bool { return p.MTU == n.mtu })
}

// until has the window last as long as the test likes, and tells whether the link is
// muted.
func (n *noisy) until(muted bool) bool {
	n.table.refresh.Lock()
	defer n.table.refresh.Unlock()
	f := &n.table.flood
	if muted {
		f.muted[n.port.Index] = struct{}{}
		for i := range mutedMost - 1 { // the filter has room for these
			f.muted[1_000_000+i] = struct{}{}
		}
		if !n.table.listen() {
			n.Fatal("the filter is refused")
		}
		clear(n.table.pace.rooms) // which is not what this is about
	}
	_, muted = f.muted[n.port.Index]
	if muted {
		f.end = time.Now().Add(time.Hour)
	}
	return muted
}

// over ends the window.
func (n *noisy) over() {
	n.Helper()
	n.table.refresh.Lock()
	n.table.flood.end = time.Now()
	n.table.refresh.Unlock()
	n.settled()
}

// read is how many messages about the port were read in this window.
func (n *noisy) read() int {
	n.table.refresh.Lock()
	defer n.table.refresh.Unlock()
	return n.table.flood.counts[n.port.Index]
}

// TestFlood: beyond some, the kernel keeps what it says of a link to itself.
func TestFlood(t *testing.T) {
	h := newNoisy(t)
	h.flapUntil("the link is muted", func() bool { return h.until(false) })
	h.settled()
	h.table.TakeHint()
	before := h.read()
	h.flap(200)
	h.settled()
	if n := h.read(); n != before || n < heardMost {
		t.Errorf("%d messages were read before the link was muted, and %d then", before, n-before)
	}
	h.over()
	h.settled()
	if hint := h.table.TakeHint(); has(hint, h.port.Index) {
		t.Error("the port that flapped, and is as it was, is in the hint")
	}
	h.flapUntil("something is heard of the link again", func() bool { return h.read() > 0 })
}

// TestFloodHidesNothing: what happens to a port while it is muted is found.
func TestFloodHidesNothing(t *testing.T) {
	h := newNoisy(t)
	v, b := h.port, h.bridge("br-y")
	root := netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: v.Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT})
	for _, s := range []struct {
		what string
		do   func() error
		now  bool // it is heard at once
	}{
		{what: "a port setting", do: func() error { return netlink.LinkSetLearning(v, false) }},
		{what: "the MTU", do: func() error { return netlink.LinkSetMTU(v, 1300) }},
		{what: "the name", do: func() error { return netlink.LinkSetName(v, "blue") }},
		{what: "the bridge", do: func() error { return netlink.LinkSetMaster(v, b) }, now: true},
		{what: "no bridge", do: func() error { return netlink.LinkSetNoMaster(v) }, now: true},
		{what: "a qdisc added", do: func() error { return netlink.QdiscAdd(root) }, now: true},
		{what: "a qdisc deleted", do: func() error { return netlink.QdiscDel(root) }, now: true},
	} {
		h.until(true)
		h.settled()
		h.table.TakeHint()
		must(t, s.do())
		h.settled()
		if found := has(h.table.TakeHint(), v.Index); found != s.now {
			t.Errorf("%s, while the link is muted: found at once is %t", s.what, found)
		}
		h.over()
		if !s.now {
			h.await(s.what, func() bool { return has(h.table.TakeHint(), v.Index) })
		}
	}
	h.until(true)
	if _, ok := h.find("blue"); ok {
		t.Error("the port is still there")
	}
	must(t, netlink.LinkDel(v))
	h.await("the veth deleted", func() bool { return has(h.table.TakeHint(), v.Index) })
	h.table.refresh.Lock()
	defer h.table.refresh.Unlock()
	if _, muted := h.table.flood.muted[v.Index]; muted {
		t.Error("a link that is gone is still muted")
	}
}

// TestFloodWithoutRoom: a kernel that has no room for all links mutes some.
func TestFloodWithoutRoom(t *testing.T) {
	h := newNoisy(t)
	const room = "/proc/sys/net/core/optmem_max"
	if _, err := os.Stat(room); errors.Is(err, os.ErrNotExist) {
		t.Skip("before Linux 6.9 it is the whole machine's: " + room)
	}
	must(t, os.WriteFile(room, []byte("4096"), 0o644))
	h.table.refresh.Lock()
	f := &h.table.flood
	f.end = time.Now().Add(time.Hour)
	for i := 0; f.most == mutedMost && i < mutedMost; i++ {
		h.table.mute(1_000_000 + i)
	}
	if len(f.muted) != f.most || f.most == 0 || f.most == mutedMost {
		t.Errorf("%d links are muted, with room for %d", len(f.muted), f.most)
	}
	clear(f.muted)
	f.most = 1
	h.table.mute(h.port.Index)
	h.table.refresh.Unlock()
	h.settled()
	before := h.read()
	h.flap(20)
	h.settled()
	if n := h.read(); n != before {
		t.Errorf("%d messages were read about a link that is muted", n-before)
	}
}
