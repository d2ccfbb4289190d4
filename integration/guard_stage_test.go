package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netguard/agent/control"
	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// arrives is how long a frame may take that must arrive, far more than it does.
const arrives = 5 * time.Second

func deadline() time.Time { return time.Now().Add(arrives) }

// actor is a container on a network, with a packet socket in it.
type actor struct {
	*Container
	network    string
	MAC        attack.MAC
	IPv4, IPv6 netip.Addr
	port       *attack.Port
	iface      int // ifindex of its interface, in the container
}

func (a *actor) party() attack.Party { return attack.Party{MAC: a.MAC, IPv4: a.IPv4, IPv6: a.IPv6} }

// enter opens the packet socket with the capabilities that the container's
// program has, none more.
func enter(t testing.TB, c *Container, network string) *actor {
	t.Helper()
	a := &actor{Container: c, network: network, MAC: mac(t, c.MAC(network)), IPv4: c.IP(network)}
	if six := c.Inspect().NetworkSettings.Networks[network].GlobalIPv6Address; six != "" {
		a.IPv6 = netip.MustParseAddr(six)
	}
	caps := capabilities(t, c)
	name := c.Interface(network)
	err := c.Inside().Do(func() error {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		a.iface = link.Index
		// The thread does not come back to its namespace with these, and is
		// thrown away.
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		data := [2]unix.CapUserData{{Effective: caps, Permitted: caps}}
		if err := unix.Capset(&head, &data[0]); err != nil {
			return fmt.Errorf("give up capabilities: %w", err)
		}
		a.port, err = attack.Open(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.port.Close)
	return a
}

// capabilities are those of the container's program: Docker's default ones, with
// CAP_NET_RAW and without CAP_NET_ADMIN.
func capabilities(t testing.TB, c *Container) uint32 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			if caps&(1<<unix.CAP_NET_RAW) == 0 || caps&(1<<unix.CAP_NET_ADMIN) != 0 {
				t.Fatalf("%s has the capabilities %x: not Docker's default", c.Name, caps)
			}
			return uint32(caps)
		}
	}
	t.Fatalf("no capabilities in %s", status)
	return 0
}

func mac(t testing.TB, text string) attack.MAC {
	t.Helper()
	hw, err := net.ParseMAC(text)
	if err != nil || len(hw) != 6 {
		t.Fatalf("read MAC %q: %v", text, err)
	}
	return attack.MAC(hw)
}

