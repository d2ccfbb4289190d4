package guard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lonely makes fragments whose datagram never becomes whole: a first one, a later one, and
// first and last with a gap. There is a datagram number for each.
var lonely = map[string][]func(number uint32, to netip.Addr, mac MAC, a *box) []byte{
	"IPv4": {piece4(0, true), piece4(185, true), piece4(370, false)},
	"IPv6": {piece6(0, true), piece6(185, true), piece6(370, false), behindOptions(piece6(0, true))},
}

func piece4(offset uint16, more bool) func(uint32, netip.Addr, MAC, *box) []byte {
	return func(number uint32, to netip.Addr, mac MAC, a *box) []byte {
		p := fragment4(ip4(a.ip4, to, 17, make([]byte, 1480)), offset, more)
		binary.BigEndian.PutUint16(p[4:], uint16(number))
		p[10], p[11] = 0, 0
		return ether(mac, a.mac, 0x800, sum4(p))
	}
}

func piece6(offset uint16, more bool) func(uint32, netip.Addr, MAC, *box) []byte {
	return func(number uint32, to netip.Addr, mac MAC, a *box) []byte {
		f := fragment6(17, offset, more)
		binary.BigEndian.PutUint32(f[4:], number)
		return ether(mac, a.mac, 0x86dd, ip6(a.ip6, to, 44, f, make([]byte, 1440)))
	}
}

// behindOptions puts destination options before the header of the fragment.
func behindOptions(inner func(uint32, netip.Addr, MAC, *box) []byte) func(uint32, netip.Addr, MAC, *box) []byte {
	return func(number uint32, to netip.Addr, mac MAC, a *box) []byte {
		f := inner(number, to, mac, a)
		return ether(mac, a.mac, 0x86dd, ip6(a.ip6, to, 60, extension(44), f[14+40:]))
	}
}

// way is a way of datagrams: from one socket to another.
type way struct {
	name     string
	from, to net.PacketConn
}

// send sends n datagrams and says how many arrive.
func (w way) send(t *testing.T, n, size int, interval, patience time.Duration) int {
	t.Helper()
	arrived := make(chan int)
	go func() {
		buf, count := make([]byte, 1<<16), 0
		_ = w.to.SetReadDeadline(time.Now().Add(time.Duration(n)*interval + patience))
		for count < n {
			got, _, err := w.to.ReadFrom(buf)
			if err != nil {
				break
			}
			if got == size {
				count++
			}
		}
		arrived <- count
	}()
	next := time.Now()
	for range n {
		if _, err := w.from.WriteTo(make([]byte, size), w.to.LocalAddr()); err != nil {
			t.Error(err)
		}
		next = next.Add(interval)
		time.Sleep(time.Until(next))
	}
	return <-arrived
}

// waiting is how many bytes of fragments wait in the host, by family.
func waiting(t *testing.T, family string) int {
	t.Helper()
	file, line := "/proc/thread-self/net/sockstat", "FRAG: inuse "
	if family == "IPv6" {
		file, line = "/proc/thread-self/net/sockstat6", "FRAG6: inuse "
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), line)
	_, rest, _ = strings.Cut(rest, "memory ")
	n, err := strconv.Atoi(strings.Fields(rest + " x")[0])
	if err != nil {
		t.Fatalf("%s: %q", file, text)
	}
	return n
}

