package guard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	vish "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"netguard/internal/asroot"
)

// arrives is how long a frame may take that must arrive, far more than it does.
const arrives = 5 * time.Second

// host is a network namespace with a bridge, like a Docker host's.
type host struct {
	t      *testing.T
	ns     netns.NsHandle
	cpu    int
	bridge int
	mac    MAC
	boxes  []*box
}

// hosts counts those that were made.
var hosts atomic.Int64

const bridgeName = "br-test"

var (
	gateway4 = netip.MustParseAddr("172.30.0.1")
	gateway6 = netip.MustParseAddr("fd00:30::1")
)

// box is a container: a namespace of its own with one end of a veth, and a socket
// in it that sends whatever it is told.
type box struct {
	host   *host
	name   string
	ns     netns.NsHandle
	socket int
	port   int // ifindex of the host's end
	mac    MAC
	ip4    netip.Addr
	ip6    netip.Addr
}

// newHost makes a host with n containers, beside those of other tests. The test's thread
// stays in the host's namespace and on one CPU, so that frames stay in order; it is thrown
// away with the test.
func newHost(t *testing.T, n int) *host {
	t.Helper()
	asroot.Only(t)
	t.Parallel()
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("make network namespace (root is needed): %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	h := &host{t: t, ns: ns, mac: MAC{2, 0x42, 0, 0, 0, 1}, cpu: someCPU(t)}
	h.pin(t)
	// As on most Docker hosts. With br_netfilter the bridge would refuse
	// malformed packets itself, and cut off what follows a packet.
	for _, name := range []string{"iptables", "ip6tables", "arptables"} {
		err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte("0"), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	h.bridge = h.addBridge(bridgeName, h.mac, gateway4, gateway6)
	for i := range n {
		h.addBox(bridgeName, fmt.Sprintf("box%d", i), i+2)
	}
	return h
}

// someCPU shares the machine's CPUs out among hosts.
func someCPU(t *testing.T) int {
	t.Helper()
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		t.Fatal(err)
	}
	var all []int
	for cpu := range 1024 {
		if may.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	return all[int(hosts.Add(1))%len(all)]
}

// pin keeps the calling goroutine on a thread of its own, in the host's namespace
// and on one CPU, until it ends.
func (h *host) pin(t *testing.T) {
	runtime.LockOSThread()
	var cpus unix.CPUSet
	cpus.Set(h.cpu)
	if err := errors.Join(netns.Set(h.ns), unix.SchedSetaffinity(0, &cpus)); err != nil {
		t.Fatal(err)
	}
}

// run is t.Run on a thread in the host's namespace.
func (h *host) run(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		h.pin(t)
		f(t)
	})
}

func (h *host) addBridge(name string, mac MAC, addrs ...netip.Addr) int {
	h.t.Helper()
	// With snooping, reports of groups would go to multicast routers alone.
	run(h.t, "ip", "link", "add", name, "address", mac.String(), "type", "bridge", "mcast_snooping", "0")
	run(h.t, "ip", "link", "set", name, "up")
	for _, a := range addrs {
		run(h.t, "ip", "addr", "add", prefixed(a), "dev", name, "nodad")
	}
	l, err := vish.LinkByName(name)
	h.check(err)
	return l.Attrs().Index
}

func prefixed(a netip.Addr) string {
	if a.Is4() {
		return a.String() + "/24"
	}
	return a.String() + "/64"
}

func (h *host) addBox(bridge, name string, number int) *box {
	h.t.Helper()
	ns, err := netns.New()
	h.check(err)
	h.check(netns.Set(h.ns))
	h.t.Cleanup(func() { ns.Close() })
	b := &box{host: h, name: name, ns: ns, mac: MAC{2, 0x42, 0xac, 0x1e, 0, byte(number)},
		ip4: netip.AddrFrom4([4]byte{172, 30, 0, byte(number)}),
		ip6: netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x30, 15: byte(number)})}
	run(h.t, "ip", "link", "add", name, "type", "veth", "peer", "name", "tmp0", "address", b.mac.String())
	peer, err := vish.LinkByName("tmp0")
	h.check(err)
	h.check(vish.LinkSetNsFd(peer, int(ns)))
	// Else the host's end speaks to the container, though no bridge does.
	run(h.t, "ip", "link", "set", name, "addrgenmode", "none")
	run(h.t, "ip", "link", "set", name, "master", bridge, "up")
	l, err := vish.LinkByName(name)
	h.check(err)
	b.port = l.Attrs().Index
	b.inside(func() {
		run(h.t, "ip", "link", "set", "lo", "up")
		run(h.t, "ip", "link", "set", "tmp0", "name", "eth0")
		run(h.t, "ip", "link", "set", "eth0", "up")
		run(h.t, "ip", "addr", "add", prefixed(b.ip4), "dev", "eth0")
		run(h.t, "ip", "addr", "add", prefixed(b.ip6), "dev", "eth0", "nodad")
		run(h.t, "ip", "route", "add", "default", "via", gateway4.String())
		b.socket = packetSocket(h.t, "eth0", unix.ETH_P_ALL)
	})
	h.boxes = append(h.boxes, b)
	h.await("the port of "+name+" forwards", func() bool {
		return strings.Contains(output(h.t, "bridge", "link", "show", "dev", name), "state forwarding")
	})
	return b
}

