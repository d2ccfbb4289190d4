package guard

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	vish "github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// honest frames arrive with the guard as without, and are not counted.
var honest = []struct {
	name  string
	frame func(a, v *box) []byte
}{
	{"UDP", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2)))
	}},
	{"TCP_from_port_67", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 6, []byte{0, 67, 0, 80}, make([]byte, 16)))
	}},
	{"another_IP_protocol", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 132, make([]byte, 12)))
	}},
	{"first_fragment", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x800, fragment4(ip4(a.ip4, v.ip4, 17, udpPacket(1, 2)), 0, true))
	}},
	{"later_fragment", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x800, fragment4(ip4(a.ip4, v.ip4, 17, udpPacket(67, 2)), 1, false))
	}},
	{"broadcast", func(a, v *box) []byte {
		return ether(broadcast, a.mac, 0x800, ip4(a.ip4, netip4(172, 30, 0, 255), 17, udpPacket(1, 2)))
	}},
	{"mDNS", func(a, v *box) []byte {
		return ether(MAC{1, 0, 0x5e, 0, 0, 0xfb}, a.mac, 0x800, ip4(a.ip4, netip4(224, 0, 0, 251), 17, udpPacket(5353, 5353)))
	}},
	{"mDNS_over_IPv6", func(a, v *box) []byte {
		to := netip.MustParseAddr("ff02::fb")
		return ether(group6(to), a.mac, 0x86dd, ip6(a.mac.LinkLocal(), to, 17, udpPacket(5353, 5353)))
	}},
	{"IGMP_report", func(a, v *box) []byte {
		return ether(MAC{1, 0, 0x5e, 0, 0, 0x16}, a.mac, 0x800, ip4(a.ip4, netip4(224, 0, 0, 22), 2, igmpPacket(0x22)))
	}},
	{"DHCP_discover", func(a, v *box) []byte {
		return ether(broadcast, a.mac, 0x800, ip4(none4, netip4(255, 255, 255, 255), 17, udpPacket(68, 67, dhcpRequest(a.mac))))
	}},
	{"DHCPv6_solicit", func(a, v *box) []byte {
		to := netip.MustParseAddr("ff02::1:2")
		return ether(group6(to), a.mac, 0x86dd, ip6(a.mac.LinkLocal(), to, 17, udpPacket(546, 547)))
	}},
	{"ARP_request", func(a, v *box) []byte {
		return ether(broadcast, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, v.ip4))
	}},
	{"ARP_reply", func(a, v *box) []byte { return ether(v.mac, a.mac, 0x806, arpPacket(2, a.mac, a.ip4, v.mac, v.ip4)) }},
	{"gratuitous_ARP", func(a, v *box) []byte {
		return ether(broadcast, a.mac, 0x806, arpPacket(2, a.mac, a.ip4, broadcast, a.ip4))
	}},
	{"ARP_probe", func(a, v *box) []byte {
		return ether(broadcast, a.mac, 0x806, arpPacket(1, a.mac, none4, MAC{}, a.ip4))
	}},
	{"IPv6_UDP", func(a, v *box) []byte { return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 17, udpPacket(1, 2))) }},
	{"IPv6_TCP", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 6, make([]byte, 20)))
	}},
	{"IPv6_link_local", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.mac.LinkLocal(), v.mac.LinkLocal(), 17, udpPacket(1, 2)))
	}},
	{"IPv6_destination_options", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 60, extension(17), udpPacket(1, 2)))
	}},
	{"IPv6_first_fragment", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 44, fragment6(17, 0, true), udpPacket(1, 2)))
	}},
	{"IPv6_later_fragment", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 44, fragment6(17, 1, false), udpPacket(547, 2)))
	}},
	{"echo_in_a_first_fragment", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 44, fragment6(58, 0, true), icmp6Packet(128)))
	}},
	{"echo_in_a_later_fragment", func(a, v *box) []byte {
		// What it holds looks like an advertisement and is none.
		return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 44, fragment6(58, 1, false), routerAdvertisement()))
	}},
	{"detection_of_duplicates", func(a, v *box) []byte {
		return ether(group6(solicited(a.ip6)), a.mac, 0x86dd, ip6(none6, solicited(a.ip6), 58, icmp6Packet(135, a.ip6.AsSlice())))
	}},
	{"detection_of_duplicates_with_a_nonce", func(a, v *box) []byte {
		to := solicited(a.mac.LinkLocal())
		return ether(group6(to), a.mac, 0x86dd, ip6(none6, to, 58, icmp6Packet(135, a.mac.LinkLocal().AsSlice(), ndOptionOf(14, nobody))))
	}},
	{"neighbour_solicitation", func(a, v *box) []byte {
		return nd(a, v, icmp6Packet(135, v.ip6.AsSlice(), ndOptionOf(1, a.mac)))
	}},
	{"neighbour_solicitation_without_a_MAC", func(a, v *box) []byte { return nd(a, v, icmp6Packet(135, v.ip6.AsSlice())) }},
	{"neighbour_advertisement", func(a, v *box) []byte {
		return nd(a, v, icmp6Packet(136, a.ip6.AsSlice(), ndOptionOf(2, a.mac)))
	}},
	{"neighbour_advertisement_without_a_MAC", func(a, v *box) []byte { return nd(a, v, icmp6Packet(136, a.ip6.AsSlice())) }},
	{"router_solicitation", func(a, v *box) []byte { return nd(a, v, icmp6Packet(133, ndOptionOf(1, a.mac))) }},
	{"router_solicitation_from_no_address", func(a, v *box) []byte {
		return ether(group6(allRouter), a.mac, 0x86dd, ip6(none6, allRouter, 58, icmp6Packet(133)))
	}},
	{"multicast_report", func(a, v *box) []byte {
		return ether(group6(allRouter), a.mac, 0x86dd, ip6(a.mac.LinkLocal(), allRouter, 0, routerAlert(58), icmp6Packet(143)))
	}},
	{"multicast_report_from_no_address", func(a, v *box) []byte {
		return ether(group6(allRouter), a.mac, 0x86dd, ip6(none6, allRouter, 0, routerAlert(58), icmp6Packet(143)))
	}},
	{"multicast_report_about_72_groups", func(a, v *box) []byte {
		return ether(group6(mldv2), a.mac, 0x86dd, ip6(a.mac.LinkLocal(), mldv2, 0, routerAlert(58), report6(72)))
	}},
	{"older_multicast_report", func(a, v *box) []byte {
		to := netip.MustParseAddr("ff02::fb")
		return ether(group6(to), a.mac, 0x86dd, ip6(a.mac.LinkLocal(), to, 0, routerAlert(58), icmp6Packet(131, to.AsSlice())))
	}},
	{"multicast_done", func(a, v *box) []byte {
		return ether(group6(allRouter), a.mac, 0x86dd, ip6(a.mac.LinkLocal(), allRouter, 0, routerAlert(58), icmp6Packet(132, mldv2.AsSlice())))
	}},
	{"IGMP_report_about_183_groups", func(a, v *box) []byte { return igmpTo(igmpv3, a, report4(183)) }},
	{"IGMP_report_filled_up", func(a, v *box) []byte {
		return igmpTo(mdns4, a, igmpPacket(0x16), make([]byte, 14))
	}},
	{"IGMP_leave", func(a, v *box) []byte {
		to := netip4(224, 0, 0, 2)
		return igmpTo(to, a, igmpPacket(0x17))
	}},
	{"ARP_request_to_one", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, v.ip4))
	}},
	{"ARP_reply_of_a_virtual_machine", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(2, a.mac, a.ip4, v.mac, v.ip4), make([]byte, 18))
	}},
	{"DHCP_client_that_says_much", func(a, v *box) []byte {
		return discover(a, 576-28-240)
	}},
	{"echo", func(a, v *box) []byte { return errorTo4(v, a, []byte{8, 0, 0, 0, 0, 1, 0, 1}) }},
	{"echo_in_a_first_fragment_of_IPv4", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x800, fragment4(ip4(a.ip4, v.ip4, 1, append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, burden...)), 0, true))
	}},
	{"echo_in_a_later_fragment_of_IPv4", func(a, v *box) []byte {
		// What it holds looks like an error and is none.
		return ether(v.mac, a.mac, 0x800, fragment4(ip4(a.ip4, v.ip4, 1, quote(3, nil)), 1, false))
	}},
	{"port_unreachable", func(a, v *box) []byte { return errorTo4(v, a, quote(3, flow4(v.ip4, a.ip4))) }},
	{"error_about_a_packet_with_options", func(a, v *box) []byte {
		return errorTo4(v, a, quote(12, options(flow4(v.ip4, a.ip4), 1, 1, 1, 1)))
	}},
	{"error_with_options", func(a, v *box) []byte {
		return ether(v.mac, a.mac, 0x800, options(ip4(a.ip4, v.ip4, 1, quote(11, flow4(v.ip4, a.ip4))), 1, 1, 1, 1))
	}},
	{"port_unreachable_of_IPv6", func(a, v *box) []byte { return errorTo6(v, a, 58, quote(1, flow6(v.ip6, a.ip6))) }},
	{"error_about_its_link_local_address", func(a, v *box) []byte {
		return errorTo6(v, a, 58, quote(4, flow6(v.mac.LinkLocal(), a.mac.LinkLocal())))
	}},
	{"error_of_IPv6_behind_destination_options", func(a, v *box) []byte {
		return errorTo6(v, a, 60, extension(58), quote(2, flow6(v.ip6, a.ip6)))
	}},
}

