package guard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"netguard/netpolicy/guard/checksum"
)

// leave is what a sender leaves to the kernel to do with a frame: struct virtio_net_hdr,
// which PACKET_VNET_HDR takes with CAP_NET_RAW alone.
type leave struct {
	flags, gso                byte
	headers, size, start, off uint16
}

const (
	needsChecksum = 1

	gsoTCP4, gsoUFO, gsoTCP6, gsoUDP = 1, 3, 4, 5
)

func (l leave) bytes() []byte {
	b := []byte{l.flags, l.gso}
	for _, n := range []uint16{l.headers, l.size, l.start, l.off} {
		b = binary.NativeEndian.AppendUint16(b, n)
	}
	return b
}

// fill leaves a checksum, by where it begins and where it goes.
func fill(start, off uint16) leave { return leave{flags: needsChecksum, start: start, off: off} }

// cut leaves it to the kernel to cut the frame up as well.
func (l leave) cut(gso byte, size uint16) leave {
	l.gso, l.size, l.headers = gso, size, max(l.start, 34)
	return l
}

// tcpPacket is a TCP segment with a header of 20 bytes.
func tcpPacket(from, to uint16, payload ...[]byte) []byte {
	p := binary.BigEndian.AppendUint16(nil, from)
	p = binary.BigEndian.AppendUint16(p, to)
	p = append(p, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 4, 0, 0, 0, 0, 0)
	return append(p, slices.Concat(payload...)...)
}

// unfinishedFrame is a frame and what is left to the kernel. Its payload begins with the
// mark.
type unfinishedFrame struct {
	name  string
	left  leave
	frame func(a, v *box, payload []byte) []byte
	size  int // of the payload, more than the mark
}

// Frames, by what they carry.
func overIP4(protocol byte, transport func(payload []byte) []byte) func(a, v *box, payload []byte) []byte {
	return func(a, v *box, payload []byte) []byte {
		return ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, protocol, transport(payload)))
	}
}

func overIP6(next byte, transport func(payload []byte) []byte) func(a, v *box, payload []byte) []byte {
	return func(a, v *box, payload []byte) []byte {
		return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, next, transport(payload)))
	}
}

func tcpOf(payload []byte) []byte { return tcpPacket(1, 2, payload) }
func udpOf(payload []byte) []byte { return udpPacket(1, 2, payload) }

// cut4 is a fragment of IPv4.
func cut4(offset uint16, more bool, protocol byte, transport func([]byte) []byte) func(a, v *box, payload []byte) []byte {
	return func(a, v *box, payload []byte) []byte {
		return ether(v.mac, a.mac, 0x800, fragment4(ip4(a.ip4, v.ip4, protocol, transport(payload)), offset, more))
	}
}

// behind puts headers of IPv6 before what follows.
func behind(headers []byte, transport func([]byte) []byte) func([]byte) []byte {
	return func(payload []byte) []byte { return slices.Concat(headers, transport(payload)) }
}

const large = 60000

