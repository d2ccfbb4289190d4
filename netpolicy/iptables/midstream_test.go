package iptables

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// Connections within a bridge are none that the kernel keeps account of, until
// the bridge hands its frames over: then it sees them from the middle on, and
// from whichever side sends first.
func TestMidstream(t *testing.T) {
	forLabs(t, "a_connection_that_was_there_before", func(t *testing.T, l *lab) {
		d := open(t)
		var denied, kept []*stream
		for _, port := range []uint16{80, 90, 50090} {
			serve(t, l.b, port)
			for i := range familyNames {
				s := newStream(t, l.a, "tcp", netip.AddrPortFrom(l.b.addrs[i], port))
				if port == 80 {
					kept = append(kept, s)
				} else {
					denied = append(denied, s)
				}
			}
		}
		// The client is closed too: b may not open anything to it.
		s := policy("a", []*node{l.a}, []*node{l.a, l.b}, 80)
		apply(t, d, s.wish())
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		cut(t, d, s.allows)
		allStop(t, denied, start)
		allGoOn(t, kept)
	})
	forLabs(t, "an_open_client_does_not_let_the_server_open_it_again", func(t *testing.T, l *lab) {
		d := open(t)
		serve(t, l.b, 90)
		serve(t, l.b, 50090)
		var denied []*stream
		for i := range familyNames {
			denied = append(denied, newStream(t, l.a, "tcp", netip.AddrPortFrom(l.b.addrs[i], 90)),
				newStream(t, l.a, "tcp", netip.AddrPortFrom(l.b.addrs[i], 50090)))
		}
		s := policy("a", nil, []*node{l.b}, 80)
		apply(t, d, s.wish())
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		allStop(t, denied, start)
	})
	forLabs(t, "one_that_was_picked_up_from_the_wrong_side_is_known_by_its_ports", func(t *testing.T, l *lab) {
		d := open(t)
		serve(t, l.b, 90)
		serve(t, l.b, 80)
		apply(t, d, policy("a", nil, nil).wish()) // all is open
		denied := newStream(t, l.a, "tcp", netip.AddrPortFrom(l.b.addrs[0], 90))
		kept := newStream(t, l.a, "tcp", netip.AddrPortFrom(l.b.addrs[0], 80))
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		entries := func() (n int) {
			c, err := dial(unix.NETLINK_NETFILTER, &d.wrote)
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			err = c.dump(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_GET, netfilterHeader(unix.AF_INET), func() { n = 0 }, func(m []byte) bool {
				if e, ok := parseEntry(m); ok && e.midstream {
					n++
				}
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		await(t, 5*time.Second, "both are seen", func() bool { return entries() == 2 })
		s := policy("b", []*node{l.a}, []*node{l.a, l.b}, 80)
		apply(t, d, s.wish())
		start := time.Now()
		cut(t, d, s.allows)
		if late := denied.stopped(t, start); late > time.Second {
			t.Errorf("it went on for %s", late)
		}
		if kept.quiet(300 * time.Millisecond) {
			t.Error("what is allowed stopped too")
		}
	})
	forLabs(t, "an_answer_of_UDP_that_was_seen_first_does_not_let_the_client_go_on", func(t *testing.T, l *lab) {
		d := open(t)
		s := policy("a", nil, []*node{l.b}, 80)
		apply(t, d, s.wish())
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		passes := func(from, to *net.UDPConn) bool { return arrives(t, from, to) }
		client, server := udpSocket(t, l.a, 50000), udpSocket(t, l.b, 90)
		if passes(client, server) {
			t.Fatal("it is not denied")
		}
		if !passes(server, client) || !passes(client, server) {
			t.Fatal("an answer does not let the client go on in the first place")
		}
		// What a server may open from such ports goes on.
		peer, other := udpSocket(t, l.c, 50000), udpSocket(t, l.c, 90)
		if !passes(other, client) || !passes(client, other) || !passes(server, peer) {
			t.Fatal("what is allowed does not pass")
		}
		if r := cut(t, d, s.allows); r.Cut != 0 {
			t.Errorf("%d connections were cut", r.Cut)
		}
		if passes(client, server) {
			t.Error("the client goes on")
		}
		if !passes(other, client) || !passes(client, other) || !passes(server, peer) {
			t.Error("what is allowed stopped")
		}
	})
	forLabs(t, "a_late_answer_of_UDP_does_not_let_the_client_go_on", func(t *testing.T, l *lab) {
		d := open(t)
		s := policy("a", nil, []*node{l.b}, 80)
		apply(t, d, s.wish())
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		client, server := udpSocket(t, l.a, 50000), udpSocket(t, l.b, 90)
		list := func(all bool) CutReport {
			t.Helper()
			r, err := d.Cut(t.Context(), all, s.allows)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		// answer has an answer come after a list, and another list find what that entered.
		answer := func() CutReport {
			t.Helper()
			if !arrives(t, server, client) || !arrives(t, client, server) {
				t.Fatal("an answer does not let the client go on in the first place")
			}
			r := list(false)
			if arrives(t, client, server) {
				t.Error("the client goes on")
			}
			return r
		}
		// rest has an answer come after each list that follows. A server that opened it itself goes
		// on, and no list refuses it again.
		rest := func() {
			t.Helper()
			for n := 2; answer().Again; n++ {
				if n > answerLists {
					t.Fatal("the lists have no end")
				}
			}
		}
		if r := list(false); !r.Again {
			t.Error("no list follows after the bridge began")
		}
		if r := answer(); !r.Again {
			t.Fatal("no list follows")
		}
		if arrives(t, server, client) || arrives(t, client, server) {
			t.Error("the answers that are on their way enter it again")
		}
		if r := list(false); !r.Again {
			t.Fatal("no list follows")
		}
		rest()
		if r := list(true); r.Again {
			t.Error("a list without an answer asks for another one")
		}
	})
	forLabs(t, "an_answer_of_UDP_that_was_seen_first_does_not_end_what_the_client_may", func(t *testing.T, l *lab) {
		d := open(t)
		apply(t, d, policy("a", nil, nil).wish()) // all is open
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		client, server := udpSocket(t, l.a, 50000), udpSocket(t, l.b, 90)
		if !arrives(t, server, client) || !arrives(t, client, server) {
			t.Fatal("what is open does not pass")
		}
		s := policy("b", nil, nil)
		s.closed = l.b.addrs[:] // the server may only answer
		apply(t, d, s.wish())
		cut(t, d, s.allows)
		if !arrives(t, client, server) || !arrives(t, server, client) {
			t.Error("what is allowed stopped")
		}
		peer := udpSocket(t, l.a, 50001)
		if arrives(t, server, peer) {
			t.Error("the server may open a connection")
		}
	})
	forLabs(t, "a_neighbour_enters_one_from_the_middle_only_when_the_bridge_begins", func(t *testing.T, l *lab) {
		d := open(t)
		// a may send nothing, and b may open what it likes to a.
		s := policy("a", nil, nil)
		s.closed = l.a.addrs[:]
		apply(t, d, s.wish())
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		packet := func(port uint16) []byte {
			return tcpPacket(netip.AddrPortFrom(l.a.addrs[0], port), netip.AddrPortFrom(l.b.addrs[0], 50090), 0x10)
		}
		passes(t, l.a, l.b, "ip4:tcp", packet(1000))
		run(t, "ipset", "flush", beganSet(false).name) // as time does
		refused(t, d, l.a, l.b, "ip4:tcp", l.a.addrs[0], packet(1001))
		// Nobody makes it begin again.
		for range 2 {
			if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
				t.Fatal(err)
			}
		}
		refused(t, d, l.a, l.b, "ip4:tcp", l.a.addrs[0], packet(1002))
	})
	forLabs(t, "what_is_routed_is_judged_as_it_is", func(t *testing.T, l *lab) {
		d := open(t)
		s := policy("a", nil, nil)
		s.closed = l.a.addrs[:]
		apply(t, d, s.wish())
		if _, err := d.Bridges(map[string]bool{"br0": true, "br1": true}); err != nil {
			t.Fatal(err)
		}
		refused(t, d, l.a, l.c, "ip4:tcp", l.a.addrs[0],
			tcpPacket(netip.AddrPortFrom(l.a.addrs[0], 1000), netip.AddrPortFrom(l.c.addrs[0], 50090), 0x10))
		// What was entered so is what it looks like.
		e := entry{midstream: true, orig: tuple{src: l.a.addrs[0], dst: l.c.addrs[0], sport: 1000, dport: 50090},
			reply: tuple{src: l.c.addrs[0], dst: l.a.addrs[0], sport: 50090, dport: 1000}}
		if r := e.readings(neighboursOf(labHomes).bridged(e)); len(r) != 1 || r[0].orig.src != l.a.addrs[0] {
			t.Errorf("it may be %+v", r)
		}
	})
	forLabs(t, "nobody_opens_one_from_the_middle", func(t *testing.T, l *lab) {
		d := open(t)
		serve(t, l.b, 50090)
		// b may open whatever it likes to c, and c nothing to b.
		apply(t, d, policy("a", nil, []*node{l.b}, 80).wish())
		from, to := netip.AddrPortFrom(l.c.addrs[0], 90), netip.AddrPortFrom(l.b.addrs[0], 50090)
		refused(t, d, l.c, l.b, "ip4:tcp", l.b.addrs[0], tcpPacket(from, to, 0x10)) // ACK
		l.c.do(func() {
			dialer := net.Dialer{Timeout: 2 * patience, LocalAddr: net.TCPAddrFromAddrPort(from)}
			if c, err := dialer.Dial("tcp", to.String()); err == nil {
				c.Close()
				t.Error("c opened a connection")
			}
		})
	})
}

// capture counts the packets of a protocol that reach a node.
func capture(t *testing.T, n *node, network string) *atomic.Int64 {
	t.Helper()
	var count atomic.Int64
	n.do(func() {
		c, err := net.ListenIP(network, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			for b := make([]byte, 100); ; {
				if _, _, err := c.ReadFromIP(b); err != nil {
					return
				}
				count.Add(1)
			}
		}()
	})
	return &count
}

// tcpPacket is a packet of TCP over IPv4 with these flags, and right checksums.
func tcpPacket(from, to netip.AddrPort, flags byte) []byte {
	b := packet(netpolicy.Packet{Src: from.Addr(), Dst: to.Addr(), Proto: netpolicy.TCP, Port: to.Port()}, from.Port())
	b[20+13] = flags
	sum := append(append([]byte{}, b[12:20]...), 0, unix.IPPROTO_TCP, 0, 20)
	binary.BigEndian.PutUint16(b[20+16:], checksum(append(sum, b[20:]...)))
	return b
}

func sendRaw(t *testing.T, b []byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: [4]byte(b[16:20])}); err != nil {
		t.Fatal(err)
	}
}

// udpSocket gives a socket on a port of a node.
func udpSocket(t *testing.T, n *node, port int) (c *net.UDPConn) {
	t.Helper()
	on(n, func() {
		var err error
		if c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: n.addrs[0].AsSlice(), Port: port}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	})
	return c
}

// arrives sends a datagram and tells whether it arrives.
func arrives(t *testing.T, from, to *net.UDPConn) bool {
	t.Helper()
	if _, err := from.WriteTo([]byte{1}, to.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if err := to.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, _, err := to.ReadFrom(make([]byte, 1))
	return err == nil
}
