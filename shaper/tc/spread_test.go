package tc_test

import (
	"net/netip"
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
	want := tree(t, shaper.Ingress, shaper.Gbit, shaper.Hashed)
	apply(t, d, veth, shaper.Wish{Ingress: want})
	send, passed := out(t, veth), leaves(t, veth)
	const ports = 40
	of := shaper.Spreads[shaper.Ingress]
	for _, c := range []struct {
		name  string
		apart uint16 // senders with consecutive addresses
		frame func(n int, port uint16) []byte
	}{
		{"small", of.Small, func(n int, p uint16) []byte { return udp4(n, p, 200) }},
		{"at_the_border", of.Small, func(n int, p uint16) []byte { return udp4(n, p, shaper.SmallPacket) }},
		{"small_IPv6", of.Small, func(n int, p uint16) []byte { return udp6(n, p, 200) }},
		{"ARP", of.Small, func(n int, _ uint16) []byte { return arp(n) }},
		{"too_short_for_its_protocol", of.Small, func(n int, p uint16) []byte { return udp4(n, p, 200)[:34] }},
		{"large", of.Large, func(n int, p uint16) []byte { return udp4(n, p, 1400) }},
		{"just_large", of.Large, func(n int, p uint16) []byte { return udp4(n, p, shaper.SmallPacket+1) }},
		{"large_IPv6", of.Large, func(n int, p uint16) []byte { return udp6(n, p, 1400) }},
		{"fragments", of.Large, func(n int, p uint16) []byte {
			f := udp4(n, p, 1400)
			f[20] = 0x20 // more follow
			return f
		}},
		{"any_options_label_and_congestion_bits", of.Small, func(n int, p uint16) []byte {
			if p%2 == 0 {
				f := udp6(n, p, 200)
				f[15], f[16], f[21] = 3<<4, byte(p), 1 // ECN, flow label, hop limit
				return f
			}
			f := udp4(n, p, 200)
			f[14], f[15], f[22] = 0x46+byte(p%10), byte(p), 1 // length of the header, TOS, TTL
			return f
		}},
		{"any_protocol_and_header", of.Large, func(n int, p uint16) []byte {
			if p%2 == 0 {
				f := udp6(n, p, 1400)
				f[20] = byte(p) // extension headers among them
				return f
			}
			f := udp4(n, p, 1400)
			f[23] = byte(p)
			return f
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			whose := map[uint16]int{}
			for n := 2; n < 2+int(c.apart); n++ {
				var frames [][]byte
				for p := range uint16(ports) {
					frames = append(frames, c.frame(n, 1024+p*977))
				}
				got := classesOf(passed, send, frames...)
				if len(got) != 1 {
					t.Errorf("sender %d has classes %v", n, got)
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
	want := tree(t, shaper.Egress, shaper.Gbit, shaper.Hashed)
	apply(t, d, veth, shaper.Wish{Egress: want})
	s, err := d.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	ifb := s.IFB(veth)
	send, passed := out(t, peer(t, "inside")), leaves(t, ifb)
	of := shaper.Spreads[shaper.Egress]
	for _, c := range []struct {
		name  string
		most  uint16
		frame func(port uint16) []byte
	}{
		{"small", of.Small, func(p uint16) []byte { return udp4(2, p, 200) }},
		{"small_IPv6", of.Small, func(p uint16) []byte { return udp6(2, p, 200) }},
		{"large", of.Large, func(p uint16) []byte { return udp4(2, p, 1400) }},
		{"large_IPv6", of.Large, func(p uint16) []byte { return udp6(2, p, 1400) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var frames [][]byte
			for p := range uint16(200) {
				frames = append(frames, c.frame(1024+p*31))
			}
			got := classesOf(passed, send, frames...)
			if len(got) != int(c.most) || got[shaper.OtherMinor] {
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
	want := tree(t, shaper.Ingress, shaper.Mbit, shaper.Hashed)
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
	apply(t, d, veth, shaper.Wish{Ingress: tree(t, shaper.Ingress, 2*shaper.Mbit, shaper.Hashed)})
	if after := counters(); after.Drops < before.Drops || after.Packets < before.Packets {
		t.Errorf("before the change %+v, after it %+v", before, after)
	}
}