// gateway is the bridge itself, as a container of the network is told of it. The
// engine says nothing of the gateway of a network that was made without naming it.
func gateway(t *testing.T, e *Engine, n *Network, c *Container) attack.Party {
	t.Helper()
	told := c.Inspect().NetworkSettings.Networks[n.Name]
	var bridge *net.Interface
	err := e.Do(func() (err error) {
		bridge, err = net.InterfaceByName(n.Bridge)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p := attack.Party{MAC: attack.MAC(bridge.HardwareAddr), IPv4: netip.MustParseAddr(told.Gateway)}
	if told.IPv6Gateway != "" {
		p.IPv6 = netip.MustParseAddr(told.IPv6Gateway)
	}
	return p
}

// frameNumber tells the frames of all tests apart.
var frameNumber atomic.Int64

// delivers sends a frame to b and tells whether it arrives. Control frames have exact
// lengths, so one of ARP or IP is known by all of it; what follows another one, and tells
// it from others, is beyond the lengths in its headers. A second frame, that nobody
// refuses, says when to stop waiting.
func (a *actor) delivers(t *testing.T, b *actor, frame []byte) bool {
	t.Helper()
	return a.deliver(t, b, frame, 1) > 0
}

// deliver is delivers for many of the same.
func (a *actor) deliver(t *testing.T, b *actor, frame []byte, count int) int {
	t.Helper()
	number := frameNumber.Add(1)
	mark, last := fmt.Appendf(nil, "<frame %d>", number), fmt.Appendf(nil, "<after %d>", number)
	switch binary.BigEndian.Uint16(frame[12:]) {
	case attack.EtherIPv4, attack.EtherARP, attack.EtherIPv6:
		mark = frame
	default:
		frame = append(bytes.Clone(frame), mark...)
	}
	frames := make([][]byte, count, count+1)
	for i := range frames {
		frames[i] = frame
	}
	// Unicast, which is not counted as part of a storm.
	frames = append(frames, attack.Ether(b.MAC, a.MAC, attack.EtherIPv4,
		attack.UDP4(netip.AddrPortFrom(a.IPv4, 9), netip.AddrPortFrom(b.IPv4, 9)), last))
	b.port.Drain()
	if err := a.port.Send(frames...); err != nil {
		t.Fatal(err)
	}
	n, err := b.port.Hears(mark, last, deadline())
	if err != nil {
		t.Fatalf("not even the frame that is allowed came from %s to %s: %v", a.Name, b.Name, err)
	}
	return n
}

// greeting is a frame to all by which a bridge learns where an actor is.
func (a *actor) greeting() []byte {
	return attack.Ether(attack.Broadcast, a.MAC, attack.EtherARP, attack.ARP(attack.Request, a.MAC, a.IPv4, attack.MAC{}, a.IPv4))
}

// greet makes sure that frames go through.
func (a *actor) greet(t *testing.T, b *actor) {
	t.Helper()
	if !a.delivers(t, b, a.greeting()) {
		t.Fatalf("an honest frame of %s did not arrive", a.Name)
	}
}

// violations are those of containers on their networks, as status counts them.
func violations(t *testing.T, a *Agent, actors ...*actor) []control.Violations {
	t.Helper()
	out := make([]control.Violations, len(actors))
	a.For(t).AwaitStatus("status has them", func(s control.Status) bool {
		for i, c := range actors {
			e, ok := Endpoint(s, c.Container, c.network)
			if !ok {
				return false
			}
			out[i] = e.Violations
		}
		return true
	})
	return out
}

// plus adds to a kind of violation.
func plus(v control.Violations, k attack.Kind, n uint64) control.Violations {
	*map[attack.Kind]*uint64{attack.OfMAC: &v.MAC, attack.OfARP: &v.ARP, attack.OfIP: &v.IP, attack.OfND: &v.ND,
		attack.OfDHCP: &v.DHCP, attack.OfEthertype: &v.Ethertype, attack.OfStorm: &v.Storm}[k] += n
	return v
}

// stage is a network with an attacker, a victim and a third, whose place the
// attacker takes, on an engine.
type stage struct {
	e                       *Engine
	net                     *Network
	attacker, victim, third *actor
	scene                   attack.Scene
}

func newStage(t *testing.T) *stage {
	t.Helper()
	// Without docker-proxy a published port is a matter of iptables alone.
	s := &stage{e: Start(t, DaemonConfig(`{"userland-proxy": false}`), WithOutside())}
	s.net = s.e.Network("net", Subnet("198.18.20.0/24"), Subnet("fd00:20::/64"))
	s.attacker = enter(t, s.e.Run("mallory", On("net")), "net")
	s.victim = enter(t, s.e.Run("victim", On("net"), Publish("8080:80/tcp"), Doing("serve", "tcp", ":80")), "net")
	s.third = enter(t, s.e.Run("third", On("net"), Doing("serve", "tcp", ":80")), "net")
	s.scene = attack.Scene{Attacker: s.attacker.party(), Victim: s.victim.party(), Third: s.third.party(), Gateway: gateway(t, s.e, s.net, s.third.Container)}
	return s
}

// loopback sends datagrams for the host's loopback, which the kernel takes from the bridge
// where docker-proxy is off (route_localnet).
func (s *stage) loopback(t *testing.T) (success bool, frames int) {
	t.Helper()
	listen := func(ip net.IP) (c *net.UDPConn) {
		if err := s.e.Do(func() (err error) { c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: ip}); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	send := func(to *net.UDPConn) {
		at := to.LocalAddr().(*net.UDPAddr).AddrPort()
		if err := s.attacker.port.Send(attack.Ether(s.scene.Gateway.MAC, s.attacker.MAC, attack.EtherIPv4,
			attack.UDP4(netip.AddrPortFrom(s.attacker.IPv4, appPort), at, []byte("for the host")))); err != nil {
			t.Fatal(err)
		}
	}
	got := func(at *net.UDPConn, within time.Duration) bool {
		_ = at.SetReadDeadline(time.Now().Add(within))
		_, err := at.Read(make([]byte, 100))
		return err == nil
	}
	alone, all := listen(net.IPv4(127, 0, 0, 1)), listen(s.scene.Gateway.IPv4.AsSlice())
	send(alone)
	send(all)
	if !got(all, 5*time.Second) {
		t.Error("the bridge's own address is not reached")
	}
	return got(alone, time.Millisecond), 0 // nobody can tell any more whose it was
}

// learn lets the bridge, the containers and the host know again who is where.
func (s *stage) learn(t *testing.T) {
	t.Helper()
	for _, c := range []*actor{s.attacker, s.victim, s.third} {
		c.Inside().Output("ip", "neigh", "flush", "dev", c.Interface("net"))
	}
	s.e.Output("ip", "neigh", "flush", "dev", s.net.Bridge)
	for _, c := range []*actor{s.attacker, s.victim, s.third} {
		if err := c.port.Send(c.greeting()); err != nil {
			t.Fatal(err)
		}
	}
	s.attacker.greet(t, s.victim)
	s.victim.greet(t, s.third)
	s.third.greet(t, s.victim)
}
