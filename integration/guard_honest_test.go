package integration

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"netguard/integration/attack"
)

// check is something that must go on working.
type check struct {
	name string
	try  func(t *testing.T) error
}

// honest is traffic of an attacker who is none, of its neighbours, and of the
// host. The sockets are opened once.
func honest(t *testing.T, s *stage) []check {
	t.Helper()
	a, v := s.attacker, s.victim
	var all []check
	add := func(name string, try func(t *testing.T) error) { all = append(all, check{name, try}) }
	for _, from := range []*actor{a, s.third} {
		for _, to := range []netip.Addr{v.IPv4, v.IPv6, v.MAC.LinkLocal().WithZone(strconv.Itoa(from.iface)), s.scene.Gateway.IPv4, s.scene.Gateway.IPv6} {
			p := newPing(t, from, to)
			add(fmt.Sprintf("ping_from_%s_to_%s", from.Name, to), p.try)
		}
		for name, to := range map[string]string{"neighbour": v.Addr("net", 80), "neighbour_by_IPv6": v.Addr6("net", 80)} {
			add("TCP_from_"+from.Name+"_to_its_"+name, func(*testing.T) error { return from.echo(to) })
		}
	}
	add("TCP_from_the_victim_to_its_own_published_port", func(*testing.T) error {
		return v.echo(netip.AddrPortFrom(s.scene.Gateway.IPv4, 8080).String())
	})
	add("TCP_from_the_host", func(*testing.T) error { return echoIn(s.e.Do, v.Addr("net", 80)) })
	add("TCP_from_the_host_by_IPv6", func(*testing.T) error { return echoIn(s.e.Do, v.Addr6("net", 80)) })
	all = append(all, newMulticast(t, a, v, "224.0.0.251"), newMulticast(t, a, v, "ff02::fb"))
	for name, frame := range map[string][]byte{
		"ARP_probe": attack.Ether(attack.Broadcast, a.MAC, attack.EtherARP,
			attack.ARP(attack.Request, a.MAC, attack.None4, attack.MAC{}, a.IPv4)),
		"gratuitous_ARP_for_itself": attack.Ether(attack.Broadcast, a.MAC, attack.EtherARP,
			attack.ARP(attack.Reply, a.MAC, a.IPv4, attack.Broadcast, a.IPv4)),
		"detection_of_duplicates": attack.Ether(attack.Group(attack.Solicited(a.IPv6)), a.MAC, attack.EtherIPv6,
			attack.IPv6(attack.None6, attack.Solicited(a.IPv6), 58,
				attack.ICMPv6(attack.None6, attack.Solicited(a.IPv6), 135, make([]byte, 4), a.IPv6.AsSlice()))),
	} {
		add(name, func(t *testing.T) error {
			if !a.delivers(t, v, frame) {
				return fmt.Errorf("did not arrive")
			}
			return nil
		})
	}
	return all
}

// stillHonest says which of the checks fail.
func stillHonest(t *testing.T, checks []check) {
	t.Helper()
	for _, c := range checks {
		if err := c.try(t); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// pinging is a socket for echoes.
type pinging struct {
	to       netip.Addr
	conn     *icmp.PacketConn
	request  icmp.Type
	reply    icmp.Type
	protocol int
	seq      int
}

func newPing(t *testing.T, from *actor, to netip.Addr) *pinging {
	t.Helper()
	p := &pinging{to: to, request: ipv4.ICMPTypeEcho, reply: ipv4.ICMPTypeEchoReply, protocol: 1}
	network, listen := "ip4:icmp", "0.0.0.0"
	if to.Is6() {
		p.request, p.reply, p.protocol = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
		network, listen = "ip6:ipv6-icmp", "::"
	}
	err := from.Inside().Do(func() (err error) {
		p.conn, err = icmp.ListenPacket(network, listen)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.conn.Close() })
	return p
}

func (p *pinging) try(*testing.T) error {
	buf := make([]byte, 2048)
	// The first one may be lost while an address is still being looked for.
	for deadline := time.Now().Add(arrives); time.Now().Before(deadline); {
		p.seq++
		data := fmt.Appendf(nil, "echo %d to %s", p.seq, p.to)
		out, err := (&icmp.Message{Type: p.request, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: p.seq, Data: data}}).Marshal(nil)
		if err != nil {
			return err
		}
		if _, err := p.conn.WriteTo(out, &net.IPAddr{IP: p.to.AsSlice(), Zone: p.to.Zone()}); err != nil {
			time.Sleep(10 * time.Millisecond) // as long as it is unreachable
			continue
		}
		_ = p.conn.SetReadDeadline(time.Now().Add(time.Second))
		for {
			n, _, err := p.conn.ReadFrom(buf)
			if err != nil {
				break
			}
			m, err := icmp.ParseMessage(p.protocol, buf[:n])
			if err != nil || m.Type != p.reply {
				continue
			}
			if e, ok := m.Body.(*icmp.Echo); ok && bytes.Equal(e.Data, data) {
				return nil
			}
		}
	}
	return fmt.Errorf("no echo")
}

// echo asks an echo server by TCP.
func (a *actor) echo(address string) error { return echoIn(a.Inside().Do, address) }

func echoIn(do func(func() error) error, address string) error {
	var c net.Conn
	err := do(func() (err error) {
		c, err = net.DialTimeout("tcp", address, arrives)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(arrives))
	word := []byte("who is there?")
	if _, err := c.Write(word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := c.Read(got); err != nil || !bytes.Equal(got, word) {
		return fmt.Errorf("answered %q, %v", got, err)
	}
	return nil
}

// newMulticast is mDNS: from one container to all that listen.
func newMulticast(t *testing.T, from, to *actor, group string) check {
	t.Helper()
	network, zone := "udp4", ""
	if netip.MustParseAddr(group).Is6() {
		network, zone = "udp6", strconv.Itoa(from.iface)
	}
	address := net.UDPAddr{IP: net.ParseIP(group), Port: 5353, Zone: zone}
	var receiver, sender *net.UDPConn
	err := to.Inside().Do(func() error {
		link, err := net.InterfaceByName(to.Interface("net"))
		if err == nil {
			receiver, err = net.ListenMulticastUDP(network, link, &net.UDPAddr{IP: address.IP, Port: address.Port})
		}
		return err
	})
	if err == nil {
		err = from.Inside().Do(func() (err error) {
			sender, err = net.ListenUDP(network, nil)
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = receiver.Close(); _ = sender.Close() })
	number := 0
	return check{"mDNS_to_" + group, func(*testing.T) error {
		number++
		word := fmt.Appendf(nil, "query %d to %s", number, group)
		if _, err := sender.WriteTo(word, &address); err != nil {
			return err
		}
		_ = receiver.SetReadDeadline(time.Now().Add(arrives))
		buf := make([]byte, 1500)
		for {
			n, err := receiver.Read(buf)
			if err != nil || bytes.Equal(buf[:n], word) {
				return err
			}
		}
	}}
}
