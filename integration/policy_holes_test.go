package integration

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// hole is a way round a policy: a packet that passes without netguard, and not with
// it. The mark is what it carries.
type hole struct {
	name     string
	from, to *attack.Port
	frame    func(mark []byte) []byte
	// after is a frame that always passes, by the same way.
	after func(mark []byte) []byte
	// before makes ready what it needs.
	before func() error
}

func (h hole) open(t *testing.T) bool {
	t.Helper()
	number := frameNumber.Add(1)
	mark, last := fmt.Appendf(nil, "<hole %d>", number), fmt.Appendf(nil, "<after %d>", number)
	h.to.Drain()
	if h.before != nil {
		if err := h.before(); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.from.Send(h.frame(mark), h.after(last)); err != nil {
		t.Fatal(err)
	}
	n, err := h.to.Hears(mark, last, deadline())
	if err != nil {
		t.Fatalf("not even the packet that is allowed came: %v", err)
	}
	return n > 0
}

// sum4 sets the checksum at an offset of what IPv4 carries; TCP's has a pseudo header.
func sum4(body []byte, offset int, pseudo ...byte) []byte {
	all := append(slices.Clone(pseudo), body...)
	var sum uint32
	for i, b := range all {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(body[offset:], ^uint16(sum))
	return body
}

// segment is one of TCP in the middle of a connection.
func segment(from, to netip.AddrPort, payload []byte) []byte {
	s := make([]byte, 20, 20+len(payload))
	binary.BigEndian.PutUint16(s, from.Port())
	binary.BigEndian.PutUint16(s[2:], to.Port())
	s[12], s[13] = 5<<4, 0x18 // ACK, PSH
	s[14] = 0x20              // window
	s = append(s, payload...)
	pseudo := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, 6, byte(len(s)>>8), byte(len(s)))
	return attack.IPv4(from.Addr(), to.Addr(), 6, sum4(s, 16, pseudo...))
}

// unreachable says of a datagram that there is nobody, with something of its own.
func unreachable(from, to netip.Addr, quoted, payload []byte) []byte {
	return attack.IPv4(from, to, 1, sum4(slices.Concat([]byte{3, 3, 0, 0, 0, 0, 0, 0}, quoted, payload), 2))
}

// TestPolicyHoles: packets that are none of those which policies speak of.
func TestPolicyHoles(t *testing.T) {
	t.Parallel()
	e := Start(t, WithIPv6(), WithOutside())
	front := e.Network("front", Subnet("198.18.60.0/24"), Subnet("fd00:60::/64"))
	e.Network("back", Subnet("198.18.61.0/24"), Subnet("fd00:61::/64"))
	closed := enter(t, e.Run("closed", On("front")), "front")
	friend := enter(t, e.Run("friend", On("front")), "front")
	server := enter(t, e.Run("server", On("front"), Publish("8053:53/udp"), Publish("8009:9/udp")), "front")
	both := enter(t, e.Run("both", On("front"), On("back")), "front")
	gate := gateway(t, e, front, closed.Container)

	var uplink attack.MAC
	err := e.Do(func() error {
		for _, name := range []string{"all", Uplink} { // as many distributions have it
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("0"), 0); err != nil {
				return err
			}
		}
		link, err := net.InterfaceByName(Uplink)
		if err == nil {
			uplink = attack.MAC(link.HardwareAddr)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var outside *attack.Port
	if err := e.Outside.Do(func() (err error) { outside, err = attack.Open("eth0"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(outside.Close)

	at := netip.AddrPortFrom
	datagram := func(to, from attack.MAC, src, dst netip.AddrPort) func([]byte) []byte {
		return func(mark []byte) []byte {
			if src.Addr().Is6() {
				return attack.Ether(to, from, attack.EtherIPv6, attack.UDP6(src, dst, mark))
			}
			return attack.Ether(to, from, attack.EtherIPv4, attack.UDP4(src, dst, mark))
		}
	}
	out := datagram(gate.MAC, closed.MAC, at(closed.IPv4, 9), at(OutsideIPv4, 9))
	out6 := datagram(gate.MAC, closed.MAC, at(closed.IPv6, 9), at(OutsideIPv6, 9))
	toServer := datagram(server.MAC, friend.MAC, at(friend.IPv4, 9), at(server.IPv4, 9))
	report := func(to attack.MAC, addr netip.Addr) func([]byte) []byte {
		return func(mark []byte) []byte {
			message := attack.ICMPv6(closed.IPv6, addr, 143, []byte{0, 0, 0, 0}, mark)
			return attack.Ether(to, closed.MAC, attack.EtherIPv6, attack.IPv6(closed.IPv6, addr, 58, message))
		}
	}
	all4, group4, group6 := netip.MustParseAddr("198.18.60.255"), netip.MustParseAddr("224.0.0.251"), netip.MustParseAddr("ff02::fb")
	var outsideMAC attack.MAC // nobody looks at the sender's
	outsideMAC[0] = 2
	holes := []hole{
		{name: "the_middle_of_a_connection_that_never_began", from: closed.port, to: outside, after: out, frame: func(mark []byte) []byte {
			return attack.Ether(gate.MAC, closed.MAC, attack.EtherIPv4, segment(at(closed.IPv4, 1000), at(OutsideIPv4, 40000), mark))
		}},
		{name: "to_all_of_the_network", from: friend.port, to: server.port, after: toServer,
			frame: datagram(attack.Broadcast, friend.MAC, at(friend.IPv4, 7), at(all4, 7))},
		{name: "to_all_of_the_network_in_a_frame_to_one", from: friend.port, to: server.port, after: toServer,
			frame: datagram(server.MAC, friend.MAC, at(friend.IPv4, 7), at(all4, 7))},
		{name: "to_everybody", from: friend.port, to: server.port, after: toServer,
			frame: datagram(attack.Broadcast, friend.MAC, at(friend.IPv4, 7), at(attack.All4, 7))},
		{name: "to_a_group", from: friend.port, to: server.port, after: toServer,
			frame: datagram(server.MAC, friend.MAC, at(friend.IPv4, 7), at(group4, 7))},
		{name: "to_a_group_of_IPv6", from: friend.port, to: server.port, after: toServer,
			frame: datagram(attack.Group(group6), friend.MAC, at(friend.IPv6, 7), at(group6, 7))},
		{name: "to_all_of_IPv6", from: friend.port, to: server.port, after: toServer,
			frame: datagram(attack.Group(attack.AllNodes), friend.MAC, at(friend.MAC.LinkLocal(), 7), at(attack.AllNodes, 7))},
		{name: "a_containers_address_from_outside", from: outside, to: server.port,
			frame: datagram(uplink, outsideMAC, at(friend.IPv4, 7), at(HostIPv4, 8053)),
			after: datagram(uplink, outsideMAC, at(OutsideIPv4, 7), at(HostIPv4, 8009))},
		{name: "an_address_of_another_network", from: friend.port, to: both.port,
			frame: datagram(both.MAC, friend.MAC, at(friend.IPv4, 7), at(both.IP("back"), 7)),
			after: datagram(both.MAC, friend.MAC, at(friend.IPv4, 9), at(both.IPv4, 9))},
		{name: "an_address_of_another_network_of_IPv6", from: friend.port, to: both.port,
			frame: datagram(both.MAC, friend.MAC, at(friend.IPv6, 7), at(both.IP6("back"), 7)),
			after: datagram(both.MAC, friend.MAC, at(friend.IPv6, 9), at(both.IPv6, 9))},
		{name: "an_error_message_about_anothers_connection", from: closed.port, to: outside, after: out,
			before: func() error {
				return friend.port.Send(datagram(gate.MAC, friend.MAC, at(friend.IPv4, 5000), at(OutsideIPv4, 7777))(nil))
			},
			frame: func(mark []byte) []byte {
				quoted := attack.UDP4(at(OutsideIPv4, 7777), at(friend.IPv4, 5000))
				return attack.Ether(gate.MAC, closed.MAC, attack.EtherIPv4, unreachable(closed.IPv4, OutsideIPv4, quoted, mark))
			}},
		{name: "a_report_of_groups_to_the_world", from: closed.port, to: outside, after: out6, frame: report(gate.MAC, OutsideIPv6)},
		{name: "a_report_of_groups_to_a_neighbour", from: closed.port, to: friend.port, frame: report(friend.MAC, friend.IPv6),
			after: datagram(friend.MAC, closed.MAC, at(closed.IPv6, 9), at(friend.IPv6, 9))},
	}
	try := func(t *testing.T, want bool) {
		for _, h := range holes {
			t.Run(h.name, func(t *testing.T) {
				if got := h.open(t); got != want {
					t.Errorf("it arrived: %v", got)
				}
			})
		}
	}
	t.Run("without_netguard", func(t *testing.T) { try(t, true) })
	book := newRulebook(e, e.Agent())
	book.awaitAdmitted(t, 5)
	book.enact(t, map[string]string{"holes.yaml": `
{name: closed, select: {container: closed}, egress: [{ports: [udp/9]}]}
---
{name: server, select: {container: server}, ingress: [{from: [{container: friend}], ports: [udp/53]}, {ports: [udp/9]}]}
---
{name: both, select: {container: both, network: back}, ingress: [{ports: [udp/9]}]}
`})
	t.Run("with_netguard", func(t *testing.T) { try(t, false) })
	t.Run("a_friend_is_none_of_it", func(t *testing.T) {
		h := hole{from: friend.port, to: server.port, after: toServer, frame: datagram(server.MAC, friend.MAC, at(friend.IPv4, 7), at(server.IPv4, 53))}
		if !h.open(t) {
			t.Error("what is allowed does not pass")
		}
	})
}