func TestHonest(t *testing.T) {
	h := newHost(t, 2)
	a, v := h.boxes[0], h.boxes[1]
	h.learn(t)
	for _, f := range honest {
		h.run(t, "arrives_without_the_guard/"+f.name, func(t *testing.T) {
			if !deliver(t, a, v, f.frame(a, v)) {
				t.Error("it does not arrive by itself: it proves nothing")
			}
		})
	}
	d := h.driver()
	h.apply(d, h.wish())
	for _, f := range honest {
		h.run(t, "arrives_with_the_guard/"+f.name, func(t *testing.T) {
			if !deliver(t, a, v, f.frame(a, v)) {
				t.Error("it was dropped")
			}
			if got := violations(t, d, a); got != (Violations{}) {
				t.Errorf("counted %+v", got)
			}
		})
	}
}

// ping sends an echo of a size, from the calling thread's namespace.
func ping(to netip.Addr, size int) error { return pingFor(to, size, arrives) }

func pingFor(to netip.Addr, size int, patience time.Duration) error {
	network, listen, protocol := "ip4:icmp", "0.0.0.0", 1
	var request, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if to.Is6() {
		network, listen, protocol = "ip6:ipv6-icmp", "::", 58
		request, reply = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	c, err := icmp.ListenPacket(network, listen)
	if err != nil {
		return err
	}
	defer c.Close()
	data := bytes.Repeat([]byte{'p'}, size)
	out, err := (&icmp.Message{Type: request, Body: &icmp.Echo{ID: 7, Seq: 1, Data: data}}).Marshal(nil)
	if err != nil {
		return err
	}
	where := &net.IPAddr{IP: to.AsSlice()}
	if to.Zone() != "" {
		// By number: package net remembers the numbers of names, and a name
		// has another in each namespace.
		device, err := net.InterfaceByName(to.Zone())
		if err != nil {
			return err
		}
		where.Zone = strconv.Itoa(device.Index)
	}
	deadline := time.Now().Add(patience)
	buf := make([]byte, 65536)
	// The first one may be lost while an address is still being looked for.
	for time.Now().Before(deadline) {
		if _, err := c.WriteTo(out, where); err != nil {
			continue
		}
		_ = c.SetReadDeadline(time.Now().Add(min(patience, time.Second)))
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				break
			}
			if m, err := icmp.ParseMessage(protocol, buf[:n]); err == nil && m.Type == reply {
				if e, ok := m.Body.(*icmp.Echo); ok && bytes.Equal(e.Data, data) {
					return nil
				}
			}
		}
	}
	return fmt.Errorf("no echo of %d bytes from %s", size, to)
}