// unfinishedFrames are written into, or cut up, so that they are something else than what was judged,
// or cost much.
var unfinishedFrames = []unfinishedFrame{
	{"destination_port", fill(34, 2), overIP4(udp, udpOf), 0},
	{"source_port", fill(34, 0), overIP4(tcp, tcpOf), 0},
	{"source_address", fill(24, 2), overIP4(tcp, tcpOf), 0},
	{"destination_address", fill(24, 6), overIP4(udp, udpOf), 0},
	{"protocol", fill(14, 8), overIP4(udp, udpOf), 0},
	{"ethertype", fill(0, 12), overIP4(udp, udpOf), 0},
	{"flags_of_TCP", fill(34, 12), overIP4(tcp, tcpOf), 0},
	{"anothers_offset", fill(34, 6), overIP4(tcp, tcpOf), 0},
	{"one_byte_beside", fill(34, 7), overIP4(udp, udpOf), 0},
	{"payload", fill(42, 4), overIP4(udp, udpOf), 0},
	{"far_away", fill(1000, 0), overIP4(udp, udpOf), 1400},
	{"own_field_with_another_beginning", fill(35, 5), overIP4(udp, udpOf), 0},
	{"ICMP", fill(34, 2), overIP4(1, func(p []byte) []byte { return append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, p...) }), 0},
	{"what_an_ICMP_error_quotes", fill(42, 16), overIP4(1, func(p []byte) []byte { return append(make([]byte, 8), ip4(none4, none4, 17, udpPacket(1, 2, p))...) }), 0},
	{"a_protocol_that_has_none", fill(34, 6), overIP4(99, udpOf), 0},
	{"first_fragment", fill(34, 6), cut4(0, true, udp, udpOf), 0},
	{"first_fragment_of_TCP", fill(34, 16), cut4(0, true, tcp, tcpOf), 0},
	{"last_fragment", fill(34, 2), cut4(3, false, tcp, tcpOf), 0},
	{"middle_fragment", fill(34, 6), cut4(3, true, udp, udpOf), 0},
	{"ARP", fill(14, 14), func(a, v *box, payload []byte) []byte {
		return ether(v.mac, a.mac, 0x806, arpPacket(2, a.mac, a.ip4, v.mac, v.ip4), payload)
	}, 0},
	{"broadcast", fill(34, 2), func(a, v *box, payload []byte) []byte {
		return ether(broadcast, a.mac, 0x800, ip4(a.ip4, netip4(172, 30, 0, 255), udp, udpOf(payload)))
	}, 0},
	{"header_with_options", fill(34, 6), func(a, v *box, payload []byte) []byte {
		p := ip4(a.ip4, v.ip4, udp, []byte{1, 1, 1, 0}, udpOf(payload))
		return ether(v.mac, a.mac, 0x800, sum4(with(p, 0, 0x46)))
	}, 0},

	{"IPv6_destination_port", fill(54, 2), overIP6(udp, udpOf), 0},
	{"IPv6_source_address", fill(34, 2), overIP6(tcp, tcpOf), 0},
	{"IPv6_next_header", fill(14, 6), overIP6(tcp, tcpOf), 0},
	{"IPv6_behind_an_extension_header", fill(62, 2), overIP6(destOptions, behind(extension(udp), udpOf)), 0},
	{"IPv6_extension_header", fill(54, 6), overIP6(destOptions, behind(extension(udp), udpOf)), 0},
	{"IPv6_fragment", fill(62, 6), overIP6(44, behind(fragment6(udp, 0, true), udpOf)), 0},
	{"IPv6_last_fragment", fill(62, 6), overIP6(44, behind(fragment6(udp, 3, false), udpOf)), 0},
	{"IPv6_fragment_of_one", fill(62, 16), overIP6(44, behind(fragment6(tcp, 0, false), tcpOf)), 0},
	{"IPv6_fragment_behind_an_extension_header", fill(70, 6), overIP6(destOptions, behind(slices.Concat(extension(44), fragment6(udp, 0, true)), udpOf)), 0},
	{"ICMPv6", fill(54, 2), overIP6(icmp6, func(p []byte) []byte { return icmp6Packet(128, p) }), 0},

	{"segments_of_a_byte", fill(34, 16).cut(gsoTCP4, 1), overIP4(tcp, tcpOf), large},
	{"segments_of_8_bytes", fill(34, 16).cut(gsoTCP4, 8), overIP4(tcp, tcpOf), large},
	{"segments_of_200_bytes", fill(34, 16).cut(gsoTCP4, 200), overIP4(tcp, tcpOf), large},
	{"few_segments_of_a_byte", fill(34, 16).cut(gsoTCP4, 1), overIP4(tcp, tcpOf), 300},
	{"segments_of_a_byte_without_a_checksum", leave{}.cut(gsoTCP4, 1), overIP4(tcp, tcpOf), large},
	{"segments_of_a_byte_over_IPv6", fill(54, 16).cut(gsoTCP6, 1), overIP6(tcp, tcpOf), large},
	{"datagrams_of_a_byte", fill(34, 6).cut(gsoUDP, 1), overIP4(udp, udpOf), large},
	{"datagrams_of_100_bytes", fill(34, 6).cut(gsoUDP, 100), overIP4(udp, udpOf), large},
	{"datagrams_of_a_byte_over_IPv6", fill(54, 6).cut(gsoUDP, 1), overIP6(udp, udpOf), large},
	{"segments_at_the_wrong_place", fill(34, 6).cut(gsoTCP4, 1448), overIP4(tcp, tcpOf), large},
	{"fragment_with_segments", leave{}.cut(gsoTCP4, 1448), cut4(0, true, tcp, tcpOf), large},
}

