package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	. "netguard/integration/harness"
)

// mirrors sends back what comes by TCP to port 80, and by UDP to port 9000.
func mirrors(t *testing.T, n Netns) {
	t.Helper()
	var l net.Listener
	var u *net.UDPConn
	err := n.Do(func() (err error) {
		if l, err = net.Listen("tcp", ":80"); err != nil {
			return err
		}
		u, err = net.ListenUDP("udp", &net.UDPAddr{Port: 9000})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(); _ = u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := u.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = u.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
}

// reach is what no program of busybox does: long transfers, large datagrams, and what the
// kernel says of what cannot be.
func (l *honestLab) reach() []check {
	var all []check
	add := func(name string, try func() error) {
		all = append(all, check{name, func(*testing.T) error { return try() }})
	}
	client, host, outside := l.client.Inside(), l.e.Netns, l.e.Outside.Netns
	tcp := func(what string, from Netns, to netip.Addr, port uint16) {
		add(fmt.Sprintf("TCP_%s_%s", what, to), func() error { return transfer(from, netip.AddrPortFrom(to, port)) })
	}
	udp := func(what string, from Netns, to netip.Addr, port uint16, how ...option) {
		add(fmt.Sprintf("UDP_%s_%s", what, to), func() error {
			return datagrams(from, netip.AddrPortFrom(to, port), []int{1, 1472, 8000, 32000, 65000}, how...)
		})
	}
	server := []netip.Addr{l.server.IPv4, l.server.IPv6}
	for i, to := range server {
		tcp("to_the_server", client, to, 80)
		tcp("from_the_host", host, to, 80)
		tcp("through_a_narrow_router", client, l.ranges[i], 80)
		tcp("from_the_host_through_a_narrow_router", host, l.ranges[i], 80)
		udp("to_the_server", client, to, 9000)
		udp("through_a_narrow_router", client, l.ranges[i], 9000)
		udp("in_segments", client, to, 9000, option{unix.SOL_UDP, unix.UDP_SEGMENT, 1200})
		add("path_MTU_of_a_router_"+to.String(), func() error { return pathMTU(l.client, l.ranges[i], narrow) })
		for _, at := range []netip.Addr{to, l.gateways[i], l.ranges[i]} {
			add("nobody_there_"+at.String(), func() error { return refused(l.client, netip.AddrPortFrom(at, 9)) })
		}
		for _, protocol := range []string{"47", "50", "132"} {
			for _, size := range []int{100, 9000} {
				add(fmt.Sprintf("protocol_%s_%d_bytes_%s", protocol, size, to), func() error { return l.protocol(protocol, size, to) })
			}
		}
	}
	udp("without_checksums", client, l.server.IPv4, 9000, option{unix.SOL_SOCKET, unix.SO_NO_CHECK, 1})
	add("path_MTU_of_the_host", func() error { return pathMTU(l.client, OutsideIPv4, narrower) })
	tcp("to_the_outside", client, OutsideIPv4, 80)
	udp("to_the_outside", client, OutsideIPv4, 9000)
	tcp("to_a_published_port", outside, HostIPv4, 28080)
	udp("to_a_published_port", outside, HostIPv4, 29000)
	tcp("to_the_proxy", host, netip.MustParseAddr("127.0.0.1"), 28080)
	tcp("to_a_published_port_from_a_neighbour", client, HostIPv4, 28080)
	return all
}

// transfer sends more than any window holds, and gets it back.
func transfer(from Netns, to netip.AddrPort) error {
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", to.String(), arrives)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(2 * arrives))
	const size = 512 << 10
	go func() { _, _ = c.Write(make([]byte, size)) }()
	if n, err := io.CopyN(io.Discard, c, size); err != nil {
		return fmt.Errorf("%d of %d bytes came back: %w", n, size, err)
	}
	return nil
}

// option is an option of a socket.
type option struct{ level, name, value int }

// dialUDP makes a socket in a namespace.
func dialUDP(from Netns, to netip.AddrPort, how ...option) (c *net.UDPConn, err error) {
	err = from.Do(func() error {
		d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
			_ = raw.Control(func(fd uintptr) {
				for _, o := range how {
					err = errors.Join(err, unix.SetsockoptInt(int(fd), o.level, o.name, o.value))
				}
			})
			return err
		}}
		conn, err := d.Dial("udp", to.String())
		if err == nil {
			c = conn.(*net.UDPConn)
		}
		return err
	})
	return c, err
}

