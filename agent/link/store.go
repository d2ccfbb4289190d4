package link

import (
	"net"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// watched says whether the table is about a link.
func (t *Table) watched(l netlink.Link) bool {
	switch l.Type() {
	case "bridge", "ifb", "veth":
		return true
	}
	return l.Attrs().MasterIndex != 0 || t.known(l.Attrs().Index)
}

// store puts what the kernel says of a link in the table, if it is watched.
func (t *Table) store(l netlink.Link) {
	a := l.Attrs()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch l.Type() {
	case "bridge":
		if t.bridges[a.Index] != a.Name {
			t.touchAll()
		}
		t.bridges[a.Index] = a.Name
		return
	case "ifb":
		t.ifbs[a.Index] = struct{}{}
		return
	case "veth":
	default:
		t.storeDevice(l)
		return
	}
	t.touch(a.Index)
	v := t.veths[a.Index]
	if v == nil {
		t.seen++
		v = &Port{Index: a.Index, Seen: t.seen, Since: time.Now()}
		t.veths[a.Index] = v
		t.order = append(t.order, v)
	}
	v.Name, v.Master, v.MTU = a.Name, a.MasterIndex, a.MTU
	// The library's answer is a part of a buffer of 64 KB, which would stay in memory.
	v.MAC = slices.Clone(a.HardwareAddr)
	if v.PeerIndex != a.ParentIndex || v.NSID != a.NetNsID {
		v.LinkLocals = nil
	}
	v.PeerIndex, v.NSID = a.ParentIndex, a.NetNsID
	v.Up = a.Flags&net.FlagUp != 0 && a.OperState == netlink.OperUp
	if v.NSID < 0 && v.PeerIndex != 0 && v.Master != 0 {
		t.peers[v.PeerIndex] = v.Index
	}
}

// standing tells what is known of a link.
func (t *Table) standing(index int) (known, veth, pinned bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, veth := t.veths[index]
	_, bridge := t.bridges[index]
	_, ifb := t.ifbs[index]
	_, device := t.devices[index]
	return veth || bridge || ifb || device, veth, veth && v.Pinned
}

func (t *Table) known(index int) bool {
	known, _, _ := t.standing(index)
	return known
}
