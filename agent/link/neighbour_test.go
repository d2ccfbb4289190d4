package link

import (
	"maps"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// permanent adds a neighbour as netguard does, which says who it is.
func permanent(ip net.IP, dev netlink.Link) error {
	return exec.Command("ip", "neigh", "replace", ip.String(), "lladdr", mac(7).String(), "dev", dev.Attrs().Name, "nud", "permanent", "proto", "110").Run()
}

func TestMarksEntries(t *testing.T) {
	h := newHost(t)
	br := h.bridge("br-x")
	c := h.container()
	v, _ := c.join("veth1", br, mac(1))
	h.watch()
	h.awaitPort("the port", "veth1", pinnedTo(mac(1)))

	ip, ip6 := net.IPv4(198, 18, 0, 7), net.ParseIP("fd00::7")
	fdb := &netlink.Neigh{LinkIndex: v.Index, Family: unix.AF_BRIDGE, State: unix.NUD_NOARP, Flags: unix.NTF_MASTER, HardwareAddr: mac(7)}
	four := &netlink.Neigh{LinkIndex: br.Index, IP: ip}
	six := &netlink.Neigh{LinkIndex: br.Index, IP: ip6}
	entry := func(hint Hint) bool { _, ok := hint.MACs[MAC(mac(7))]; return ok }
	neighbour := func(addr string) func(Hint) bool {
		return func(hint Hint) bool {
			_, ok := hint.Neighbours[Neighbour{br.Index, netip.MustParseAddr(addr)}]
			return ok
		}
	}
	link := func(hint Hint) bool { return has(hint, br.Index) }
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 18, 0, 1), Mask: net.CIDRMask(24, 32)}}
	for _, s := range []struct {
		what string
		do   func() error
		said func(Hint) bool
	}{
		{"an address of a bridge added", func() error { return netlink.AddrAdd(br, addr) }, link},
		{"a static FDB entry added", func() error { return netlink.NeighSet(fdb) }, entry},
		{"a static FDB entry deleted", func() error { return netlink.NeighDel(fdb) }, entry},
		{"a neighbour added", func() error { return permanent(ip, br) }, neighbour("198.18.0.7")},
		{"a neighbour replaced by somebody", func() error {
			return netlink.NeighSet(&netlink.Neigh{LinkIndex: br.Index, State: unix.NUD_STALE, IP: ip, HardwareAddr: mac(8)})
		}, neighbour("198.18.0.7")},
		{"a neighbour deleted", func() error { return netlink.NeighDel(four) }, neighbour("198.18.0.7")},
		{"a neighbour of IPv6 added", func() error { return permanent(ip6, br) }, neighbour("fd00::7")},
		{"a neighbour of IPv6 deleted", func() error { return netlink.NeighDel(six) }, neighbour("fd00::7")},
		{"an address of a bridge deleted", func() error { return netlink.AddrDel(br, addr) }, link},
	} {
		h.table.TakeHint()
		must(t, s.do())
		h.await(s.what, func() bool { return s.said(h.table.TakeHint()) })
	}
}

// What containers and the host's own traffic can make many of is not heard.
func TestHearsNothingOfWhatIsLearned(t *testing.T) {
	h := newHost(t)
	br := h.bridge("br-x")
	c := h.container()
	v, _ := c.join("veth1", br, mac(1))
	other := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vxlan0"}, VxlanId: 1, Port: 4789}
	must(t, netlink.LinkAdd(other))
	must(t, netlink.LinkSetUp(other))
	h.watch()
	h.awaitPort("the port", "veth1", pinnedTo(mac(1)))
	h.table.TakeHint()
	all := Hint{}
	gather := func() bool {
		hint := h.table.TakeHint()
		all.Full = all.Full || hint.Full
		for m := range hint.MACs {
			all.addMAC(m)
		}
		for n := range hint.Neighbours {
			all.addNeighbour(n)
		}
		_, last := hint.MACs[MAC(mac(99))]
		return last
	}
	for i := range 2 * maxHint {
		must(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: v.Index, Family: unix.AF_BRIDGE, State: unix.NUD_REACHABLE, Flags: unix.NTF_MASTER, HardwareAddr: mac(1000 + i)}))
	}
	own := &netlink.Neigh{LinkIndex: br.Index, State: unix.NUD_REACHABLE, IP: net.IPv4(198, 18, 0, 9), HardwareAddr: mac(9)}
	must(t, netlink.NeighSet(own))
	must(t, netlink.NeighDel(own))
	must(t, permanent(net.IPv4(198, 18, 1, 9), other))
	must(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: v.Index, Family: unix.AF_BRIDGE, State: unix.NUD_NOARP, Flags: unix.NTF_MASTER, HardwareAddr: mac(99)}))
	h.await("the last one", gather)
	// Up to now the bridge may have told of the MACs of its own devices.
	maps.DeleteFunc(all.MACs, func(m MAC, _ struct{}) bool { return m == MAC(mac(99)) || [4]byte(m[:4]) != [4]byte(mac(0)[:4]) })
	if all.Full || len(all.MACs)+len(all.Neighbours) > 0 {
		t.Errorf("heard full = %t, MACs %x, neighbours %v", all.Full, slices.Collect(maps.Keys(all.MACs)), all.Neighbours)
	}
}