// datagrams sends datagrams of these sizes, and gets each back.
func datagrams(from Netns, to netip.AddrPort, sizes []int, how ...option) error {
	c, err := dialUDP(from, to, how...)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	buf := make([]byte, 65536)
	for _, size := range sizes {
		back := 0
		for until := deadline(); back < size && time.Now().Before(until); {
			back = 0
			if _, err := c.Write(bytes.Repeat([]byte{byte(size)}, size)); err != nil && !errors.Is(err, unix.EMSGSIZE) {
				return fmt.Errorf("send %d bytes: %w", size, err)
			}
			_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			for back < size {
				n, err := c.Read(buf)
				if err != nil {
					break
				}
				back += n
			}
		}
		if back < size {
			return fmt.Errorf("%d of %d bytes came back", back, size)
		}
	}
	return nil
}

// pathMTU sends what is too long for the way, until the kernel knows how long it may be.
func pathMTU(from *actor, to netip.Addr, want int) error {
	family, discover, mtu, level := "-4", unix.IP_MTU_DISCOVER, unix.IP_MTU, unix.IPPROTO_IP
	if to.Is6() {
		family, discover, mtu, level = "-6", unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU, unix.IPPROTO_IPV6
	}
	from.Inside().Output("ip", family, "route", "flush", "cache")
	c, err := dialUDP(from.Inside(), netip.AddrPortFrom(to, 9000), option{level, discover, unix.IP_PMTUDISC_DO})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	got := 0
	for until := deadline(); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		_, _ = c.Write(make([]byte, 1430))
		_ = raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), level, mtu) })
		if got == want {
			return nil
		}
	}
	return fmt.Errorf("the path MTU to %s is %d, want %d (%w)", to, got, want, err)
}

// refused has nobody at a port say so, by UDP and TCP.
func refused(from *actor, to netip.AddrPort) error {
	if err := refusedAt(from, to); !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("UDP: %w", err)
	}
	return from.Inside().Do(func() error {
		c, err := net.DialTimeout("tcp", to.String(), arrives)
		if err == nil {
			_ = c.Close()
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("TCP: %v", err)
		}
		return nil
	})
}

// protocol has a packet of any protocol arrive, as tunnels and IPsec send them.
func (l *honestLab) protocol(number string, size int, to netip.Addr) error {
	network, all := "ip4:"+number, "0.0.0.0"
	if to.Is6() {
		network, all = "ip6:"+number, "::"
	}
	var in, out net.PacketConn
	err := l.server.Inside().Do(func() (err error) { in, err = net.ListenPacket(network, all); return err })
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	err = l.client.Inside().Do(func() (err error) { out, err = net.ListenPacket(network, all); return err })
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	buf := make([]byte, 65536)
	for until := deadline(); time.Now().Before(until); {
		if _, err := out.WriteTo(append([]byte{0, 0, 8, 0}, make([]byte, size)...), &net.IPAddr{IP: to.AsSlice()}); err != nil {
			return err
		}
		_ = in.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if n, _, err := in.ReadFrom(buf); err == nil && n >= size {
			return nil
		}
	}
	return fmt.Errorf("nothing arrived")
}

// offloads switches what the kernel leaves to a device: checksums and segments.
func offloads(t *testing.T, n Netns, name string, on bool) {
	t.Helper()
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		for _, command := range []uint32{unix.ETHTOOL_STXCSUM, unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO} {
			value := struct{ command, data uint32 }{command: command}
			if on {
				value.data = 1
			}
			request := struct {
				name [unix.IFNAMSIZ]byte
				data unsafe.Pointer
				_    [16]byte
			}{data: unsafe.Pointer(&value)}
			copy(request.name[:], name)
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
				return fmt.Errorf("ethtool command %#x: %w", command, errno)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
