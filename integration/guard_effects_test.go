package integration

import (
	"encoding/hex"

	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"netguard/integration/attack"
)

// effect is an attack that is judged by what it comes to, not by whether a frame
// arrives.
type effect struct {
	name string
	kind attack.Kind
	// attempt tells whether it succeeded, and how many frames there were that
	// must not pass.
	attempt func(t *testing.T) (success bool, frames int)
}

func effects(t *testing.T, s *stage) []effect {
	t.Helper()
	a, v, c := s.attacker, s.victim, s.third
	// Linux believes no other answer for a second; an attacker would wait.
	for _, n := range []interface {
		Output(string, ...string) string
	}{s.e, v.Inside()} {
		n.Output("sh", "-c", "for f in /proc/sys/net/ipv4/neigh/*/locktime; do echo 0 >$f; done")
	}
	// Some engines switch it off.
	v.Inside().Output("sysctl", "-qw", "net.ipv6.conf."+v.Interface("net")+".accept_ra=1")
	app := listen(t, v)

	garp := attack.Ether(attack.Broadcast, a.MAC, attack.EtherARP,
		attack.ARP(attack.Request, a.MAC, c.IPv4, attack.MAC{}, c.IPv4))
	reply := func(about netip.Addr, to attack.Party) []byte {
		return attack.Ether(to.MAC, a.MAC, attack.EtherARP, attack.ARP(attack.Reply, a.MAC, about, to.MAC, to.IPv4))
	}
	na := func(about netip.Addr, to attack.Party) []byte {
		return attack.Ether(to.MAC, a.MAC, attack.EtherIPv6, attack.IPv6(a.IPv6, to.IPv6, 58,
			attack.ICMPv6(a.IPv6, to.IPv6, 136, []byte{0x60, 0, 0, 0}, about.AsSlice(), append([]byte{2, 1}, a.MAC[:]...))))
	}
	knows := func(about netip.Addr) bool {
		return strings.Contains(v.Inside().Output("ip", "neigh", "show", about.String()), hw(a.MAC))
	}
	hostKnows := func(about netip.Addr) bool {
		return strings.Contains(s.e.Output("ip", "neigh", "show", about.String(), "dev", s.net.Bridge), hw(a.MAC))
	}
	one := func(name string, kind attack.Kind, before func(), frame []byte, success func() bool) effect {
		return effect{name, kind, func(t *testing.T) (bool, int) {
			before()
			a.deliver(t, v, frame, 1)
			return success(), 1
		}}
	}
	return []effect{
		{"a_flood_of_MACs_to_all", attack.OfMAC, func(t *testing.T) (bool, int) { return s.floodFDB(t, attack.Broadcast) }},
		{"a_flood_of_MACs_to_a_link-local_group", attack.OfMAC, func(t *testing.T) (bool, int) {
			return s.floodFDB(t, attack.MAC{1, 0x80, 0xc2, 0, 0, 0xe})
		}},
		{"a_flood_of_MACs_by_docker_exec", attack.OfMAC, func(t *testing.T) (bool, int) { return s.floodByExec(t, 50*time.Millisecond) }},
		{"stealing_a_port_with_its_MAC", attack.OfMAC, func(t *testing.T) (bool, int) {
			a.deliver(t, c, attack.Ether(attack.Broadcast, v.MAC, attack.EtherARP, attack.ARP(attack.Request, v.MAC, v.IPv4, attack.MAC{}, v.IPv4)), 1)
			return c.delivers(t, a, attack.Ether(v.MAC, c.MAC, attack.EtherIPv4, udp4(c, v, "secret"))), 1
		}},
		{"listening_to_frames_that_the_bridge_floods", attack.OfMAC, func(t *testing.T) (bool, int) {
			s.e.Output("ip", "link", "set", s.net.Bridge, "type", "bridge", "fdb_flush")
			return c.delivers(t, a, attack.Ether(v.MAC, c.MAC, attack.EtherIPv4, udp4(c, v, "secret"))), 0
		}},
		one("poisoning_a_neighbour_by_gratuitous_ARP", attack.OfARP, func() { v.stale(c.IPv4, c.MAC) }, garp, func() bool { return knows(c.IPv4) }),
		one("poisoning_a_neighbour_by_an_ARP_reply", attack.OfARP, func() { v.stale(c.IPv4, c.MAC) }, reply(c.IPv4, v.party()), func() bool { return knows(c.IPv4) }),
		one("taking_over_the_gateways_address", attack.OfARP, func() { v.stale(s.scene.Gateway.IPv4, s.scene.Gateway.MAC) },
			reply(s.scene.Gateway.IPv4, v.party()), func() bool { return knows(s.scene.Gateway.IPv4) }),
		one("poisoning_the_host_by_an_ARP_reply", attack.OfARP, func() { s.hostKnows(v.IPv4, v.MAC) }, reply(v.IPv4, s.scene.Gateway), func() bool { return hostKnows(v.IPv4) }),
		one("poisoning_a_neighbour_by_neighbour_advertisement", attack.OfND, func() { v.stale(c.IPv6, c.MAC) }, na(c.IPv6, v.party()), func() bool { return knows(c.IPv6) }),
		one("poisoning_the_host_by_neighbour_advertisement", attack.OfND, func() { s.hostKnows(v.IPv6, v.MAC) }, na(v.IPv6, s.scene.Gateway), func() bool { return hostKnows(v.IPv6) }),
		one("becoming_a_router_by_advertisement", attack.OfND, s.forgetRouters,
			attack.All[index("router_advertisement_to_all")].Frame(s.scene), func() bool { return s.routed() }),
		one("a_datagram_from_a_neighbour_that_did_not_send_it", attack.OfIP, func() {},
			attack.Ether(v.MAC, a.MAC, attack.EtherIPv4, udp4(c, v, "forged")), func() bool { return app.got("forged") }),
		one("a_datagram_in_VLAN_0", attack.OfEthertype, func() {},
			attack.Tagged(attack.Ether(v.MAC, a.MAC, attack.EtherIPv4, udp4(a, v, "tagged")), attack.EtherVLAN, 0), func() bool { return app.got("tagged") }),
		{"reaching_what_listens_for_the_host_alone", attack.OfIP, func(t *testing.T) (bool, int) { return s.loopback(t) }},
		{"filling_the_hosts_connection_table_from_forged_addresses", attack.OfIP, func(t *testing.T) (bool, int) {
			const n = 2000
			grown := s.connections(t, n, func(i int) netip.AddrPort {
				return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 5000)
			})
			return grown > n*9/10, n
		}},
	}
}