// destOptions is the header of options for the destination.
const destOptions = 60

// finished frames leave what honest senders leave.
var finished = []unfinishedFrame{
	{"UDP", fill(34, 6), overIP4(udp, udpOf), 0},
	{"TCP", fill(34, 16), overIP4(tcp, tcpOf), 0},
	{"SCTP", fill(34, 8), overIP4(132, func(p []byte) []byte { return append(make([]byte, 12), p...) }), 0},
	{"GRE", fill(34, 4), overIP4(47, func(p []byte) []byte { return append([]byte{0x80, 0, 0, 0, 0, 0, 0, 0}, p...) }), 0},
	{"nothing", leave{}, overIP4(udp, udpOf), 0},
	{"header_with_options", fill(38, 6), func(a, v *box, payload []byte) []byte {
		p := ip4(a.ip4, v.ip4, udp, []byte{1, 1, 1, 0}, udpOf(payload))
		return ether(v.mac, a.mac, 0x800, sum4(with(p, 0, 0x46)))
	}, 0},
	{"IPv6_UDP", fill(54, 6), overIP6(udp, udpOf), 0},
	{"IPv6_TCP", fill(54, 16), overIP6(tcp, tcpOf), 0},
	{"IPv6_behind_extension_headers", fill(70, 6), overIP6(destOptions, behind(slices.Concat(extension(60), extension(udp)), udpOf)), 0},
	{"TCP_segments", fill(34, 16).cut(gsoTCP4, 1448), overIP4(tcp, tcpOf), large},
	{"TCP_segments_of_536_bytes", fill(34, 16).cut(gsoTCP4, 536), overIP4(tcp, tcpOf), large},
	{"a_few_small_TCP_segments", fill(34, 16).cut(gsoTCP4, 60), overIP4(tcp, tcpOf), 6000},
	{"IPv6_TCP_segments", fill(54, 16).cut(gsoTCP6, 1428), overIP6(tcp, tcpOf), large},
	{"UDP_segments", fill(34, 6).cut(gsoUDP, 1200), overIP4(udp, udpOf), large},
	{"128_small_UDP_segments", fill(34, 6).cut(gsoUDP, 100), overIP4(udp, udpOf), 12800},
	{"IPv6_UDP_segments", fill(54, 6).cut(gsoUDP, 1200), overIP6(udp, udpOf), large},
	{"fragments_of_an_old_guest", fill(34, 6).cut(gsoUFO, 1480), overIP4(udp, udpOf), 8000},
}

// vnetSocket gives a socket that takes what is left to the kernel before each frame.
func vnetSocket(t *testing.T, b *box) (socket int) {
	t.Helper()
	b.inside(func() {
		socket = packetSocket(t, "eth0", 0)
		if err := unix.SetsockoptInt(socket, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			t.Fatal(err)
		}
	})
	return socket
}

// deliverUnfinished is deliver for what leaves something to the kernel. Some kernels do not
// take all of it: then it was not sent. What the program spoilt has not arrived.
func deliverUnfinished(t *testing.T, a, v *box, socket int, u unfinishedFrame) (arrived, sent bool) {
	t.Helper()
	n := number.Add(1) // so that no frame is taken for another
	mark, sentinel := fmt.Appendf(nil, "<frame %d>", n), fmt.Appendf(nil, "<sentinel %d>", n)
	payload := append(slices.Clone(mark), make([]byte, max(0, u.size-len(mark)))...)
	_, err := unix.Write(socket, append(u.left.bytes(), u.frame(a, v, payload)...))
	if errors.Is(err, unix.EINVAL) {
		return false, false
	}
	if err != nil {
		t.Fatal(err)
	}
	a.send(ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, udp, udpPacket(1, 2, sentinel))))
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		switch f := receive(v.socket); {
		case f == nil:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(v.socket), Events: unix.POLLIN}}, 100)
		case bytes.Contains(f, sentinel):
			return arrived, true
		case bytes.Contains(f, mark):
			typ := binary.BigEndian.Uint16(f[12:])
			arrived = typ != checksum.SpoiltIPv4 && typ != checksum.SpoiltIPv6 && typ != checksum.SpoiltOther || f[14] != 0
		}
	}
	t.Fatal("not even the frame that is allowed arrived")
	return false, false
}

