package iptables

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

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

// labHomes is where the containers of a lab are.
var labHomes = []Home{
	{addr("10.77.0.1"), "br0"}, {addr("10.77.0.2"), "br0"}, {addr("10.77.1.3"), "br1"},
	{addr("2001:db8:77:0::1"), "br0"}, {addr("2001:db8:77:0::2"), "br0"}, {addr("2001:db8:77:1::3"), "br1"},
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