func hw(m attack.MAC) string { return net.HardwareAddr(m[:]).String() }

// udp4 is a datagram from one to the other's application.
func udp4(from, to *actor, words string) []byte {
	return attack.UDP4(netip.AddrPortFrom(from.IPv4, appPort), netip.AddrPortFrom(to.IPv4, appPort), []byte(words))
}

// aTick is longer than one of the kernel's: within one it takes no other answer.
const aTick = 20 * time.Millisecond

// appPort is where listen listens.
const appPort = 9999

func index(name string) int {
	for i, a := range attack.All {
		if a.Name == name {
			return i
		}
	}
	panic("no attack " + name)
}

// application is a program in a container that receives datagrams.
type application struct{ conn *net.UDPConn }

func listen(t testing.TB, a *actor) application {
	t.Helper()
	var c *net.UDPConn
	err := a.Inside().Do(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: appPort})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return application{c}
}

// got tells whether a word is among what has come in. A frame that was sent
// before one that has arrived is here by now.
func (a application) got(word string) bool {
	buf := make([]byte, 1500)
	for {
		_ = a.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := a.conn.Read(buf)
		if err != nil {
			return false
		}
		if string(buf[:n]) == word {
			return true
		}
	}
}

// stale lets the container know a neighbour, as if it had spoken to it a while ago.
func (a *actor) stale(about netip.Addr, mac attack.MAC) {
	a.Inside().Output("ip", "neigh", "replace", about.String(), "lladdr", hw(mac), "dev", a.Interface(a.network), "nud", "stale")
	time.Sleep(aTick)
}

// hostKnows is the same for the host, where nobody has seen to it for good.
func (s *stage) hostKnows(about netip.Addr, mac attack.MAC) {
	if !strings.Contains(s.e.Output("ip", "neigh", "show", about.String(), "dev", s.net.Bridge), "PERMANENT") {
		s.e.Output("ip", "neigh", "replace", about.String(), "lladdr", hw(mac), "dev", s.net.Bridge, "nud", "stale")
		time.Sleep(aTick)
	}
}

func (s *stage) routed() bool {
	return strings.Contains(s.victim.Inside().Output("ip", "-6", "route", "show", "default"), s.attacker.MAC.LinkLocal().String())
}

func (s *stage) forgetRouters() {
	s.victim.Inside().Output("sh", "-c", "while ip -6 route del default proto ra 2>/dev/null; do :; done")
}