func ofChecksum(v *Violations) *uint64 { return &v.Checksum }

// TestUnfinished is about frames that the kernel writes into, or cuts up, after they are
// judged.
func TestUnfinished(t *testing.T) {
	h := newHost(t, 3)
	a, v := h.boxes[0], h.boxes[1]
	socket := vnetSocket(t, a)
	d := h.driver()
	if !d.Features().Checksum {
		t.Skip("the kernel has no BPF program that sees it")
	}
	each := func(what string, all []unfinishedFrame, arrives bool, counted uint64) {
		t.Helper()
		for _, u := range all {
			h.run(t, what+"/"+u.name, func(t *testing.T) {
				before := violations(t, d, a)
				arrived, sent := deliverUnfinished(t, a, v, socket, u)
				if !sent {
					return // nothing to be seen here
				}
				if arrived != arrives {
					t.Errorf("it arrived: %t", arrived)
				}
				if before.Checksum += counted; before != violations(t, d, a) {
					t.Errorf("counted %+v, want %+v", violations(t, d, a), before)
				}
			})
		}
	}
	h.run(t, "the_kernel_writes_what_the_sender_names", func(t *testing.T) {
		setChecksums(t, v.name, 0)
		defer setChecksums(t, v.name, 1)
		u := unfinishedFrames[0]
		honest := u.frame(a, v, []byte("<written>"))
		write(t, socket, append(u.left.bytes(), honest...))
		h.await("the frame", func() bool {
			f := receive(v.socket)
			return bytes.Contains(f, []byte("<written>")) && !bytes.Equal(f[36:38], honest[36:38])
		})
	})
	each("without_the_guard", unfinishedFrames, true, 0)
	each("honest_without_the_guard", finished, true, 0)
	monitor := h.wish()
	monitor.Mode = Monitor
	h.apply(d, monitor)
	each("in_monitor_mode", unfinishedFrames, true, 1)
	each("honest_in_monitor_mode", finished, true, 0)
	h.apply(d, h.wish())
	each("with_the_guard", unfinishedFrames, false, 1)
	each("honest_with_the_guard", finished, true, 0)
	h.run(t, "spoilt_frames_harm_nobody_where_no_rule_refuses_them", func(t *testing.T) {
		run(t, "nft", "delete", "table", "bridge", "netguard")
		for _, u := range unfinishedFrames {
			if arrived, _ := deliverUnfinished(t, a, v, socket, u); arrived {
				t.Errorf("%s arrived", u.name)
			}
		}
		h.apply(d, h.wish())
	})
}

// TestUnfinishedDrift takes the program away, in each way that there is.
func TestUnfinishedDrift(t *testing.T) {
	h := newHost(t, 2)
	a, v := h.boxes[0], h.boxes[1]
	socket := vnetSocket(t, a)
	before := programs(t)
	d := h.driver()
	if !d.Features().Checksum {
		t.Skip("the kernel has no BPF program that sees it")
	}
	w := h.wish()
	h.apply(d, w)
	arrives := func(b *box, socket int) bool {
		t.Helper()
		arrived, _ := deliverUnfinished(t, b, v, socket, unfinishedFrames[0])
		return arrived
	}
	h.run(t, "a_program_that_is_taken_away_comes_back", func(t *testing.T) {
		detach(t, d, a.port)
		if !arrives(a, socket) {
			t.Fatal("without the program it does not arrive: the rest proves nothing")
		}
		r, err := d.Apply(w, Everything)
		h.check(err)
		if !slices.ContainsFunc(r.Drift, func(s string) bool { return strings.Contains(s, "checksum program") }) {
			t.Errorf("drift %q does not say it", r.Drift)
		}
		if arrives(a, socket) {
			t.Error("it arrives")
		}
	})
	h.run(t, "one_of_an_agent_that_was_killed_is_adopted", func(t *testing.T) {
		attached := programs(t)
		next := h.driver()
		next.named[d.program.ID()] = false // as without CAP_SYS_ADMIN
		r := h.apply(next, w)
		if r.Changes != 0 || programs(t) != attached {
			t.Errorf("%d changes; %s, was %s", r.Changes, programs(t), attached)
		}
		// One that comes later has a program of this agent's.
		b := h.addBox(bridgeName, "later", 40)
		w = h.wish()
		h.apply(next, w)
		if arrives(b, vnetSocket(t, b)) || arrives(a, socket) {
			t.Error("it arrives")
		}
	})
	h.run(t, "a_port_that_is_not_guarded_any_more_has_none", func(t *testing.T) {
		next := h.driver()
		p0 := w.edit(0)
		p0.Guarded, p0.Admitted = false, true
		h.apply(next, w)
		if !arrives(a, socket) {
			t.Error("it is still refused")
		}
	})
	h.run(t, "a_foreign_program_stays", func(t *testing.T) {
		foreign := foreignProgram(t, a.port)
		next := h.driver()
		w = h.wish()
		h.apply(next, w)
		if arrives(a, socket) {
			t.Error("it arrives")
		}
		h.check(next.Cleanup())
		if got := programs(t); got != before+fmt.Sprintf("%d:%d ", a.port, foreign) {
			t.Errorf("after the clean-up there are %s", got)
		}
	})
	h.run(t, "a_clean_up_leaves_none", func(t *testing.T) {
		next := h.driver()
		h.apply(next, h.wish())
		run(t, "nft", "delete", "table", "bridge", "netguard")
		run(t, "ip", "link", "set", v.name, "nomaster")
		h.check(h.driver().Cleanup())
		for _, b := range h.boxes[1:] {
			if all := attachedTo(t, b.port); len(all) > 0 {
				t.Errorf("%s has %v", b.name, all)
			}
		}
	})
}

