package iptables

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	vish "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// lab is a host with two bridges and three containers: a and b on br0, c on br1.
// The thread of the test is the host's.
type lab struct {
	t       *testing.T
	host    netns.NsHandle
	a, b, c *node
}

// node is a container of the lab.
type node struct {
	t  *testing.T
	ns netns.NsHandle
	// addrs are those of both families, gateways the host's.
	addrs, gateways [2]netip.Addr
}

func newLab(t *testing.T, kind Backend) *lab {
	t.Helper()
	namespace(t)
	strangers(t)
	docker(t, kind)
	host, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	l := &lab{t: t, host: host}
	sysctl(t, "net/bridge/bridge-nf-call-iptables", "0")
	sysctl(t, "net/bridge/bridge-nf-call-ip6tables", "0")
	sysctl(t, "net/ipv4/ip_forward", "1")
	sysctl(t, "net/ipv6/conf/all/forwarding", "1")
	sysctl(t, noDAD, "0")
	up(t, "lo")
	for i, name := range []string{"br0", "br1"} {
		br := &vish.Bridge{LinkAttrs: vish.LinkAttrs{Name: name}}
		if err := vish.LinkAdd(br); err != nil {
			t.Fatal(err)
		}
		for _, cidr := range []string{fmt.Sprintf("10.77.%d.254/24", i), fmt.Sprintf("2001:db8:77:%d::fe/64", i)} {
			addAddress(t, name, cidr)
		}
		up(t, name)
	}
	l.a, l.b, l.c = l.node("a", 0, 1), l.node("b", 0, 2), l.node("c", 1, 3)
	return l
}

// noDAD lets IPv6 work at once: without, link-local addresses take up to two
// seconds.
const noDAD = "net/ipv6/conf/default/accept_dad"

func sysctl(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func up(t *testing.T, name string) {
	t.Helper()
	link, err := vish.LinkByName(name)
	if err == nil {
		err = vish.LinkSetUp(link)
	}
	if err != nil {
		t.Fatalf("set %s up: %v", name, err)
	}
}

func addAddress(t *testing.T, name, cidr string) {
	t.Helper()
	a, err := vish.ParseAddr(cidr)
	if err != nil {
		t.Fatal(err)
	}
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	link, err := vish.LinkByName(name)
	if err == nil {
		err = vish.AddrAdd(link, a)
	}
	if err != nil {
		t.Fatalf("give %s %s: %v", name, cidr, err)
	}
}

func (l *lab) node(name string, bridge, number int) *node {
	t := l.t
	t.Helper()
	n := &node{t: t,
		addrs:    [2]netip.Addr{addr(fmt.Sprintf("10.77.%d.%d", bridge, number)), addr(fmt.Sprintf("2001:db8:77:%d::%d", bridge, number))},
		gateways: [2]netip.Addr{addr(fmt.Sprintf("10.77.%d.254", bridge)), addr(fmt.Sprintf("2001:db8:77:%d::fe", bridge))}}
	var err error
	if n.ns, err = netns.New(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.ns.Close() })
	sysctl(t, noDAD, "0")
	if err := netns.Set(l.host); err != nil {
		t.Fatal(err)
	}
	pair := &vish.Veth{LinkAttrs: vish.LinkAttrs{Name: "v" + name}, PeerName: "eth0", PeerNamespace: vish.NsFd(n.ns)}
	if err := vish.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	br, err := vish.LinkByName(fmt.Sprintf("br%d", bridge))
	if err == nil {
		err = vish.LinkSetMaster(pair, br)
	}
	if err != nil {
		t.Fatal(err)
	}
	up(t, "v"+name)
	n.do(func() {
		up(t, "lo")
		for i, bits := range []int{24, 64} {
			addAddress(t, "eth0", netip.PrefixFrom(n.addrs[i], bits).String())
		}
		up(t, "eth0")
		link, err := vish.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range n.gateways {
			if err := vish.RouteAdd(&vish.Route{LinkIndex: link.Attrs().Index, Gw: net.IP(g.AsSlice())}); err != nil {
				t.Fatal(err)
			}
		}
	})
	return n
}