// fdb counts what the bridge knows. That takes long where there is a flood.
func (s *stage) fdb() int {
	return strings.Count(s.e.Output("bridge", "fdb", "show", "br", s.net.Bridge), "\n")
}

// floodFDB sends frames from ever new MACs.
func (s *stage) floodFDB(t *testing.T, to attack.MAC) (bool, int) {
	t.Helper()
	const n = 2000
	s.e.Output("ip", "link", "set", s.net.Bridge, "type", "bridge", "fdb_flush")
	before := s.fdb()
	frames := make([][]byte, n)
	for i := range frames {
		frames[i] = attack.Ether(to, attack.MAC{2, 0xf0, 0, 0, byte(i >> 8), byte(i)}, attack.EtherARP,
			attack.ARP(attack.Request, s.attacker.MAC, s.attacker.IPv4, attack.MAC{}, s.attacker.IPv4))
	}
	if err := s.attacker.port.Send(frames...); err != nil {
		t.Fatal(err)
	}
	s.attacker.greet(t, s.victim)
	return s.fdb()-before > n/2, n
}

// floodByExec does it with a program of the container's image, without any
// rights that docker exec does not give.
func (s *stage) floodByExec(t *testing.T, d time.Duration) (bool, int) {
	t.Helper()
	s.e.Output("ip", "link", "set", s.net.Bridge, "type", "bridge", "fdb_flush")
	before := s.fdb()
	frame := attack.Ether(attack.Broadcast, attack.Nobody, attack.EtherARP,
		attack.ARP(attack.Request, attack.Nobody, s.attacker.IPv4, attack.MAC{}, s.attacker.IPv4))
	r := s.attacker.For(t).Exec("/probe", "frame", "flood", s.attacker.Interface("net"), hex.EncodeToString(frame), d.String())
	var sent struct{ Sent int }
	if err := r.Into(&sent); err != nil || sent.Sent == 0 {
		t.Fatalf("nothing was sent: %v: %s", err, r)
	}
	s.attacker.greet(t, s.victim)
	return s.fdb()-before > 100, sent.Sent
}

// connections sends datagrams out of the host, each of another flow, and gives by
// how much the host's table of connections has grown.
func (s *stage) connections(t *testing.T, n int, from func(i int) netip.AddrPort) int {
	t.Helper()
	tracked := func() int {
		count, err := strconv.Atoi(strings.TrimSpace(s.e.Output("conntrack", "-C")))
		if err != nil {
			t.Fatal(err)
		}
		return count
	}
	before := tracked()
	outside := netip.MustParseAddrPort("198.51.100.2:7")
	frames := make([][]byte, n)
	for i := range frames {
		frames[i] = attack.Ether(s.scene.Gateway.MAC, s.attacker.MAC, attack.EtherIPv4, attack.UDP4(from(i), outside))
	}
	if err := s.attacker.port.Send(frames...); err != nil {
		t.Fatal(err)
	}
	s.attacker.greet(t, s.victim)
	return tracked() - before
}

// storm sends broadcasts, and gives how many came to the victim.
func (s *stage) storm(t *testing.T, n int) int {
	t.Helper()
	return s.attacker.deliver(t, s.victim, attack.Ether(attack.Broadcast, s.attacker.MAC, attack.EtherARP,
		attack.ARP(attack.Request, s.attacker.MAC, s.attacker.IPv4, attack.MAC{}, s.victim.IPv4)), n)
}

// recover undoes what attacks have done to containers and the host.
func (s *stage) recover(t *testing.T) {
	t.Helper()
	s.forgetRouters()
	s.e.Output("ip", "link", "set", s.net.Bridge, "type", "bridge", "fdb_flush")
	s.learn(t)
}

// detectDuplicates takes an address off a container's interface and puts it there
// again, and waits until the container's kernel has made sure that it is its alone.
func (s *stage) detectDuplicates(t *testing.T) {
	t.Helper()
	a := s.attacker
	in, dev := a.Inside(), a.Interface("net")
	in.Output("ip", "addr", "del", a.IPv6.String()+"/64", "dev", dev)
	in.Output("ip", "addr", "add", a.IPv6.String()+"/64", "dev", dev)
	for deadline := time.Now().Add(arrives); ; time.Sleep(20 * time.Millisecond) {
		shown := in.Output("ip", "-6", "addr", "show", "dev", dev, "to", a.IPv6.String())
		if strings.Contains(shown, a.IPv6.String()) && !strings.Contains(shown, "tentative") {
			if strings.Contains(shown, "dadfailed") {
				t.Errorf("it is taken: %s", shown)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is not there: %s", shown)
		}
	}
}
