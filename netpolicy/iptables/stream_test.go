package iptables

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ti-mo/conntrack"
)

// patience is how long a connection that is denied is waited for; far longer than
// any that is allowed takes here.
const patience = 250 * time.Millisecond

// serve starts servers on a TCP and a UDP port of a node. Whoever speaks to one is
// answered, and then sent a byte every few milliseconds for as long as it lasts.
func serve(t *testing.T, n *node, port uint16) {
	t.Helper()
	on(n, func() {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: int(port)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.AcceptTCP()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					go func() { _, _ = io.Copy(io.Discard, c) }()
					for {
						if _, err := c.Write([]byte{1}); err != nil {
							return
						}
						time.Sleep(tick)
					}
				}()
			}
		}()
		// One socket for each family: answers come from the address asked.
		for _, network := range []string{"udp4", "udp6"} {
			u, err := net.ListenUDP(network, &net.UDPAddr{Port: int(port)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { u.Close() })
			go func() {
				known := map[netip.AddrPort]bool{}
				b := make([]byte, 64)
				for {
					_, from, err := u.ReadFromUDPAddrPort(b)
					if errors.Is(err, net.ErrClosed) {
						return
					}
					if err != nil || known[from] {
						continue
					}
					known[from] = true
					go func() {
						for {
							if _, err := u.WriteToUDPAddrPort([]byte{1}, from); errors.Is(err, net.ErrClosed) {
								return
							}
							time.Sleep(tick)
						}
					}()
				}
			}()
		}
	})
}

const tick = 5 * time.Millisecond

// dialFrom opens a connection and tells whether the server answered.
func dialFrom(t *testing.T, n *node, network string, to netip.AddrPort) (net.Conn, bool) {
	t.Helper()
	return dialFor(t, n, network, to, patience)
}

// dialFor is dialFrom with the longest time that each step may take.
func dialFor(t *testing.T, n *node, network string, to netip.AddrPort, wait time.Duration) (net.Conn, bool) {
	t.Helper()
	var c net.Conn
	var err error
	on(n, func() {
		c, err = net.DialTimeout(network, to.String(), wait)
	})
	if err != nil {
		return nil, false
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write([]byte{1}); err != nil {
		return c, false
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	read, err := c.Read(make([]byte, 1))
	return c, err == nil && read == 1
}

// reaches tells whether a server answers. What is expected to work may take a
// second or two, on a machine that has other work.
func reaches(t *testing.T, n *node, network string, to netip.AddrPort, want bool) bool {
	t.Helper()
	for range 10 {
		c, ok := dialFrom(t, n, network, to)
		if c != nil {
			c.Close()
		}
		if ok || !want {
			return ok
		}
	}
	return false
}

// stream is a connection on which the server goes on sending.
type stream struct {
	name string
	last atomic.Int64 // when something came last, in ns
	conn net.Conn
}

func newStream(t *testing.T, n *node, network string, to netip.AddrPort) *stream {
	t.Helper()
	c, ok := dialFor(t, n, network, to, 20*patience) // it is allowed: a busy machine may take long
	if !ok {
		t.Fatalf("%s to %s is not open", network, to)
	}
	s := &stream{conn: c, name: network + " " + to.String()}
	s.last.Store(time.Now().UnixNano())
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 1)
		for {
			if _, err := c.Read(b); errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
				return
			}
			s.last.Store(time.Now().UnixNano())
		}
	}()
	return s
}

// quiet tells whether nothing has come for that long.
func (s *stream) quiet(d time.Duration) bool {
	return time.Since(time.Unix(0, s.last.Load())) > d
}

// await waits until cond holds.
func await(t *testing.T, d time.Duration, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	every := time.NewTicker(tick)
	defer every.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s", what, d)
		case <-every.C:
		}
	}
}

// sink counts the datagrams that reach a port of a node.
func sink(t *testing.T, n *node, port uint16) *atomic.Int64 {
	t.Helper()
	var count atomic.Int64
	on(n, func() {
		u, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { u.Close() })
		go func() {
			b := make([]byte, 64)
			for {
				if _, _, err := u.ReadFromUDPAddrPort(b); err != nil {
					return
				}
				count.Add(1)
			}
		}()
	})
	return &count
}

// flood sends datagrams of both families to a port, many a millisecond, until
// stop is closed, and counts them.
func flood(t *testing.T, from, to *node, port uint16, stop <-chan struct{}) *atomic.Int64 {
	t.Helper()
	var count atomic.Int64
	var conns []net.Conn
	on(from, func() {
		for _, a := range to.addrs {
			c, err := net.Dial("udp", netip.AddrPortFrom(a, port).String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			conns = append(conns, c)
		}
	})
	go func() {
		every := time.NewTicker(time.Millisecond)
		defer every.Stop()
		for {
			select {
			case <-stop:
				return
			case <-every.C:
			}
			for range 5 {
				for _, c := range conns {
					if _, err := c.Write([]byte{1}); err == nil {
						count.Add(1)
					}
				}
			}
		}
	}()
	return &count
}

// allStop fails the test where a stream goes on for more than a second after start.
func allStop(t *testing.T, streams []*stream, start time.Time) {
	t.Helper()
	for _, s := range streams {
		if late := s.stopped(t, start); late > time.Second {
			t.Errorf("%s went on for %s", s.name, late)
		}
	}
}

// allGoOn fails the test where a stream has stopped.
func allGoOn(t *testing.T, streams []*stream) {
	t.Helper()
	for _, s := range streams {
		if s.quiet(300 * time.Millisecond) {
			t.Errorf("%s stopped too", s.name)
		}
	}
}

// connections opens the kernel's table of connections in this namespace.
func connections(t testing.TB) *conntrack.Conn {
	t.Helper()
	c, err := conntrack.Dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