// inside runs f on this thread, in the container's namespace.
func (b *box) inside(f func()) {
	b.host.t.Helper()
	b.host.check(netns.Set(b.ns))
	defer func() { b.host.check(netns.Set(b.host.ns)) }()
	f()
}

func packetSocket(t testing.TB, device string, protocol uint16) int {
	t.Helper()
	iface, err := net.InterfaceByName(device)
	if err != nil {
		t.Fatal(err)
	}
	wire := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(wire))
	if err == nil {
		err = unix.Bind(s, &unix.SockaddrLinklayer{Protocol: wire, Ifindex: iface.Index})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(s) })
	return s
}

func (b *box) send(frame []byte) {
	b.host.t.Helper()
	write(b.host.t, b.socket, frame)
}

func write(t *testing.T, socket int, frame []byte) {
	t.Helper()
	if _, err := unix.Write(socket, frame); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// receive gives the next frame that arrived at a socket, nil when none is there.
func receive(socket int) []byte {
	buf := make([]byte, 2048)
	oob := make([]byte, 128)
	for {
		n, _, _, from, err := unix.Recvmsg(socket, buf, oob, unix.MSG_DONTWAIT)
		if err != nil {
			return nil
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		return buf[:n]
	}
}

// got waits for the last of the frames that were sent (the sentinel, which nothing
// refuses, and which comes after all the others on the same way) and says whether
// one came that has the mark.
func got(t *testing.T, socket int, mark, sentinel []byte) bool {
	t.Helper()
	seen := false
	for deadline := time.Now().Add(arrives); time.Now().Before(deadline); {
		switch f := receive(socket); {
		case f == nil:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(socket), Events: unix.POLLIN}}, 100)
		case bytes.Contains(f, sentinel):
			return seen
		case bytes.Contains(f, mark):
			seen = true
		}
	}
	t.Fatal("not even the frame that is allowed arrived")
	return false
}

// await waits until something holds.
func (h *host) await(what string, holds func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(arrives); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			h.t.Fatalf("not so after %s: %s", arrives, what)
		}
	}
}

// opened opens a socket, and waits while a closed one still has its address: a program
// that is just being started holds the sockets that were open at its fork until its exec.
func opened[T any](open func() (T, error)) (socket T, err error) {
	for deadline := time.Now().Add(arrives); ; time.Sleep(time.Millisecond) {
		if socket, err = open(); !errors.Is(err, unix.EADDRINUSE) || time.Now().After(deadline) {
			return socket, err
		}
	}
}

func (h *host) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	// ip complains there when named namespaces of others come and go.
	var fault strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Stderr = &fault
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, fault.String())
	}
	return string(out)
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	output(t, name, args...)
}

// wish wants every container guarded and admitted.
func (h *host) wish() Wish {
	w := Wish{Options: Options{Storm: DefaultStorm}}
	for _, b := range h.boxes {
		w.Ports = append(w.Ports, &Port{Index: b.port, Name: b.name, Bridge: h.bridge, BridgeName: bridgeName, MAC: b.mac,
			IPv4: b.ip4, IPv6: b.ip6, Gateways: []netip.Addr{gateway4, gateway6}, Guarded: true, Admitted: true})
	}
	return w
}

// edit gives a port of the wish that may be changed, in another list: a driver keeps both.
func (w *Wish) edit(i int) *Port {
	p := *w.Ports[i]
	w.Ports = slices.Clone(w.Ports)
	w.Ports[i] = &p
	return &p
}

// driver opens a driver in the host's namespace.
func (h *host) driver() *Driver {
	h.t.Helper()
	f, err := Probe()
	h.check(err)
	d, err := Open(f, slog.New(slog.DiscardHandler))
	h.check(err)
	h.t.Cleanup(d.Close)
	return d
}

// apply applies a wish and fails the test unless doing it again changes nothing.
func (h *host) apply(d *Driver, w Wish) Report {
	h.t.Helper()
	r, err := d.Apply(w, Everything)
	h.check(err)
	for index, p := range r.Ports {
		if p.State == Pending {
			h.t.Fatalf("port %d is pending: %q", index, p.Faults)
		}
	}
	again, err := d.Apply(w, Everything)
	h.check(err)
	if again.Changes != 0 || len(again.Drift) > 0 {
		h.t.Fatalf("twice is not once: %d changes, %q", again.Changes, again.Drift)
	}
	return r
}
