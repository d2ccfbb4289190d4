package link

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func addrsOf(p Port) (out []string) {
	for _, a := range p.LinkLocals {
		out = append(out, a.Addr.String())
	}
	return out
}

// TestLinkLocals: a port's peer has link-local addresses, which the table knows at once, and
// no more than some.
func TestLinkLocals(t *testing.T) {
	h := newHost(t)
	if h.table.locals.ask == nil {
		t.Skip("the kernel does not tell of addresses in other namespaces (Linux 4.20)")
	}
	h.watch()
	c := h.container()
	v := h.veth("veth1", h.bridge("br-x"))
	peer := c.take(v)
	must(t, c.LinkSetHardwareAddr(peer, mac(7)))
	must(t, c.LinkSetUp(peer))
	if p := h.awaitPort("the final MAC", "veth1", pinnedTo(mac(7))); len(p.LinkLocals) > 0 {
		t.Errorf("the address that is made of the MAC is one: %v", p.LinkLocals)
	}
	addr := func(text string) *netlink.Addr {
		a, err := netlink.ParseAddr(text)
		must(t, err)
		a.Flags = unix.IFA_F_NODAD
		return a
	}
	must(t, c.AddrAdd(peer, addr("fe80::9/64")))
	h.awaitPort("one more", "veth1", func(p Port) bool { return slices.Contains(addrsOf(p), "fe80::9") })
	for i := range 10 {
		must(t, c.AddrAdd(peer, addr(fmt.Sprintf("fe80::1:%d/64", i))))
	}
	// None of these is a link-local one of the link.
	for _, other := range []string{"fd00::7/64", "fe80:0:0:1::7/64", "fe80::/64", "169.254.1.1/16"} {
		_ = c.AddrAdd(peer, addr(other))
	}
	p := h.awaitPort("as many as there may be", "veth1", func(p Port) bool { return len(p.LinkLocals) == MaxLinkLocals })
	if !slices.Contains(addrsOf(p), "fe80::9") {
		t.Errorf("what was there first is not: %v", addrsOf(p))
	}
	must(t, c.AddrDel(peer, addr("fe80::9/64")))
	p = h.awaitPort("without the one that is gone", "veth1", func(p Port) bool { return !slices.Contains(addrsOf(p), "fe80::9") })
	for _, a := range p.LinkLocals {
		if !netip.MustParsePrefix("fe80::/64").Contains(a.Addr) {
			t.Errorf("%s is among them", a.Addr)
		}
	}
	must(t, netlink.LinkDel(v))
	h.await("the port to go", func() bool {
		_, there := h.find("veth1")
		return !there
	})
	h.table.refresh.Lock()
	defer h.table.refresh.Unlock()
	if l := &h.table.locals; len(l.paces)+len(l.due) > 0 {
		t.Errorf("kept of a port that is gone: %v, %v", l.paces, l.due)
	}
}

// TestLocalsRest: if waiting for messages fails for good, all ports are asked, and there is a
// rest before the next try.
func TestLocalsRest(t *testing.T) {
	events, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV6_IFADDR)
	must(t, err)
	defer events.Close()
	table := &Table{locals: locals{events: events, news: true}}
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	// poll gives EINVAL for more files than the limit.
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: was.Max}))
	rest := table.hearLocals(events.GetFd())
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
	if rest < localsRest || !table.locals.all {
		t.Errorf("the rest is %v, and all are asked: %t", rest, table.locals.all)
	}
}
