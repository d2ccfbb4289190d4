package integration

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"netguard/integration/attack"
)

var allNodes = netip.MustParseAddr("ff02::1")

// flap takes the link down and up.
func (s *ill) flap() error {
	if err := netlink.LinkSetDown(s.link); err != nil {
		return err
	}
	return netlink.LinkSetUp(s.link)
}

// withIPv6 lets the container have addresses of IPv6, which it asks for duplicates of.
func withIPv6(s *ill) error {
	return netlink.AddrReplace(s.link, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("fd00:63::ffff:1"), Mask: net.CIDRMask(64, 128)}})
}

// feature turns GSO on or off.
func (s *ill) feature(on bool) error {
	const set = 0x24 // ETHTOOL_SGSO
	value := struct{ command, data uint32 }{command: set}
	if on {
		value.data = 1
	}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(request.name[:], s.link.Attrs().Name)
	request.data = unsafe.Pointer(&value)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); e != 0 {
		return fmt.Errorf("set feature: %w", e)
	}
	runtime.KeepAlive(&value)
	return nil
}

// nest gives the container a namespace within its own, which it could not make itself.
func (s *ill) nest() error {
	here, err := netns.Get()
	if err != nil {
		return err
	}
	nested, err := netns.New()
	if err != nil {
		return err
	}
	s.nested = []netns.NsHandle{here, nested}
	return netns.Set(here)
}

// end closes what is open.
func (s *ill) end() {
	s.port.Close()
	for _, ns := range s.nested {
		_ = ns.Close()
	}
}

// move takes the interface to the other of two namespaces.
func (s *ill) move() error {
	to := s.nested[s.n%2]
	if err := netlink.LinkSetNsFd(s.link, int(to)); err != nil {
		return err
	}
	return netns.Set(to)
}

// join joins groups, and leaves them.
func (s *ill) join() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for range 20 {
		r := rand.Uint32()
		m := &unix.IPMreqn{Multiaddr: [4]byte{239, byte(r >> 16), byte(r >> 8), byte(r)}, Ifindex: int32(s.index)}
		if err := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, m); err != nil && err != unix.EADDRINUSE {
			return err
		}
	}
	return nil
}

// syn begins a connection, another each time.
func (s *ill) syn(to reached) []byte {
	from := netip.AddrPortFrom(s.own, uint16(s.n))
	return attack.Ether(to.mac, s.mac, attack.EtherIPv4, attack.SYN4(from, netip.AddrPortFrom(to.addr, uint16(1+s.n>>16))))
}

// dial asks for a connection that nobody accepts, and gives up.
func (s *ill) dial() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_ = unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: s.them[s.n%2].addr.As4()})
	return nil
}