// do runs f in the container, on a thread that is thrown away.
func (n *node) do(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := netns.Set(n.ns); err != nil {
			n.t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// on is do for the host, which is the thread of the test.
func on(n *node, f func()) {
	if n == nil {
		f()
		return
	}
	n.do(f)
}

// patience is how long a connection that is denied is waited for; far longer than
// any that is allowed takes here.
const patience = 250 * time.Millisecond

// serve starts servers on a TCP and a UDP port of a node. Whoever speaks to one is
// answered, and then sent a byte every few milliseconds for as long as it lasts.
func serve(t *testing.T, n *node, port uint16) {
	t.Helper()
	on(n, func() {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: int(port)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.AcceptTCP()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					go func() { _, _ = io.Copy(io.Discard, c) }()
					for {
						if _, err := c.Write([]byte{1}); err != nil {
							return
						}
						time.Sleep(tick)
					}
				}()
			}
		}()
		// One socket for each family: answers come from the address asked.
		for _, network := range []string{"udp4", "udp6"} {
			u, err := net.ListenUDP(network, &net.UDPAddr{Port: int(port)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { u.Close() })
			go func() {
				known := map[netip.AddrPort]bool{}
				b := make([]byte, 64)
				for {
					_, from, err := u.ReadFromUDPAddrPort(b)
					if errors.Is(err, net.ErrClosed) {
						return
					}
					if err != nil || known[from] {
						continue
					}
					known[from] = true
					go func() {
						for {
							if _, err := u.WriteToUDPAddrPort([]byte{1}, from); errors.Is(err, net.ErrClosed) {
								return
							}
							time.Sleep(tick)
						}
					}()
				}
			}()
		}
	})
}

const tick = 5 * time.Millisecond

// dialFrom opens a connection and tells whether the server answered.
func dialFrom(t *testing.T, n *node, network string, to netip.AddrPort) (net.Conn, bool) {
	t.Helper()
	var c net.Conn
	var err error
	on(n, func() {
		c, err = net.DialTimeout(network, to.String(), patience)
	})
	if err != nil {
		return nil, false
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write([]byte{1}); err != nil {
		return c, false
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	read, err := c.Read(make([]byte, 1))
	return c, err == nil && read == 1
}

// reaches tells whether a server answers. What is expected to work may take a
// second or two, on a machine that has other work.
func reaches(t *testing.T, n *node, network string, to netip.AddrPort, want bool) bool {
	t.Helper()
	for range 10 {
		c, ok := dialFrom(t, n, network, to)
		if c != nil {
			c.Close()
		}
		if ok || !want {
			return ok
		}
	}
	return false
}

// stream is a connection on which the server goes on sending.
type stream struct {
	name string
	last atomic.Int64 // when something came last, in ns
	conn net.Conn
}

func newStream(t *testing.T, n *node, network string, to netip.AddrPort) *stream {
	t.Helper()
	c, ok := dialFrom(t, n, network, to)
	if !ok {
		t.Fatalf("%s to %s is not open", network, to)
	}
	s := &stream{conn: c, name: network + " " + to.String()}
	s.last.Store(time.Now().UnixNano())
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 1)
		for {
			if _, err := c.Read(b); errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
				return
			}
			s.last.Store(time.Now().UnixNano())
		}
	}()
	return s
}

// quiet tells whether nothing has come for that long.
func (s *stream) quiet(d time.Duration) bool {
	return time.Since(time.Unix(0, s.last.Load())) > d
}

// await waits until cond holds.
func await(t *testing.T, d time.Duration, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	every := time.NewTicker(tick)
	defer every.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s", what, d)
		case <-every.C:
		}
	}
}

// sink counts the datagrams that reach a port of a node.
func sink(t *testing.T, n *node, port uint16) *atomic.Int64 {
	t.Helper()
	var count atomic.Int64
	on(n, func() {
		u, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { u.Close() })
		go func() {
			b := make([]byte, 64)
			for {
				if _, _, err := u.ReadFromUDPAddrPort(b); err != nil {
					return
				}
				count.Add(1)
			}
		}()
	})
	return &count
}

// flood sends datagrams of both families to a port, many a millisecond, until
// stop is closed, and counts them.
func flood(t *testing.T, from, to *node, port uint16, stop <-chan struct{}) *atomic.Int64 {
	t.Helper()
	var count atomic.Int64
	var conns []net.Conn
	on(from, func() {
		for _, a := range to.addrs {
			c, err := net.Dial("udp", netip.AddrPortFrom(a, port).String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			conns = append(conns, c)
		}
	})
	go func() {
		every := time.NewTicker(time.Millisecond)
		defer every.Stop()
		for {
			select {
			case <-stop:
				return
			case <-every.C:
			}
			for range 5 {
				for _, c := range conns {
					if _, err := c.Write([]byte{1}); err == nil {
						count.Add(1)
					}
				}
			}
		}
	}()
	return &count
}
