package iptables

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
	"netguard/netpolicy/conformance"
)

// wire is a host whose containers, and the world, are all behind one device: what
// is written to it arrives, what the host lets pass to them is noted by the last
// rules of the kernel's chains, and dropped.
type wire struct {
	tun     *os.File
	raw     [2]int // sockets for what the host itself sends
	noted   [2]string
	backend string
}

func newWire(t *testing.T, kind Backend) *wire {
	t.Helper()
	namespace(t)
	strangers(t)
	docker(t, kind)
	sysctl(t, "net/ipv4/ip_forward", "1")
	sysctl(t, "net/ipv6/conf/all/forwarding", "1")
	sysctl(t, "net/ipv4/conf/all/rp_filter", "0")
	sysctl(t, "net/ipv4/conf/default/rp_filter", "0")
	sysctl(t, "net/ipv4/conf/all/send_redirects", "0")
	sysctl(t, "net/ipv4/conf/default/send_redirects", "0")
	sysctl(t, "net/netfilter/nf_conntrack_checksum", "0") // checksums of TCP and UDP are left out
	sysctl(t, noDAD, "0")
	tun := &vish.Tuntap{LinkAttrs: vish.LinkAttrs{Name: "tun0"}, Mode: vish.TUNTAP_MODE_TUN, Queues: 1,
		Flags: vish.TUNTAP_DEFAULTS | vish.TUNTAP_NO_PI}
	if err := vish.LinkAdd(tun); err != nil {
		t.Fatal(err)
	}
	w := &wire{tun: tun.Fds[0], backend: map[Backend]string{NFT: "-nft", Legacy: "-legacy"}[kind]}
	t.Cleanup(func() { w.tun.Close() })
	up(t, "tun0")
	for i := range 4 {
		for _, subnet := range []netip.Prefix{conformance.Subnet4(i), conformance.Subnet6(i)} {
			addAddress(t, "tun0", netip.PrefixFrom(conformance.HostAddr(subnet), subnet.Bits()).String())
		}
	}
	run(t, "ip", "route", "add", "default", "dev", "tun0")
	run(t, "ip", "-6", "route", "add", "default", "dev", "tun0")
	for i, family := range []int{unix.AF_INET, unix.AF_INET6} {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		w.raw[i], w.noted[i] = fd, fmt.Sprintf("noted%d", i)
		run(t, "ipset", "create", w.noted[i], "hash:ip,port,ip", "family", []string{"inet", "inet6"}[i])
		cmd := []string{"iptables", "ip6tables"}[i] + w.backend
		run(t, cmd, "-F", "INPUT") // a stranger's there accepts some
		for _, chain := range []string{"FORWARD", "INPUT", "OUTPUT"} {
			run(t, cmd, "-A", chain, "-j", "SET", "--add-set", w.noted[i], "src,src,dst")
			run(t, cmd, "-A", chain, "-j", "DROP")
		}
	}
	return w
}

// try sends the first packet of a connection and gives the note that is made of
// it if it passes.
func (w *wire) try(t *testing.T, p netpolicy.Packet, source uint16) string {
	t.Helper()
	b := packet(p, source)
	i := index(p.Src.Is6())
	if p.Path != netpolicy.Output {
		if _, err := w.tun.Write(b); err != nil {
			t.Fatal(err)
		}
	} else if err := unix.Sendto(w.raw[i], b, 0, sockaddr(p.Dst)); err != nil && err != unix.EPERM {
		t.Fatal(err) // EPERM: a rule dropped it
	}
	port := strconv.Itoa(int(source))
	name := p.Proto.String()
	switch p.Proto {
	case netpolicy.ICMP, netpolicy.ICMPv6:
		port = "echo-request"
		if p.Proto == netpolicy.ICMPv6 {
			name = "ipv6-icmp"
		}
	}
	return fmt.Sprintf("%s,%s:%s,%s", p.Src, name, port, p.Dst)
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

// passed gives the notes made since, and forgets them. Packets are worked off a
// little after they were written: it waits for those that are wanted, and for one
// more that came after all.
func (w *wire) passed(t *testing.T, want map[string]bool) map[string]bool {
	t.Helper()
	last := w.try(t, netpolicy.Packet{Src: addr("203.0.113.1"), Dst: addr("203.0.113.2"), Proto: netpolicy.UDP, Port: 9}, 9)
	out := map[string]bool{}
	complete := func() bool {
		for _, set := range w.noted {
			for line := range strings.Lines(run(t, "ipset", "save", set)) {
				if f := strings.Fields(line); f[0] == "add" {
					out[f[2]] = true
				}
			}
		}
		for note, open := range want {
			if open && !out[note] {
				return false
			}
		}
		return out[last]
	}
	for end := time.Now().Add(2 * time.Second); !complete() && time.Now().Before(end); {
		runtime.Gosched()
	}
	for _, set := range w.noted {
		run(t, "ipset", "flush", set)
	}
	delete(out, last)
	return out
}

// packet is the first packet of a connection, with the checksums that a router
// looks at.
func packet(p netpolicy.Packet, source uint16) []byte {
	var l4 []byte
	switch p.Proto {
	case netpolicy.ICMP, netpolicy.ICMPv6:
		l4 = make([]byte, 8)
		l4[0] = byte(p.ICMPType)
		if p.Proto == netpolicy.ICMP {
			binary.BigEndian.PutUint16(l4[2:], checksum(l4))
		}
	case netpolicy.TCP:
		l4 = make([]byte, 20)
		l4[12], l4[13] = 5<<4, 2 // SYN
	case netpolicy.UDP:
		l4 = make([]byte, 8)
		l4[5] = 8
	default: // SCTP: INIT
		l4 = make([]byte, 32)
		l4[12], l4[15] = 1, 20
	}
	if p.Proto.HasPorts() {
		binary.BigEndian.PutUint16(l4, source)
		binary.BigEndian.PutUint16(l4[2:], p.Port)
	}
	if p.Src.Is6() {
		b := make([]byte, 40, 40+len(l4))
		b[0], b[6], b[7] = 6<<4, byte(p.Proto), 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(l4)))
		copy(b[8:], p.Src.AsSlice())
		copy(b[24:], p.Dst.AsSlice())
		return append(b, l4...)
	}
	b := make([]byte, 20, 20+len(l4))
	b[0], b[8], b[9] = 4<<4|5, 64, byte(p.Proto)
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(l4)))
	copy(b[12:], p.Src.AsSlice())
	copy(b[16:], p.Dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, l4...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
