package tc_test

import (
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netguard/shaper"
	"netguard/shaper/tc"
)

// out sends whole frames by an interface, and so through the qdisc at its root.
func out(t *testing.T, index int) func([]byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func(frame []byte) {
		t.Helper()
		if _, err := unix.Write(fd, frame); err != nil {
			t.Fatal(err)
		}
	}
}

// quiet has the kernel send nothing of its own by the pair.
func quiet(t *testing.T) {
	t.Helper()
	for _, name := range []string{"outside", "inside"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// leaves reads what each leaf of netguard's on a device has passed, by the minor of
// its class. It goes on reading in this namespace on whichever thread.
func leaves(t *testing.T, index int) func() map[uint16]uint32 {
	t.Helper()
	h, err := vish.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return func() map[uint16]uint32 {
		all, err := h.QdiscList(&vish.Device{LinkAttrs: vish.LinkAttrs{Index: index}})
		if err != nil {
			t.Fatal(err)
		}
		got := map[uint16]uint32{}
		for _, q := range all {
			if at := q.Attrs(); at.Parent>>16 == shaper.RootMajor && at.Statistics != nil && at.Statistics.Basic != nil {
				got[uint16(at.Parent)] += at.Statistics.Basic.Packets
			}
		}
		return got
	}
}

func peer(t *testing.T, name string) int {
	t.Helper()
	l, err := vish.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Index
}

var (
	toMAC = []byte{2, 0, 0, 0, 9, 9}
	to4   = netip.MustParseAddr("198.18.0.200")
	to6   = netip.MustParseAddr("fd00::c8")
)

// frame is an Ethernet frame of the n-th sender, with zeroes up to a size.
func frame(n int, ethertype uint16, size int, parts ...[]byte) []byte {
	f := slices.Concat(toMAC, []byte{2, 0x42, 198, 18, 0, byte(n), byte(ethertype >> 8), byte(ethertype)}, slices.Concat(parts...))
	return append(f, make([]byte, size-len(f))...)
}

func udp4(n int, port uint16, size int) []byte {
	return frame(n, unix.ETH_P_IP, size, []byte{0x45, 0, byte((size - 14) >> 8), byte(size - 14), 0, 1, 0, 0, 64, unix.IPPROTO_UDP, 0, 0,
		198, 18, 0, byte(n)}, to4.AsSlice(), []byte{byte(port >> 8), byte(port), 0, 53})
}

func udp6(n int, port uint16, size int) []byte {
	from := [16]byte{0: 0xfd, 15: byte(n)}
	return frame(n, unix.ETH_P_IPV6, size, []byte{0x60, 0, 0, 0, byte((size - 54) >> 8), byte(size - 54), unix.IPPROTO_UDP, 64},
		from[:], to6.AsSlice(), []byte{byte(port >> 8), byte(port), 0, 53})
}

func arp(n int) []byte { return frame(n, unix.ETH_P_ARP, 42) }

// classesOf gives the classes that frames went to.
func classesOf(passed func() map[uint16]uint32, send func([]byte), frames ...[]byte) map[uint16]bool {
	before := passed()
	for _, f := range frames {
		send(f)
	}
	got := map[uint16]bool{}
	for class, n := range passed() {
		if n > before[class] {
			got[class] = true
		}
	}
	return got
}

// One sender can fill no class that the next ones wait in, whatever it sends.
func TestSendersAreApart(t *testing.T) {
	d, veth := vethIn(t)
	quiet(t)
	want := tree(t, shaper.Gbit, shaper.Hashed)
	apply(t, d, veth, shaper.Wish{Ingress: want})
	send, passed := out(t, veth), leaves(t, veth)
	const ports = 40
	for _, c := range []struct {
		name  string
		apart int // senders with consecutive addresses
		most  int // classes of one sender
		frame func(n int, port uint16) []byte
	}{
		{"small", shaper.SmallClasses, 1, func(n int, p uint16) []byte { return udp4(n, p, 200) }},
		{"at_the_border", shaper.SmallClasses, 1, func(n int, p uint16) []byte { return udp4(n, p, shaper.SmallPacket) }},
		{"small_IPv6", shaper.SmallClasses, 1, func(n int, p uint16) []byte { return udp6(n, p, 200) }},
		{"ARP", shaper.SmallClasses, 1, func(n int, _ uint16) []byte { return arp(n) }},
		{"large", shaper.FlowClasses / shaper.FlowsPerSender, shaper.FlowsPerSender, func(n int, p uint16) []byte { return udp4(n, p, 1400) }},
		{"just_large", shaper.FlowClasses / shaper.FlowsPerSender, shaper.FlowsPerSender, func(n int, p uint16) []byte { return udp4(n, p, shaper.SmallPacket+1) }},
		{"large_IPv6", shaper.FlowClasses / shaper.FlowsPerSender, shaper.FlowsPerSender, func(n int, p uint16) []byte { return udp6(n, p, 1400) }},
		{"fragments", shaper.FlowClasses / shaper.FlowsPerSender, 1, func(n int, p uint16) []byte {
			f := udp4(n, p, 1400)
			f[20] = 0x20 // more follow
			return f
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			whose := map[uint16]int{}
			for n := 2; n < 2+c.apart; n++ {
				var frames [][]byte
				for p := range uint16(ports) {
					frames = append(frames, c.frame(n, 1024+p*977))
				}
				got := classesOf(passed, send, frames...)
				if len(got) != c.most {
					t.Errorf("sender %d has classes %v, want %d", n, got, c.most)
				}
				for class := range got {
					if other, taken := whose[class]; taken {
						t.Errorf("senders %d and %d share class %x", other, n, class)
					}
					whose[class] = n
				}
			}
			if whose[shaper.OtherMinor] != 0 {
				t.Error("the filter did not know them")
			}
		})
	}
	t.Run("all_of_one_neighbour_is_in_one_small_class", func(t *testing.T) {
		if got := classesOf(passed, send, udp4(7, 9, 100), udp6(7, 9, 100), arp(7)); len(got) != 1 {
			t.Errorf("its classes are %v", got)
		}
	})
}

// What a container sends is its own: there flows are apart.
func TestFlowsAreApart(t *testing.T) {
	d, veth := vethIn(t)
	quiet(t)
	want := tree(t, shaper.Gbit, shaper.Hashed)
	apply(t, d, veth, shaper.Wish{Egress: want})
	s, err := d.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	ifb := s.IFB(veth)
	send, passed := out(t, peer(t, "inside")), leaves(t, ifb)
	for name, frame := range map[string]func(port uint16) []byte{
		"small":      func(p uint16) []byte { return udp4(2, p, 200) },
		"small_IPv6": func(p uint16) []byte { return udp6(2, p, 200) },
		"large":      func(p uint16) []byte { return udp4(2, p, 1400) },
		"large_IPv6": func(p uint16) []byte { return udp6(2, p, 1400) },
	} {
		t.Run(name, func(t *testing.T) {
			var frames [][]byte
			for p := range uint16(200) {
				frames = append(frames, frame(1024+p*31))
			}
			got := classesOf(passed, send, frames...)
			if len(got) != shaper.FlowClasses || got[shaper.OtherMinor] {
				t.Errorf("200 flows are in classes %v", got)
			}
			one := classesOf(passed, send, frames[0], frames[0], frames[0])
			if len(one) != 1 {
				t.Errorf("one flow is in classes %v", one)
			}
		})
	}
}

// What a queue of tbf drops of a batch that it cuts is known to that queue alone.
func TestDropsAreWhatWasLost(t *testing.T) {
	d, veth := vethIn(t)
	quiet(t)
	want := tree(t, shaper.Mbit, shaper.Hashed)
	apply(t, d, veth, shaper.Wish{Ingress: want})
	link := &vish.Device{LinkAttrs: vish.LinkAttrs{Index: veth}}
	addr, err := vish.ParseAddr("198.18.0.1/24")
	if err == nil {
		err = vish.AddrAdd(link, addr)
	}
	if err == nil {
		err = vish.NeighAdd(&vish.Neigh{LinkIndex: veth, State: unix.NUD_PERMANENT, IP: to4.AsSlice(), HardwareAddr: toMAC[:]})
	}
	fd := -1
	if err == nil {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, 1000)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	inside := peer(t, "inside")
	received := func() uint64 {
		l, err := vish.LinkByIndex(inside)
		if err != nil {
			t.Fatal(err)
		}
		return l.Attrs().Statistics.RxPackets
	}
	counters := func() tc.Counters {
		s, err := d.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.Counters(veth)
		if err != nil {
			t.Fatal(err)
		}
		return c[shaper.Ingress]
	}
	began := received()
	const batches, segments = 4, 50
	for range batches {
		if err := unix.Sendto(fd, make([]byte, segments*1000), 0, &unix.SockaddrInet4{Port: 9, Addr: to4.As4()}); err != nil {
			t.Fatal(err)
		}
	}
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, got := counters(), received()-began
		if c.Backlog == 0 {
			if c.Drops == 0 || got+c.Drops != batches*segments || got < segments {
				t.Errorf("%d of %d segments arrived, %d drops are told", got, batches*segments, c.Drops)
			}
			break
		}
		if time.Now().After(until) {
			t.Fatalf("still %+v", c)
		}
	}
	// A rate that changes, changes no counter.
	before := counters()
	apply(t, d, veth, shaper.Wish{Ingress: tree(t, 2*shaper.Mbit, shaper.Hashed)})
	if after := counters(); after.Drops < before.Drops || after.Packets < before.Packets {
		t.Errorf("before the change %+v, after it %+v", before, after)
	}
}

// olderTree is what older versions built: one class for small packets, and eight.
func olderTree(rate uint64) *shaper.Tree {
	t := &shaper.Tree{Leaf: shaper.Hashed, Default: 2, Classes: []shaper.Class{{Minor: 1, Rate: rate, Ceil: rate, Burst: 1e6, Cburst: 1e6, Quantum: 65550}}}
	for _, minor := range []uint16{2, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17} {
		t.Classes = append(t.Classes, shaper.Class{Minor: minor, Parent: 1, Rate: rate / 16, Ceil: rate, Burst: 1, Cburst: 1e6, Quantum: 1514})
		t.Queues = append(t.Queues, shaper.Queue{Class: minor, Kind: "tbf", Limit: 15140, Buffer: 1, Rate: 1518 * 1e9 / 64})
	}
	return t
}

// What is queued in an older version's tree arrives, and there is a limit at any time.
func TestOlderTreeIsAdopted(t *testing.T) {
	d, veth := vethIn(t)
	quiet(t)
	old := olderTree(8000)
	if err := d.Apply(veth, "outside", shaper.Diff(shaper.Endpoint{}, shaper.Wish{Ingress: old, Egress: old})); err != nil {
		t.Fatal(err)
	}
	send := out(t, veth)
	for range 10 {
		send(udp4(2, 9, 1400)) // without the filter all are in the default class
	}
	backlog := func() tc.Counters {
		s, err := d.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.Counters(veth)
		if err != nil {
			t.Fatal(err)
		}
		return c[shaper.Ingress]
	}
	before := backlog()
	if before.Backlog == 0 {
		t.Fatal("nothing is queued")
	}
	want := tree(t, 64*shaper.Kbit, shaper.Hashed)
	for _, s := range apply(t, d, veth, shaper.Wish{Ingress: want, Egress: want}) {
		switch s.Op {
		case shaper.AddClass, shaper.ChangeClass, shaper.AddQueue, shaper.ChangeQueue, shaper.AddClassifier:
		default:
			t.Errorf("not in place: %v", s)
		}
	}
	if after := backlog(); after.Drops != before.Drops || after.Packets < before.Packets {
		t.Errorf("before: %+v, after: %+v", before, after)
	}
	for until := time.Now().Add(5 * time.Second); backlog().Backlog > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("still queued: %+v", backlog())
		}
	}
	if c := backlog(); c.Drops != 0 || c.Packets < 10 {
		t.Errorf("10 frames were queued: %+v", c)
	}
}
