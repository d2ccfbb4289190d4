// Package link watches the bridges of one network namespace and the veths that
// are their ports, over rtnetlink.
//
// It promises: it never runs anything in a container, never enters a
// container's namespace and never dumps a forwarding database (a container can
// make that arbitrarily large). It observes; it decides nothing. What it says
// about a port is what the kernel said, up to date as of the last message; a
// lost message (ENOBUFS) leads to a complete re-list.
//
// What a container does to its own end wakes nobody, or only rarely, and costs little to
// read (see essence.go, pace.go and flood.go).
//
// # The MAC of a port's peer
//
// A container that holds NET_ADMIN may change the MAC of its own end at any time. So the
// table keeps ("pins") the first final MAC for as long as the port exists. The MAC is final
// when the peer is in another network namespace and is up. Docker 20.10 works in this order:
//
//   - It attaches the veth to the bridge. Both ends are still in the host's namespace and
//     have random MACs.
//   - It moves the container's end (a DELLINK of the peer).
//   - It gives this end its MAC and addresses.
//   - It sets this end up. The host sees that as the port's carrier.
//
// All of that happens before the container's first instruction (measured: moved 28 ms, up
// 28 ms before the start event; the same order is in libnetwork of every engine up to 29).
// Before the MAC is final, Port.PeerMAC is nil or provisional.
//
// If the reader comes late, a process in the container may have changed the MAC before. And
// the pin does not survive a restart of the reader. So a MAC is only a way to find the
// container. The proof is Port.NSID: the kernel assigns it, and no container can choose it.
// Compare it with NSIDOf of the container's sandbox.
package link

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer is asked for on the subscription, in bytes. One link
	// message takes about 2.5 KiB of it; 200 containers that start at once
	// make some 2,000.
	receiveBuffer = 8 << 20
	// requestTimeout bounds each request. The kernel answers in
	// microseconds unless somebody holds the RTNL lock.
	requestTimeout = 5 * time.Second
)

// Port is a veth that is a port of a bridge, as the host sees it.
type Port struct {
	Index      int
	Name       string
	MAC        net.HardwareAddr // of the host's end
	Master     int              // ifindex of the bridge
	MasterName string
	MTU        int // bytes
	PeerIndex  int // ifindex of the container's end, in its namespace
	// NSID is the id that this namespace gave to the peer's namespace, -1
	// while the peer is in this namespace.
	NSID int
	// PeerMAC is the MAC of the peer. If Pinned, it is the first MAC that was final; if not,
	// it may change. It is nil if it could not be read.
	PeerMAC net.HardwareAddr
	Pinned  bool
	// LinkLocals are the link-local addresses of IPv6 that the peer has, without the one
	// that is made of its MAC.
	LinkLocals []LinkLocal
	// Up says that both ends are up.
	Up bool
	// Seen numbers the links in the order in which they were first seen.
	Seen uint64
	// Since is when it was first seen.
	Since time.Time
}

// Same tells whether two ports are the same in all that is known of them.
func (p *Port) Same(o *Port) bool {
	return p == o || p.Index == o.Index && p.Seen == o.Seen && p.Name == o.Name && p.Master == o.Master && p.MasterName == o.MasterName &&
		p.MTU == o.MTU && p.PeerIndex == o.PeerIndex && p.NSID == o.NSID && p.Pinned == o.Pinned && p.Up == o.Up &&
		p.Since.Equal(o.Since) && slices.Equal(p.MAC, o.MAC) && slices.Equal(p.PeerMAC, o.PeerMAC) && slices.Equal(p.LinkLocals, o.LinkLocals)
}

// Table is the set of ports and bridges of one network namespace.
type Table struct {
	log    *slog.Logger
	events *nl.NetlinkSocket
	ask    *netlink.Handle
	raw    *nl.SocketHandle

	// refresh serialises reading the kernel and storing what it said, so
	// that an older answer never overwrites a newer one.
	refresh sync.Mutex
	// heard, pace, flood, locals, own and listing are guarded by it.
	heard   map[int]essence
	pace    pace
	flood   flood
	locals  locals
	own     []uint32 // sockets of this program; see Ignore
	listing bool     // all ports are being looked at

	mu      sync.Mutex // guards what follows
	veths   map[int]*Port
	order   []*Port      // the veths in the order in which they were first seen
	ports   []*Port      // the last snapshot
	stored  map[int]bool // veths that may differ from the last snapshot; nil: perhaps all
	peers   map[int]int  // ifindex of a peer while in this namespace -> port
	bridges map[int]string
	ifbs    map[int]struct{}
	devices map[int]Device
	hint    Hint
	seen    uint64
}