// TestFragments is about what holds where the kernel has no such program.
func TestFragments(t *testing.T) {
	h := newHost(t, 2)
	a, v := h.boxes[0], h.boxes[1]
	d := h.driver()
	d.features.Checksum = false
	w := h.wish()
	fragments := []struct {
		name  string
		kind  func(*Violations) *uint64
		frame func(a, v, c *box) []byte
	}{
		{"first_fragment", ofChecksum, func(a, v, _ *box) []byte { return cut4(0, true, udp, udpOf)(a, v, nil) }},
		{"last_fragment", ofChecksum, func(a, v, _ *box) []byte { return cut4(3, false, tcp, tcpOf)(a, v, nil) }},
		{"IPv6_fragment", ofChecksum, func(a, v, _ *box) []byte {
			return overIP6(44, behind(fragment6(udp, 0, true), udpOf))(a, v, nil)
		}},
		{"IPv6_fragment_behind_an_extension_header", ofChecksum, func(a, v, _ *box) []byte {
			return overIP6(60, behind(slices.Concat(extension(44), fragment6(udp, 0, true)), udpOf))(a, v, nil)
		}},
		{"fragment_to_all", ofChecksum, func(a, v, _ *box) []byte {
			return ether(broadcast, a.mac, 0x800, fragment4(ip4(a.ip4, netip4(172, 30, 0, 255), udp, udpOf(nil)), 0, true))
		}},
	}
	h.apply(d, w)
	for _, f := range fragments {
		h.run(t, "passes/"+f.name, func(t *testing.T) {
			if !deliver(t, a, v, f.frame(a, v, nil)) {
				t.Error("it was refused")
			}
		})
	}
	w.Fragments = true
	h.apply(d, w)
	for _, f := range fragments {
		h.run(t, "is_refused/"+f.name, func(t *testing.T) {
			before := violations(t, d, a)
			if deliver(t, a, v, f.frame(a, v, nil)) {
				t.Error("it arrived")
			}
			expect(t, before, violations(t, d, a), f.kind)
		})
	}
	for _, f := range honest {
		if strings.Contains(f.name, "fragment") {
			continue
		}
		h.run(t, "passes_still/"+f.name, func(t *testing.T) {
			before := violations(t, d, a)
			if !deliver(t, a, v, f.frame(a, v)) || before != violations(t, d, a) {
				t.Error("it was refused")
			}
		})
	}
}

// setChecksums says whether the kernel leaves checksums to a device to fill in (1), or
// writes them before the device gets a frame (0).
func setChecksums(t *testing.T, device string, on uint32) {
	t.Helper()
	const setTxChecksums = 0x17
	value := struct{ command, data uint32 }{setTxChecksums, on}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], device)
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatal(errno)
	}
	runtime.KeepAlive(&value)
}