func TestTraffic(t *testing.T) {
	h := newHost(t, 3)
	a, v := h.boxes[0], h.boxes[1]
	run(t, "nft", "add table ip nat; add chain ip nat pre { type nat hook prerouting priority -100; }; "+
		"add chain ip nat post { type nat hook postrouting priority 100; }; "+
		"add rule ip nat pre ip daddr 172.30.0.1 tcp dport 8080 dnat to 172.30.0.2:80; "+
		"add rule ip nat post ip saddr 172.30.0.0/24 ip daddr 172.30.0.0/24 masquerade")
	run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	// A container that asks for its own published port comes back through the
	// port that it went out of.
	run(t, "bridge", "link", "set", "dev", a.name, "hairpin", "on")
	d := h.driver()
	h.apply(d, h.wish())

	for name, b := range map[string]*box{"from_a_container": a, "from_another": h.boxes[2]} {
		for _, to := range []netip.Addr{v.ip4, v.ip6, v.mac.LinkLocal().WithZone("eth0"), gateway4, gateway6} {
			for _, size := range []int{8, 4000} {
				h.run(t, fmt.Sprintf("ping_%s_to_%s_with_%d_bytes", name, to, size), func(t *testing.T) {
					b.inside(func() {
						if err := ping(to, size); err != nil {
							t.Error(err)
						}
					})
				})
			}
		}
	}
	for _, to := range []netip.Addr{a.ip4, a.ip6, a.mac.LinkLocal().WithZone(bridgeName)} {
		h.run(t, fmt.Sprintf("ping_from_the_host_to_%s", to), func(t *testing.T) {
			if err := ping(to, 4000); err != nil {
				t.Error(err)
			}
		})
	}
	for name, b := range map[string]*box{"its_own": a, "anothers": v} {
		h.run(t, name+"_published_port_answers", func(t *testing.T) {
			var server net.Listener
			var err error
			a.inside(func() {
				server, err = opened(func() (net.Listener, error) { return net.Listen("tcp4", "0.0.0.0:80") })
			})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			defer func() { server.Close(); <-done }()
			go func() {
				defer close(done)
				if c, err := server.Accept(); err == nil {
					_, _ = io.WriteString(c, "hello")
					_ = c.Close()
				}
			}()
			var said []byte
			b.inside(func() {
				ctx, cancel := context.WithTimeout(t.Context(), arrives)
				defer cancel()
				var c net.Conn
				if c, err = new(net.Dialer).DialContext(ctx, "tcp4", "172.30.0.1:8080"); err == nil {
					_ = c.SetDeadline(time.Now().Add(arrives))
					said, err = io.ReadAll(c)
					_ = c.Close()
				}
			})
			if err != nil || string(said) != "hello" {
				t.Errorf("said %q, %v", said, err)
			}
		})
	}
	h.run(t, "the_kernel_detects_duplicates_of_its_address", func(t *testing.T) {
		a.inside(func() {
			run(t, "ip", "addr", "del", prefixed(a.ip6), "dev", "eth0")
			run(t, "ip", "addr", "add", prefixed(a.ip6), "dev", "eth0")
			link, err := vish.LinkByName("eth0")
			if err != nil {
				t.Fatal(err)
			}
			h.await("detection of duplicates ends well", func() bool {
				addrs, err := vish.AddrList(link, vish.FAMILY_V6)
				for _, addr := range addrs {
					if addr.IP.Equal(a.ip6.AsSlice()) {
						return err == nil && addr.Flags&0x40 == 0 && addr.Flags&0x8 == 0 // tentative, failed
					}
				}
				return false
			})
			if err := ping(v.ip6, 8); err != nil {
				t.Error(err)
			}
		})
	})
	for _, b := range h.boxes {
		if got := violations(t, d, b); got != (Violations{}) {
			t.Errorf("%s was honest, but: %+v", b.name, got)
		}
	}
	if got := output(t, "ip", "neigh", "show", "dev", bridgeName, "nud", "reachable"); got != "" {
		t.Errorf("the host learned what it knew: %s", got)
	}
}
