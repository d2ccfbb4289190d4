package integration

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// doors are echo servers in a namespace.
type doors struct {
	mu      sync.Mutex
	clients map[string]netip.Addr // the last one, by service: tcp/80
	closers []io.Closer
}

// client is whom a server saw last.
func (d *doors) client(service string) netip.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clients[service]
}

func (d *doors) came(service string, from net.Addr, word []byte) {
	heard.Store(string(word), true)
	at := from.(interface{ AddrPort() netip.AddrPort }).AddrPort().Addr().Unmap()
	d.mu.Lock()
	d.clients[service] = at
	d.mu.Unlock()
}

func (d *doors) Close() error {
	var err error
	for _, c := range d.closers {
		err = errors.Join(err, c.Close())
	}
	return err
}

// openDoors serves services such as tcp/80 and udp/53 until the test is over. An
// answer by UDP comes from the address that was asked, one of those given.
func openDoors(t testing.TB, s *spot, services []string, addrs ...netip.Addr) *doors {
	t.Helper()
	d := &doors{clients: map[string]netip.Addr{}}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	err := s.Do(func() error {
		for _, service := range services {
			protocol, port, _ := strings.Cut(service, "/")
			var err error
			switch protocol {
			case "tcp":
				err = d.tcp(service, port)
			case "udp":
				for _, a := range addrs {
					err = errors.Join(err, d.udp(service, net.JoinHostPort(a.String(), port)))
				}
			case "sctp":
				err = errors.Join(d.sctp(unix.AF_INET), d.sctp(unix.AF_INET6))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("serve in %s: %v", s.name, err)
	}
	return d
}

func (d *doors) tcp(service, port string) error {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, l)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				var words []byte
				for buf := make([]byte, 2048); ; {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					for words = append(words, buf[:n]...); len(words) >= wordLen; words = words[wordLen:] {
						d.came(service, c.RemoteAddr(), words[:wordLen])
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return nil
}

func (d *doors) udp(service, addr string) error {
	// An IPv6 address cannot be used in its first second, while duplicates of it
	// are looked for.
	early := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if strings.HasPrefix(addr, "[") {
			_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1) })
		}
		return err
	}}
	c, err := early.ListenPacket(context.Background(), "udp", addr)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, c)
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // an ICMP error for an earlier answer
			}
			d.came(service, from, buf[:n])
			_, _ = c.WriteTo(buf[:n], from) // the one who asked is told by silence
		}
	}()
	return nil
}

// sctp hears the first packets of all ports: the kernel may have no SCTP.
func (d *doors) sctp(domain int) error {
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "sctp")
	d.closers = append(d.closers, f)
	go func() {
		buf := make([]byte, 2048)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			if n >= 32 { // see initiate
				p := buf[n-32 : n]
				heard.Store("00000000"+string(p[16:20])+string(p[28:32]), true)
			}
		}
	}()
	return nil
}
