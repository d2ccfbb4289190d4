package iptables

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// passes sends a packet until it arrives.
func passes(t *testing.T, from, to *node, network string, b []byte) {
	t.Helper()
	seen := capture(t, to, network)
	await(t, 10*time.Second, "the packet arrives", func() bool {
		from.do(func() { sendRaw(t, b) })
		return seen.Load() > 0
	})
}

// refused sends a packet until one is counted as denied, and sees that none arrives.
func refused(t *testing.T, d *Driver, from, to *node, network string, blamed netip.Addr, b []byte) {
	t.Helper()
	seen := capture(t, to, network)
	count := func() uint64 {
		all, err := d.Denied()
		if err != nil {
			t.Fatal(err)
		}
		return all[blamed]
	}
	before := count()
	await(t, 10*time.Second, "the packet is counted", func() bool {
		from.do(func() { sendRaw(t, b) })
		return count() > before
	})
	if n := seen.Load(); n != 0 {
		t.Errorf("%d packets arrived", n)
	}
}

func udpPacket(from, to netip.Addr, port uint16) []byte {
	return packet(netpolicy.Packet{Src: from, Dst: to, Proto: netpolicy.UDP, Port: port}, 40000)
}

// unreachable is a message of ICMP that says so of a packet.
func unreachable(from, to netip.Addr, quoted []byte) []byte {
	b := packet(netpolicy.Packet{Src: from, Dst: to, Proto: netpolicy.ICMP, ICMPType: 3}, 0)
	b = append(b, quoted...)
	b[21] = 3 // port
	b[22], b[23] = 0, 0
	binary.BigEndian.PutUint16(b[22:], checksum(b[20:]))
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func TestHomes(t *testing.T) {
	forLabs(t, "an_address_counts_on_its_own_bridge", func(t *testing.T, l *lab) {
		sysctl(t, "net/ipv4/conf/all/rp_filter", "0")
		sysctl(t, "net/ipv4/conf/br1/rp_filter", "0")
		d := open(t)
		serve(t, l.b, 80)
		s := policy("a", []*node{l.a}, []*node{l.b}, 80)
		forged := udpPacket(l.a.addrs[0], l.b.addrs[0], 80)
		s.homes = nil
		apply(t, d, s.wish())
		passes(t, l.c, l.b, "ip4:udp", forged)
		s.homes = labHomes
		if r := apply(t, d, s.wish()); r.Forks != 0 {
			t.Errorf("report = %+v", r)
		}
		inSync(t, d)
		refused(t, d, l.c, l.b, "ip4:udp", l.b.addrs[0], forged)
		passes(t, l.a, l.b, "ip4:udp", forged)
	})
	forLabs(t, "nobody_reaches_an_address_of_another_bridge_past_it", func(t *testing.T, l *lab) {
		d := open(t)
		// b is on br1 as well, and its address there is closed.
		other := addr("10.77.1.2")
		l.b.do(func() { addAddress(t, "eth0", "10.77.1.2/32") })
		l.a.do(func() { run(t, "ip", "route", "add", "10.77.1.2", "via", l.b.addrs[0].String()) })
		s := policy("a", nil, nil)
		s.db = []netip.Addr{other, l.b.addrs[0]}
		s.web, s.ports = []netip.Addr{l.a.addrs[0]}, []netpolicy.PortRange{{First: 80, Last: 80}}
		apply(t, d, s.wish())
		if _, err := d.Bridges(map[string]bool{"br0": true}); err != nil {
			t.Fatal(err)
		}
		passes(t, l.a, l.b, "ip4:udp", udpPacket(l.a.addrs[0], other, 80))
		s.homes = append([]Home{{other, "br1"}}, labHomes...)
		apply(t, d, s.wish())
		refused(t, d, l.a, l.b, "ip4:udp", other, udpPacket(l.a.addrs[0], other, 80))
		passes(t, l.a, l.b, "ip4:udp", udpPacket(l.a.addrs[0], l.b.addrs[0], 80))
	})
	forBackends(t, "follow_containers", func(t *testing.T) {
		d := open(t)
		s := states()[0]
		s.homes = labHomes
		apply(t, d, s.wish())
		for _, homes := range [][]Home{labHomes[1:], nil, {{labHomes[0].Addr, "br9"}}, labHomes,
			append([]Home{{addr("fe80::1"), "br0"}, {addr("fe80::1"), "br1"}}, labHomes...)} {
			s.homes = homes
			if r := apply(t, d, s.wish()); r.Forks != 0 || r.Rules {
				t.Errorf("report = %+v", r)
			}
			inSync(t, d)
			if r := apply(t, open(t), s.wish()); r.Changed() {
				t.Errorf("another one did %+v", r)
			}
		}
		run(t, "ipset", "del", homesSet(false).name, "10.77.0.1,br0")
		if found, err := d.Glance(); err != nil || !found {
			t.Errorf("nothing is seen at a glance (%v)", err)
		}
		if drift, err := d.Verify(t.Context()); err != nil || len(drift.Changes) != 1 {
			t.Errorf("drift = %+v, %v", drift, err)
		}
		apply(t, d, s.wish())
		inSync(t, d)
	})
}

func TestErrorMessages(t *testing.T) {
	forLabs(t, "of_who_may_not_send_are_sent_by_him", func(t *testing.T, l *lab) {
		d := open(t)
		serve(t, l.b, 80)
		s := policy("a", nil, nil)
		apply(t, d, s.wish())
		stream := newStream(t, l.c, "udp", netip.AddrPortFrom(l.b.addrs[0], 80))
		client := stream.conn.LocalAddr().(*net.UDPAddr).AddrPort()
		quoted := packet(netpolicy.Packet{Src: client.Addr(), Dst: l.b.addrs[0], Proto: netpolicy.UDP, Port: 80}, client.Port())
		forged := unreachable(l.a.addrs[0], client.Addr(), quoted)
		passes(t, l.a, l.c, "ip4:icmp", forged)
		s.closed = []netip.Addr{l.a.addrs[0]}
		apply(t, d, s.wish())
		refused(t, d, l.a, l.c, "ip4:icmp", l.a.addrs[0], forged)
		// The far end's own, and a router's.
		passes(t, l.b, l.c, "ip4:icmp", unreachable(l.b.addrs[0], client.Addr(), quoted))
	})
}

func TestDiscovery(t *testing.T) {
	forLabs(t, "is_none_where_it_only_says_so", func(t *testing.T, l *lab) {
		d := open(t)
		s := policy("a", nil, nil)
		s.closed = l.a.addrs[:]
		apply(t, d, s.wish())
		seen := capture(t, l.c, "ip6:ipv6-icmp")
		before := seen.Load()
		send := func(typ byte, hops int) {
			l.a.do(func() {
				c, err := net.ListenIP("ip6:ipv6-icmp", &net.IPAddr{IP: l.a.addrs[1].AsSlice()})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				raw, err := c.SyscallConn()
				if err == nil {
					err = raw.Control(func(fd uintptr) {
						if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hops); err != nil {
							t.Error(err)
						}
					})
				}
				if err != nil {
					t.Fatal(err)
				}
				message := append([]byte{typ, 0, 0, 0}, make([]byte, 20)...)
				if _, err := c.WriteTo(message, &net.IPAddr{IP: l.c.addrs[1].AsSlice()}); err != nil {
					t.Fatal(err)
				}
			})
		}
		for _, typ := range []byte{130, 131, 132, 133, 134, 135, 136, 137, 143} {
			denied, err := d.Denied()
			if err != nil {
				t.Fatal(err)
			}
			await(t, 10*time.Second, "it is counted", func() bool {
				send(typ, 255)
				now, err := d.Denied()
				return err == nil && now[l.a.addrs[1]] > denied[l.a.addrs[1]]
			})
		}
		if n := seen.Load() - before; n != 0 {
			t.Errorf("%d messages arrived", n)
		}
		apply(t, d, policy("b", nil, nil).wish())
		await(t, 10*time.Second, "one that may be sent", func() bool { send(143, 255); return seen.Load() > before })
	})
}