// TestLonelyFragments has a container fill the host's reassembly with fragments whose rest
// never comes: without the guard nobody's datagrams arrive that do not fit a frame, with
// it all do.
func TestLonelyFragments(t *testing.T) {
	h := newHost(t, 3)
	if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
		t.Skip("no br_netfilter: nothing within a bridge is put together")
	}
	run(t, "ip", "link", "set", bridgeName, "type", "bridge", "nf_call_iptables", "1", "nf_call_ip6tables", "1")
	run(t, "nft", "add table inet tracked; add chain inet tracked forward { type filter hook forward priority 0; }; add rule inet tracked forward ct state established counter")
	for _, f := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		h.check(os.WriteFile(sysctls+f, []byte("1"), 0))
	}
	a, x, y := h.boxes[0], h.boxes[1], h.boxes[2]
	far := h.farBox()
	ways := map[string][]way{}
	for family, addr := range map[string]func(*box) netip.Addr{"IPv4": func(b *box) netip.Addr { return b.ip4 }, "IPv6": func(b *box) netip.Addr { return b.ip6 }} {
		gateway := map[string]netip.Addr{"IPv4": gateway4, "IPv6": gateway6}[family]
		ways[family] = []way{
			{"to a neighbour", x.udp(addr(x)), y.udp(addr(y))},
			{"through the host", x.udp(addr(x)), far.udp(addr(far))},
			{"to the host", x.udp(addr(x)), socketOf(t, gateway)},
		}
	}
	arrive := func(t *testing.T, family string, want int, patience time.Duration) {
		t.Helper()
		for _, w := range ways[family] {
			if got := w.send(t, 10, 8000, time.Millisecond, patience); got != want {
				t.Errorf("%s %s: %d of 10 arrive, want %d", family, w.name, got, want)
			}
		}
	}
	// The frames of one turn: each form to the host and to a neighbour.
	number := uint32(0)
	turn := func(family string) [][]byte {
		var out [][]byte
		to, gateway := y.ip4, gateway4
		if family == "IPv6" {
			to, gateway = y.ip6, gateway6
		}
		for _, make := range lonely[family] {
			number += 2
			out = append(out, make(number, to, y.mac, a), make(number+1, gateway, h.mac, a))
		}
		return out
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		arrive(t, family, 10, arrives)
		for range 2000 {
			for _, f := range turn(family) {
				a.send(f)
			}
		}
		if family == "IPv4" { // the other pool is conntrack's, of which nobody can read how full it is
			h.await("the pool is full", func() bool { return waiting(t, family) > 4_000_000 })
		}
		arrive(t, family, 0, 200*time.Millisecond)
	}

	d, w := h.driver(), h.wish()
	w.FragmentRate, w.Others = DefaultFragmentRate, []int{far.port}
	h.apply(d, w)
	before := violations(t, d, a)
	for _, family := range []string{"IPv4", "IPv6"} {
		arrive(t, family, 10, arrives)
		begin := waiting(t, family)
		done, end := make(chan struct{}), time.Now().Add(time.Second)
		if family == "IPv4" {
			end = end.Add(reassemblyTime * time.Second) // as many as ever wait
		}
		var frames [][]byte
		for range 4000 {
			frames = append(frames, turn(family)...)
		}
		var sent int
		var attacker sync.WaitGroup
		attacker.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					if _, err := unix.Write(a.socket, frames[i%len(frames)]); err == nil {
						sent++
					}
				}
			}
		})
		peak := 0
		for time.Now().Before(end) {
			arrive(t, family, 10, arrives)
			peak = max(peak, waiting(t, family)-begin)
		}
		close(done)
		attacker.Wait()
		t.Logf("%s: %d fragments, at most %d bytes wait", family, sent, peak)
		if most := int(d.kernel.reassembly.memory / 8); peak > most {
			t.Errorf("%s: %d bytes wait, at most %d shall", family, peak, most)
		}
	}
	after := violations(t, d, a)
	if after.Fragments == before.Fragments || after.Total()-before.Total() != after.Fragments-before.Fragments {
		t.Errorf("violations %+v", after)
	}

	// Honest ones, at 50 Mbit/s.
	for family, size := range map[string]int{"IPv4": 60000, "IPv6": 20000} {
		for _, w := range ways[family] {
			n := 50_000_000 / 8 / size / 4
			if got := w.send(t, n, size, 250*time.Millisecond/time.Duration(n), arrives); got != n {
				t.Errorf("%s %s: %d of %d arrive", family, w.name, got, n)
			}
		}
	}
	if v := violations(t, d, x); v.Total() > 0 {
		t.Errorf("honest fragments are refused: %+v", v)
	}
}

