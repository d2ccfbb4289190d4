package iptables

import (
	"errors"
	"net/netip"
	"strings"
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
	c := connections(t)
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

// TestForgetInTheEnd: notes about an address go even if a part of what was before stays.
func TestForgetInTheEnd(t *testing.T) {
	l := newLab(t, NFT)
	d := open(t)
	apply(t, d, policy("a", []*node{l.a}, []*node{l.b, l.c}, 80).wish())
	run(t, "ipset", "add", "ng4-cut", "10.77.0.1,udp:80,10.77.0.2")
	run(t, "ipset", "add", "ng4-cut", "10.77.0.1,udp:80,10.77.1.3")
	run(t, "iptables-nft", "-A", "DOCKER", "-j", "NG-F-aaaaaaaaaaaa")
	s := policy("b", []*node{l.a}, []*node{l.c}, 80)
	if r, err := d.Apply(t.Context(), s.wish()); err == nil || !r.InForce {
		t.Fatalf("in force: %t, error %v", r.InForce, err)
	}
	left := run(t, "ipset", "save", "ng4-cut")
	if strings.Contains(left, "10.77.0.2") || !strings.Contains(left, "10.77.1.3") {
		t.Errorf("left:\n%s", left)
	}
	// An earlier Apply may not have come so far.
	d.gone[l.c.addrs[0]] = true
	run(t, "iptables-nft", "-F", "DOCKER")
	apply(t, d, s.wish())
	if left := run(t, "ipset", "save", "ng4-cut"); strings.Contains(left, "10.77.1.3") {
		t.Errorf("left:\n%s", left)
	}
}
