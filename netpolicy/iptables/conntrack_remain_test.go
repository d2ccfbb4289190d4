package iptables

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/ti-mo/conntrack"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TestCutRemains: a connection that the kernel refuses to delete keeps no other one.
func TestCutRemains(t *testing.T) {
	l := newLab(t, NFT)
	d := open(t)
	s := policy("a", nil, []*node{l.c}, 80)
	apply(t, d, s.wish())
	c, err := conntrack.Dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stuck, left := addr("10.77.0.9"), addr("10.77.0.8")
	for i, client := range []netip.Addr{stuck, left, l.a.addrs[0]} {
		if err := c.Create(conntrack.NewFlow(17, 0, client, l.c.addrs[0], 4000, uint16(5000+i), 300, 0)); err != nil {
			t.Fatal(err)
		}
	}
	list := func() map[netip.Addr]entry {
		all := map[netip.Addr]entry{}
		err := d.sets.dump(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_GET, netfilterHeader(unix.AF_INET), func() {}, func(m []byte) bool {
			if e, ok := parseEntry(m); ok && e.orig.dst == l.c.addrs[0] {
				all[e.orig.src] = e.kept()
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	found := list()
	if len(found) != 3 {
		t.Fatalf("connections: %v", found)
	}
	refused := found[stuck]
	refused.origRaw = nil // the kernel does not take that
	d.listing = &listing{old: map[netip.Addr]bool{stuck: true, left: true}, wake: func() {}, chunks: make(chan []entry, 3), gone: map[netip.Addr]bool{}}
	for _, e := range []entry{refused, found[left], found[l.a.addrs[0]]} {
		d.listing.chunks <- []entry{e}
	}
	close(d.listing.chunks)
	for {
		r, done, err := d.Next(s.allows)
		if !done {
			continue
		}
		remain, partly := errors.AsType[*RemainError](err)
		if !partly || !remain.Addrs[stuck] || remain.Addrs[left] || r.Ended != 1 || r.Cut != 1 {
			t.Errorf("report = %+v, error = %v", r, err)
		}
		break
	}
	if now := list(); len(now) != 1 || !now[stuck].orig.src.IsValid() {
		t.Errorf("connections: %v", now)
	}
	if r := cut(t, d, s.allows); r.Cut != 1 || len(list()) > 0 { // it is tried again
		t.Errorf("report = %+v; connections: %v", r, list())
	}
}
