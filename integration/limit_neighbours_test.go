package integration

import (
	"net"
	"testing"
	"time"

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
	e.Network("net", Subnet("198.18.99.0/24"))
	limited := e.Run("limited", On("net"), Label(ingressRate, "5mbit"), Label(egressRate, "5mbit"), Doing("serve", "udp", ":7"))
	flooder := e.Run("flooder", On("net", "198.18.99.103"))
	neighbour := e.Run("neighbour", On("net", "198.18.99.104"))
	a.AwaitStatus("all are admitted", AllAdmitted)
	drops := func(is control.Status) uint64 {
		ep, _ := Endpoint(is, limited, "net")
		return ep.Ingress.Drops + ep.Egress.Drops
	}

	t.Run("large_datagrams_arrive_whole", func(t *testing.T) {
		for name, way := range map[string][2]*Container{"to_it": {neighbour, limited}, "from_it": {limited, neighbour}} {
			for _, size := range []int{20_000, 65_000} {
				from, to := dialed(t, way[0].For(t), way[1].For(t))
				const count = 4
				for range count {
					if _, err := from.Write(make([]byte, size)); err != nil {
						t.Fatal(err)
					}
					if n := read(t, to, arrives); n != size {
						t.Errorf("%s: %d of %d bytes", name, n, size)
					}
				}
			}
		}
		if n := drops(a.For(t).Status()); n != 0 {
			t.Errorf("%d frames were dropped", n)
		}
	})
	t.Run("a_flood_of_small_packets_keeps_no_neighbour_out", func(t *testing.T) {
		from, _ := dialed(t, flooder.For(t), limited.For(t))
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			packet := make([]byte, 158) // a frame of 200 bytes
			for begin, n := time.Now(), 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				// Seven times the limit.
				if ahead := time.Duration(n)*time.Second/22_000 - time.Since(begin); ahead > time.Millisecond {
					time.Sleep(ahead)
				}
				_, _ = from.Write(packet)
			}
		}()
		got := neighbour.For(t).Inside().RoundTrips(limited.Addr("net", 7), 60, 20*time.Millisecond)
		close(stop)
		<-ended
		t.Logf("%s", got)
		// Senders with consecutive addresses are never in one class.
		if got.Received < got.Sent*9/10 {
			t.Errorf("%s", got)
		}
	})
	t.Run("drops_are_those_of_the_leaves", func(t *testing.T) {
		from, to := dialed(t, neighbour.For(t), limited.For(t))
		before := drops(a.For(t).Status())
		const sent = 400
		for range sent {
			if _, err := from.Write(make([]byte, 1400)); err != nil {
				t.Fatal(err)
			}
		}
		got := 0
		for read(t, to, time.Second) > 0 {
			got++
		}
		if got == sent {
			t.Fatal("nothing was lost: the control is missing")
		}
		a.For(t).AwaitStatus("what was lost is counted", func(is control.Status) bool { return drops(is)-before == uint64(sent-got) })
	})
}

// dialed gives a socket of one container that sends to one of another.
func dialed(t *testing.T, from, to *Container) (net.Conn, *net.UDPConn) {
	t.Helper()
	var receiver *net.UDPConn
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	must(to.Inside().Do(func() error {
		address, err := net.ResolveUDPAddr("udp4", to.IP("net").String()+":0")
		if err == nil {
			receiver, err = net.ListenUDP("udp4", address)
		}
		return err
	}))
	t.Cleanup(func() { _ = receiver.Close() })
	must(receiver.SetReadBuffer(8 << 20))
	var sender net.Conn
	must(from.Inside().Do(func() (err error) {
		sender, err = net.Dial("udp4", receiver.LocalAddr().String())
		return err
	}))
	t.Cleanup(func() { _ = sender.Close() })
	must(sender.(*net.UDPConn).SetWriteBuffer(8 << 20))
	return sender, receiver
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
