package integration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// TestLimitAndNeighbours has others send to a container that has a limit, and it to
// them: a flood of small packets keeps no neighbour out, a datagram that is larger than a
// frame arrives whole, and what a limit drops is counted.
func TestLimitAndNeighbours(t *testing.T) {
	t.Parallel()
	e := Start(t)
	a := e.Agent()
	e.Network("net", Subnet("198.18.99.0/24"), Subnet("fd00:99::/64"))
	limited := e.Run("limited", On("net"), Label(ingressRate, "5mbit"), Label(egressRate, "5mbit"), Doing("serve", "udp", ":7"))
	flooder := e.Run("flooder", On("net", "198.18.99.103"))
	neighbour := e.Run("neighbour", On("net", "198.18.99.104"))
	a.AwaitStatus("all are admitted", AllAdmitted)
	drops := func(is control.Status) uint64 {
		ep, _ := Endpoint(is, limited, "net")
		return ep.Ingress.Drops + ep.Egress.Drops
	}

	t.Run("large_datagrams_and_batches_arrive_whole", func(t *testing.T) {
		const count = 2
		for _, w := range ways(limited, neighbour, "net") {
			for _, c := range []struct{ size, segment int }{{20_000, 0}, {65_000, 0}, {45 * 1400, 1400}, {60 * 200, 200}} {
				from, to := dialed(t, w)
				segmented(t, from, c.segment)
				for range count {
					if _, err := from.Write(make([]byte, c.size)); err != nil {
						t.Fatal(err)
					}
					for got := 0; got < c.size; {
						n := read(t, to, arrives)
						if n == 0 {
							t.Errorf("%s, in segments of %d: %d of %d bytes", w.name, c.segment, got, c.size)
							break
						}
						got += n
					}
				}
			}
		}
		if n := drops(a.For(t).Status()); n != 0 {
			t.Errorf("%d frames were dropped", n)
		}
	})
	for _, w := range []way{{"IPv4", flooder, limited, limited.IP("net")}, {"IPv6", flooder, limited, limited.IP6("net")}} {
		for _, size := range []int{40, 158, 1400} { // 158 are a frame of 200 bytes
			t.Run(fmt.Sprintf("a_flood_of_%d_bytes_by_%s_keeps_no_neighbour_out", size, w.name), func(t *testing.T) {
				end := flood(t, w, size)
				got := neighbour.For(t).Inside().RoundTrips(netip.AddrPortFrom(w.address, 7).String(), 40, 10*time.Millisecond)
				end()
				t.Logf("%s", got)
				// Senders with consecutive addresses are never in one class. In one, these
				// would wait for 20 ms and three of four be lost.
				if got.Received < got.Sent*9/10 {
					t.Errorf("%s", got)
				}
			})
		}
	}
	t.Run("drops_are_those_of_the_leaves", func(t *testing.T) {
		for _, c := range []struct {
			w        way
			segments int // in a batch, which the queue cuts
		}{{ways(limited, neighbour, "net")[0], 1}, {ways(limited, neighbour, "net")[1], 45}} {
			from, to := dialed(t, c.w)
			segmented(t, from, 1400)
			before := drops(a.For(t).Status())
			sent, got := 0, 0
			for ; sent < 400; sent += c.segments {
				if _, err := from.Write(make([]byte, c.segments*1400)); err != nil {
					t.Fatal(err)
				}
			}
			for read(t, to, time.Second) > 0 {
				got++
			}
			if got == sent {
				t.Fatal("nothing was lost: the control is missing")
			}
			a.For(t).AwaitStatus("what was lost is counted", func(is control.Status) bool { return drops(is)-before == uint64(sent-got) })
		}
	})
}

// flood sends packets of a size at seven times what 5 mbit are for small ones, until
// end is called.
func flood(t *testing.T, w way, size int) (end func()) {
	t.Helper()
	from, _ := dialed(t, w)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		packet := make([]byte, size)
		for begin, n := time.Now(), 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if ahead := time.Duration(n)*time.Second/22_000 - time.Since(begin); ahead > time.Millisecond {
				time.Sleep(ahead)
			}
			_, _ = from.Write(packet)
		}
	}()
	return func() {
		close(stop)
		<-ended
	}
}

// dialed gives a socket of one container that sends to one of another.
func dialed(t *testing.T, w way) (net.Conn, *net.UDPConn) {
	t.Helper()
	var receiver *net.UDPConn
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	must(w.to.For(t).Inside().Do(func() (err error) {
		receiver, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.address, 0)))
		return err
	}))
	t.Cleanup(func() { _ = receiver.Close() })
	must(receiver.SetReadBuffer(8 << 20))
	var sender net.Conn
	must(w.from.For(t).Inside().Do(func() (err error) {
		sender, err = net.Dial("udp", receiver.LocalAddr().String())
		return err
	}))
	t.Cleanup(func() { _ = sender.Close() })
	must(sender.(*net.UDPConn).SetWriteBuffer(8 << 20))
	return sender, receiver
}

// segmented has the kernel cut what a socket sends into datagrams of a size, after it
// went through the limit as one.
func segmented(t *testing.T, c net.Conn, size int) {
	t.Helper()
	raw, err := c.(*net.UDPConn).SyscallConn()
	var fault error
	if err == nil {
		err = raw.Control(func(fd uintptr) { fault = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) })
	}
	if err = errors.Join(err, fault); err != nil {
		t.Fatal(err)
	}
}

// read gives the length of the next datagram, 0 if none comes in time.
func read(t *testing.T, c *net.UDPConn, within time.Duration) int {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	n, _ := c.Read(make([]byte, 1<<16))
	return n
}
