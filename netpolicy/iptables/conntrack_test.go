package iptables

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
)

// stopped waits until nothing has come on a stream for a while, and gives how
// long after since the last came.
func (s *stream) stopped(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	await(t, 5*time.Second, s.name+" stops", func() bool { return s.quiet(500 * time.Millisecond) })
	return time.Unix(0, s.last.Load()).Sub(since)
}

func cut(t *testing.T, d *Driver, keep func(Flow) bool) CutReport {
	t.Helper()
	r, err := d.Cut(context.Background(), true, keep)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// allStreams opens streams of all kinds from a node.
func allStreams(t *testing.T, from *node, port uint16, to ...*node) []*stream {
	t.Helper()
	var all []*stream
	for i := range familyNames {
		for _, network := range []string{"tcp", "udp"} {
			for _, n := range to {
				all = append(all, newStream(t, from, network, netip.AddrPortFrom(n.addrs[i], port)))
			}
		}
	}
	return all
}

func TestCut(t *testing.T) {
	forLabs(t, "stops_what_is_denied_and_nothing_else", func(t *testing.T, l *lab) {
		d := open(t)
		for _, port := range []uint16{80, 90} {
			serve(t, l.b, port)
			serve(t, l.c, port)
			serve(t, nil, port)
		}
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		before := policy("a", []*node{l.a}, []*node{l.b, l.c}, 80, 90)
		apply(t, d, before.wish())
		denied := allStreams(t, l.a, 90, l.b, l.c) // on the bridge, and routed
		kept := allStreams(t, l.a, 80, l.b, l.c)
		after := policy("b", []*node{l.a}, []*node{l.b, l.c}, 80)
		apply(t, d, after.wish())
		var flows []Flow
		start := time.Now()
		r := cut(t, d, func(f Flow) bool {
			flows = append(flows, f)
			return after.allows(f)
		})
		if r.Cut != len(denied) || r.Seen < len(denied)+len(kept) {
			t.Errorf("report = %+v for %d streams: %v", r, len(denied), flows)
		}
		allStop(t, denied, start)
		allGoOn(t, kept)
		if again := cut(t, d, after.allows); again.Cut != 0 {
			t.Errorf("the second time: %+v", again)
		}
		// Allowed again, the next connection works at once, and nothing is left of
		// the notes.
		apply(t, d, before.wish())
		if r := cut(t, d, before.allows); r.Allowed != len(denied) {
			t.Errorf("report = %+v", r)
		}
		for i := range familyNames {
			for _, network := range []string{"tcp", "udp"} {
				if !reaches(t, l.a, network, netip.AddrPortFrom(l.b.addrs[i], 90), true) {
					t.Errorf("%s %s is still denied", familyNames[i], network)
				}
			}
		}
		inSync(t, d)
	})
	forLabs(t, "stops_the_hosts_own_connections", func(t *testing.T, l *lab) {
		d := open(t)
		serve(t, l.c, 90)
		serve(t, nil, 90)
		apply(t, d, Wish{Rules: small{generation: "a"}.rules(), Containers: l.c.addrs[:]})
		toHost := &node{addrs: l.c.gateways}
		streams := append(allStreams(t, nil, 90, l.c), allStreams(t, l.c, 90, toHost)...)
		s := policy("b", nil, []*node{l.c})
		s.closed = l.c.addrs[:]
		apply(t, d, s.wish())
		start := time.Now()
		if r := cut(t, d, s.allows); r.Cut != len(streams) {
			t.Errorf("report = %+v", r)
		}
		allStop(t, streams, start)
	})
	forLabs(t, "sees_through_translation", func(t *testing.T, l *lab) {
		d := open(t)
		serve(t, l.b, 80)
		serve(t, l.c, 80)
		apply(t, d, policy("a", []*node{l.a, l.c}, []*node{l.b, l.c}, 80).wish())
		ipt := cmdOf(d, false)
		for _, network := range []string{"tcp", "udp"} {
			run(t, ipt, "-t", "nat", "-A", "PREROUTING", "-p", network, "-d", "10.77.1.254", "--dport", "8080", "-j", "DNAT", "--to", "10.77.0.2:80")
		}
		// As a container reaches the world.
		run(t, ipt, "-t", "nat", "-A", "POSTROUTING", "-s", "10.77.0.1", "-o", "br1", "-j", "MASQUERADE")
		published := netip.MustParseAddrPort("10.77.1.254:8080")
		streams := []*stream{newStream(t, l.c, "tcp", published), newStream(t, l.c, "udp", published),
			newStream(t, l.a, "tcp", netip.AddrPortFrom(l.c.addrs[0], 80)), newStream(t, l.a, "udp", netip.AddrPortFrom(l.c.addrs[0], 80))}
		s := policy("b", nil, []*node{l.b, l.c})
		apply(t, d, s.wish())
		seen := map[string]bool{}
		start := time.Now()
		cut(t, d, func(f Flow) bool {
			seen[fmt.Sprintf("%s %s to %s by %s", f.Proto, f.Src.Addr(), f.Dst, f.Dialled)] = true
			return s.allows(f)
		})
		for _, want := range []string{
			"tcp 10.77.1.3 to 10.77.0.2:80 by 10.77.1.254:8080", "udp 10.77.1.3 to 10.77.0.2:80 by 10.77.1.254:8080",
			"tcp 10.77.0.1 to 10.77.1.3:80 by 10.77.1.3:80", "udp 10.77.0.1 to 10.77.1.3:80 by 10.77.1.3:80"} {
			if !seen[want] {
				t.Errorf("%s is not among %v", want, seen)
			}
		}
		allStop(t, streams, start)
	})
	forLabs(t, "refuses_the_server_for_as_long_as_it_goes_on", func(t *testing.T, l *lab) {
		d, err := Open(context.Background(), Options{CutFor: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		serve(t, l.c, 90)
		apply(t, d, policy("a", []*node{l.a}, []*node{l.c}, 90).wish())
		s := newStream(t, l.a, "udp", netip.AddrPortFrom(l.c.addrs[0], 90))
		start := time.Now()
		after := policy("a", nil, []*node{l.c}, 90)
		apply(t, d, after.wish())
		cut(t, d, after.allows)
		notes := func() int {
			list, err := d.sets.members("ng4-cut")
			if err != nil {
				t.Fatal(err)
			}
			return len(list)
		}
		await(t, 10*time.Second, "the note outlives its time", func() bool { return time.Since(start) > 4*time.Second })
		if notes() != 1 {
			t.Error("the note is gone while the server goes on")
		}
		if late := s.stopped(t, start); late > time.Second {
			t.Errorf("it went on for %s", late)
		}
	})
	forLabs(t, "hits_no_connection_that_the_server_opens", func(t *testing.T, l *lab) {
		d := open(t)
		serve(t, l.a, 80)
		serve(t, l.c, 90)
		apply(t, d, policy("a", []*node{l.a}, []*node{l.c}, 90).wish())
		newStream(t, l.a, "tcp", netip.AddrPortFrom(l.c.addrs[0], 90))
		after := policy("a", nil, []*node{l.c}, 90)
		apply(t, d, after.wish())
		if r := cut(t, d, after.allows); r.Cut != 1 {
			t.Fatalf("report = %+v", r)
		}
		// From the very port that was served, to the client that was cut.
		dialer := net.Dialer{Timeout: patience * 4, LocalAddr: &net.TCPAddr{IP: net.IP(l.c.addrs[0].AsSlice()), Port: 91},
			Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			}}
		run(t, "ipset", "add", "ng4-cut", "10.77.0.1,tcp:91,10.77.1.3")
		l.c.do(func() {
			c, err := dialer.Dial("tcp", netip.AddrPortFrom(l.a.addrs[0], 80).String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(4 * patience)); err != nil {
				t.Error(err)
			}
			if _, err := c.Write([]byte{1}); err != nil {
				t.Error(err)
			}
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Errorf("read: %v", err)
			}
		})
	})
	forLabs(t, "forgets_addresses_that_are_given_back", func(t *testing.T, l *lab) {
		d := open(t)
		s := policy("a", []*node{l.a}, []*node{l.b, l.c}, 80)
		apply(t, d, s.wish())
		run(t, "ipset", "add", "ng4-cut", "10.77.0.1,udp:80,10.77.0.2")
		run(t, "ipset", "add", "ng4-cut", "10.77.0.1,udp:80,10.77.1.3")
		run(t, "ipset", "add", "ng6-cut", "2001:db8:77::2,tcp:80,2001:db8:77::1")
		s = policy("a", []*node{l.a}, []*node{l.c}, 80)
		if r := apply(t, d, s.wish()); r.Forks != 0 {
			t.Errorf("report = %+v", r)
		}
		left := run(t, "ipset", "save", "ng4-cut") + run(t, "ipset", "save", "ng6-cut")
		if strings.Contains(left, "10.77.0.2") || strings.Contains(left, "2001:db8:77::2") || !strings.Contains(left, "add ng4-cut 10.77.0.1,udp:80,10.77.1.3") {
			t.Errorf("left:\n%s", left)
		}
	})
	t.Run("deletes_all_even_if_it_can_note_no_more", func(t *testing.T) {
		l := newLab(t, NFT)
		run(t, "ipset", "create", "ng4-cut", "hash:ip,port,ip", "maxelem", "64", "hashsize", "64", "timeout", "600")
		d := open(t)
		s := policy("a", nil, []*node{l.c}, 80)
		apply(t, d, s.wish())
		c := connections(t)
		const n = 1000
		for i := range n {
			f := conntrack.NewFlow(17, 0, l.a.addrs[0], l.c.addrs[0], uint16(2000+i), uint16(3000+i), 300, 0)
			if err := c.Create(f); err != nil {
				t.Fatal(err)
			}
		}
		before := s.wish()
		before.Containers = append(before.Containers, l.a.addrs[0])
		apply(t, d, before)
		r, err := d.Cut(context.Background(), true, s.allows)
		if !errors.Is(err, ErrSetFull) || r.Cut != n {
			t.Errorf("report = %+v, error = %v", r, err)
		}
		if flows, err := c.Dump(nil); err != nil || len(flows) > 10 {
			t.Errorf("%d connections are left (%v)", len(flows), err)
		}
	})
	t.Run("judges_what_belongs_to_a_connection_by_that_one", func(t *testing.T) {
		l := newLab(t, NFT)
		d := open(t)
		s := policy("a", []*node{l.a}, []*node{l.b, l.c}, 21)
		apply(t, d, s.wish())
		c := connections(t)
		control := conntrack.NewFlow(6, 0, l.a.addrs[0], l.c.addrs[0], 4000, 21, 300, 0)
		data := conntrack.NewFlow(6, 0, l.a.addrs[0], l.c.addrs[0], 4001, 5000, 300, 0)
		data.TupleMaster = control.TupleOrig
		for _, f := range []conntrack.Flow{control, data} {
			if err := c.Create(f); err != nil {
				t.Fatal(err)
			}
		}
		if r := cut(t, d, s.allows); r.Cut != 0 || r.Seen != 2 {
			t.Errorf("report = %+v", r)
		}
		s = policy("a", nil, []*node{l.c}, 21)
		if r := cut(t, d, s.allows); r.Cut != 2 {
			t.Errorf("report = %+v", r)
		}
	})
	t.Run("stops_when_its_context_ends", func(t *testing.T) {
		l := newLab(t, NFT)
		d := open(t)
		serve(t, l.c, 80)
		apply(t, d, policy("a", []*node{l.a}, []*node{l.c}, 80).wish())
		newStream(t, l.a, "tcp", netip.AddrPortFrom(l.c.addrs[0], 80))
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		r, err := d.Cut(ctx, true, func(Flow) bool { return false })
		if !errors.Is(err, context.Canceled) || r.Cut != 0 {
			t.Errorf("report = %+v, error = %v", r, err)
		}
	})
}