// TestStrangeFragments has ports that nobody knows send fragments: they do not enter the
// host's reassembly.
func TestStrangeFragments(t *testing.T) {
	h := newHost(t, 3)
	if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
		t.Skip("no br_netfilter: nothing within a bridge is put together")
	}
	run(t, "ip", "link", "set", bridgeName, "type", "bridge", "nf_call_iptables", "1", "nf_call_ip6tables", "1")
	run(t, "nft", "add table inet tracked; add chain inet tracked forward { type filter hook forward priority 0; }; add rule inet tracked forward ct state established counter")
	a, y := h.boxes[0], h.boxes[1]
	send := func() {
		for family, forms := range lonely {
			to := map[string]netip.Addr{"IPv4": y.ip4, "IPv6": y.ip6}[family]
			for i, form := range forms {
				a.send(form(uint32(i+1), to, y.mac, a))
			}
		}
	}
	h.learn(t)
	d, w := h.driver(), h.wish()
	w.Ports, w.FragmentRate = w.Ports[1:], DefaultFragmentRate
	w.Bridges = []Bridge{{Index: h.bridge, Name: bridgeName, Subnets: []netip.Prefix{netip.PrefixFrom(gateway4, 24).Masked(), netip.PrefixFrom(gateway6, 64).Masked()}}}
	h.apply(d, w)
	send()
	if n := waiting(t, "IPv4"); n != 0 {
		t.Errorf("%d bytes wait", n)
	}
	w.Open = true
	h.apply(d, w)
	send()
	h.await("they wait where admission is open", func() bool { return waiting(t, "IPv4") > 0 })
}

// TestFragmentBytes has few fragments of a port take as much as many do.
func TestFragmentBytes(t *testing.T) {
	h := newHost(t, 2)
	a, y := h.boxes[0], h.boxes[1]
	for _, n := range []string{a.name, bridgeName, y.name} {
		run(t, "ip", "link", "set", n, "mtu", "9000")
	}
	a.inside(func() { run(t, "ip", "link", "set", "eth0", "mtu", "9000") })
	d, w := h.driver(), h.wish()
	w.FragmentRate = 300
	h.apply(d, w)
	f := ether(y.mac, a.mac, 0x800, fragment4(ip4(a.ip4, y.ip4, 17, bytes.Repeat([]byte{0}, 8000)), 0, true))
	for range 90 {
		a.send(f)
	}
	if v := violations(t, d, a); v.Fragments == 0 || v.Total() != v.Fragments {
		t.Errorf("%+v", v)
	}
}

// farBox is a container on another bridge, with addresses of its own network.
func (h *host) farBox() *box {
	h.t.Helper()
	h.addBridge("br-far", MAC{2, 0x42, 0, 0, 0, 9}, netip4(172, 31, 0, 1), netip.MustParseAddr("fd00:31::1"))
	b := h.addBox("br-far", "far", 9)
	h.boxes = h.boxes[:len(h.boxes)-1]
	b.ip4, b.ip6 = netip4(172, 31, 0, 9), netip.MustParseAddr("fd00:31::9")
	b.inside(func() {
		run(h.t, "ip", "addr", "flush", "dev", "eth0", "scope", "global")
		run(h.t, "ip", "addr", "add", prefixed(b.ip4), "dev", "eth0")
		run(h.t, "ip", "addr", "add", prefixed(b.ip6), "dev", "eth0", "nodad")
		run(h.t, "ip", "route", "replace", "default", "via", "172.31.0.1")
		run(h.t, "ip", "route", "replace", "default", "via", "fd00:31::1")
	})
	for _, other := range h.boxes {
		other.inside(func() { run(h.t, "ip", "route", "replace", "default", "via", gateway6.String()) })
	}
	return b
}

// udp opens a socket in the container.
func (b *box) udp(addr netip.Addr) (c net.PacketConn) {
	b.inside(func() { c = socketOf(b.host.t, addr) })
	return c
}

func socketOf(t *testing.T, addr netip.Addr) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", fmt.Sprintf("[%s]:0", addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20)
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}