// New opens the table's sockets in the network namespace of the calling thread,
// and stays with that namespace. From here on nothing is missed; the table is
// filled by Watch. The caller closes it after Watch has returned.
func New(log *slog.Logger) (_ *Table, err error) {
	t := &Table{
		log:     log,
		veths:   map[int]*Port{},
		peers:   map[int]int{},
		bridges: map[int]string{},
		ifbs:    map[int]struct{}{},
		devices: map[int]Device{},
		heard:   map[int]essence{},
		pace:    pace{rooms: map[int]room{}, late: map[int]struct{}{}},
		flood:   newFlood(),
	}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	t.events, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_TC)
	if err != nil {
		return nil, fmt.Errorf("subscribe to links: %w", err)
	}
	if err := followNeighbours(t.events); err != nil {
		return nil, fmt.Errorf("subscribe to neighbours: %w", err)
	}
	// The forced size needs CAP_NET_ADMIN; what the sysctl rmem_max
	// allows must do otherwise.
	if err := t.events.SetReceiveBufferSize(receiveBuffer, true); err != nil {
		if err := t.events.SetReceiveBufferSize(receiveBuffer, false); err != nil {
			return nil, fmt.Errorf("enlarge netlink receive buffer: %w", err)
		}
	}
	t.ask, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if err := t.ask.SetSocketTimeout(requestTimeout); err != nil {
		return nil, fmt.Errorf("set netlink timeout: %w", err)
	}
	socket, err := openSocket()
	if err != nil {
		return nil, err
	}
	t.raw = &nl.SocketHandle{Socket: socket}
	t.openLocals()
	return t, nil
}

// List gives the ports of bridges as they are now, in the network namespace of the calling
// thread.
func List(ctx context.Context) ([]*Port, error) {
	t, err := New(slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if err := t.list(ctx); err != nil {
		return nil, err
	}
	return t.Snapshot(), nil
}

// Close closes the sockets.
func (t *Table) Close() {
	if t.events != nil {
		t.events.Close()
	}
	if t.ask != nil {
		t.ask.Close()
	}
	if t.raw != nil {
		t.raw.Close()
	}
	t.closeLocals()
}

// drop forgets a veth. The caller holds t.mu.
func (t *Table) drop(index int) {
	if v, ok := t.veths[index]; ok {
		delete(t.veths, index)
		t.order = slices.DeleteFunc(t.order, func(o *Port) bool { return o == v })
		t.touch(index)
		delete(t.locals.paces, index)
		delete(t.locals.due, index)
	}
}

// Seen returns the number of the link that was first seen last.
func (t *Table) Seen() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen
}

// Bridges returns the ifindex of each bridge by name. The caller owns it.
func (t *Table) Bridges() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := make(map[string]int, len(t.bridges))
	for index, name := range t.bridges {
		m[name] = index
	}
	return m
}

// View is what there is at bridges. Nobody may change it.
type View struct {
	Ports   []*Port  // see Snapshot
	Devices []Device // see Devices
	Bridges map[string]int
}

// Same tells whether two views have the same links.
func (v *View) Same(o *View) bool {
	return slices.Equal(v.Devices, o.Devices) && maps.Equal(v.Bridges, o.Bridges) && slices.Equal(v.Ports, o.Ports)
}

// Take takes the hint, and then gives what there is.
func (t *Table) Take() (Hint, View) {
	return t.TakeHint(), View{t.Snapshot(), t.Devices(), t.Bridges()}
}

// TakeHint returns what changed since the last call, and forgets it.
func (t *Table) TakeHint() Hint {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hint
	t.hint = Hint{}
	return h
}

// port returns a copy of v with its bridge's name; false when v is not a port
// of a bridge. What v points to is replaced and never changed, so the copy shares it.
// The caller holds t.mu.
func (t *Table) port(v *Port) (Port, bool) {
	name, ok := t.bridges[v.Master]
	if !ok {
		return Port{}, false
	}
	p := *v
	p.MasterName = name
	return p, true
}
