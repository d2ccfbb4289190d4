package tc_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netguard/shaper"
)

// addressed gives both ends of the pair an address, and a neighbour that takes what is
// sent to to4 and to6.
func addressed(t *testing.T) {
	t.Helper()
	for _, name := range []string{"outside", "inside"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
		link, err := vish.LinkByName(name)
		for _, to := range []string{to4.String(), to6.String()} {
			if err != nil {
				break
			}
			neighbour, _ := vish.ParseIPNet(to + "/128")
			if to == to4.String() {
				neighbour, _ = vish.ParseIPNet(to + "/32")
			}
			err = vish.NeighSet(&vish.Neigh{LinkIndex: link.Attrs().Index, State: unix.NUD_PERMANENT, IP: neighbour.IP, HardwareAddr: toMAC})
		}
		for _, own := range []string{"198.18.0.1/24", "fd00::1/64"} {
			var addr *vish.Addr
			if err == nil {
				addr, err = vish.ParseAddr(own)
			}
			if err == nil {
				addr.Flags = unix.IFA_F_NODAD
				err = vish.AddrAdd(link, addr)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// sendUDP sends one datagram by a device, or a batch of segments of a size.
func sendUDP(t *testing.T, device string, v6 bool, bytes, segment int) {
	t.Helper()
	family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: 9, Addr: to4.As4()})
	if v6 {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: 9, Addr: to6.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err = errors.Join(unix.BindToDevice(fd, device), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20))
	if segment > 0 {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, segment))
	}
	if err = errors.Join(err, unix.Sendto(fd, make([]byte, bytes), 0, to)); err != nil {
		t.Fatal(err)
	}
}

// What an application sends as one is lost as one, so it fits a queue at any rate,
// in both directions.
func TestOneDatagramFits(t *testing.T) {
	d, veth := vethIn(t)
	addressed(t)
	for _, rate := range []shaper.Rate{64 * shaper.Kbit, 5 * shaper.Mbit} {
		for _, c := range []struct{ bytes, segment int }{{20000, 0}, {65507, 0}, {45 * 1400, 1400}, {64 * 1000, 1000}, {64 * 200, 200}, {64, 1}} {
			for _, v6 := range []bool{false, true} {
				for dir, device := range map[shaper.Direction]string{shaper.Ingress: "outside", shaper.Egress: "inside"} {
					name := fmt.Sprintf("%v_%v_%d_bytes_in_segments_of_%d_IPv6_%t", rate, dir, c.bytes, c.segment, v6)
					apply(t, d, veth, both(t, rate, shaper.Hashed))
					sendUDP(t, device, v6, c.bytes, c.segment)
					s, err := d.Snapshot()
					if err != nil {
						t.Fatal(err)
					}
					counters, err := s.Counters(veth)
					if err != nil {
						t.Fatal(err)
					}
					// Most of it waits; nobody need wait for it.
					if got := counters[dir]; got.Drops > 0 || got.Bytes+got.Backlog < uint64(c.bytes) {
						t.Errorf("%s: %+v", name, got)
					}
					apply(t, d, veth, shaper.Wish{})
				}
			}
		}
	}
}
