package integration

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"netguard/agent/control"

	. "netguard/integration/harness"
)

// TestAddressOfAnother: the kernel's connections outlive a container. Who has its address
// next is handed no answers to them that its own policies refuse.
func TestAddressOfAnother(t *testing.T) {
	t.Parallel()
	e := Start(t, WithOutside())
	e.Network("back", Subnet("198.18.66.0/24"))
	const addr, port = "198.18.66.98", 9000
	closed := Policy("heir.yaml", "name: heir\nselect: {container: heir}\ningress: []\n")

	listen := func(t *testing.T, at Netns, ip string, port int) *net.UDPConn {
		t.Helper()
		var c *net.UDPConn
		if err := at.Do(func() (err error) {
			// A program that is just being started may still hold the socket that was closed.
			for until := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
				c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip), Port: port})
				if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(until) {
					return err
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	send := func(t *testing.T, c *net.UDPConn, text string, to netip.AddrPort) {
		t.Helper()
		if _, err := c.WriteToUDPAddrPort([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(t *testing.T, c *net.UDPConn) (string, netip.AddrPort) {
		t.Helper()
		b := make([]byte, 64)
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n]), from
	}
	// reached tells whether the peer of a container reaches the next one with its address.
	reached := func(t *testing.T, between func(remove func(), run func() *Container) *Container) bool {
		t.Helper()
		peer, other := listen(t, e.Outside.Netns, OutsideIPv4.String(), 6000), listen(t, e.Outside.Netns, OutsideIPv4.String(), 6001)
		defer peer.Close()
		defer other.Close()
		first := e.Run("first", On("back", addr))
		c := listen(t, first.Inside(), "", port)
		send(t, c, "begins", netip.AddrPortFrom(OutsideIPv4, 6000))
		_, mapped := hear(t, peer)
		send(t, peer, "answer", mapped)
		hear(t, c)
		c.Close()
		heir := between(first.Remove, func() *Container { return e.Run("heir", On("back", addr)) })
		defer heir.Remove()
		c = listen(t, heir.Inside(), "", port)
		defer c.Close()
		// What it asked for itself comes, by the same way and after what it did not.
		send(t, c, "its own", netip.AddrPortFrom(OutsideIPv4, 6001))
		_, own := hear(t, other)
		send(t, peer, "of another", mapped)
		send(t, other, "last", own)
		text, _ := hear(t, c)
		return text == "of another"
	}

	t.Run("control", func(t *testing.T) {
		if !reached(t, func(remove func(), run func() *Container) *Container { remove(); return run() }) {
			t.Fatal("no connection outlived the container: nothing is shown")
		}
	})
	a := e.Agent(closed)
	a.AwaitStatus("it is at work", func(s control.Status) bool { return s.InSync })
	admitted := func(c *Container) *Container {
		a.AwaitEndpoint(c, "back", control.Admitted)
		return c
	}
	for name, between := range map[string]func(remove func(), run func() *Container) *Container{
		"while_the_agent_runs": func(remove func(), run func() *Container) *Container {
			remove()
			return admitted(run())
		},
		"while_the_agent_is_stuck": func(remove func(), run func() *Container) *Container {
			a.Process().Signal(syscall.SIGSTOP)
			remove()
			c := run()
			a.Process().Signal(syscall.SIGCONT)
			return admitted(c)
		},
		"while_no_agent_runs": func(remove func(), run func() *Container) *Container {
			a.Kill()
			remove()
			c := run()
			a.Start()
			return admitted(c)
		},
		"of_one_that_ended_while_no_agent_ran": func(remove func(), run func() *Container) *Container {
			a.Kill()
			remove()
			a.Start()
			a.AwaitStatus("it is at work again", func(s control.Status) bool { return s.InSync })
			return admitted(run())
		},
	} {
		t.Run(name, func(t *testing.T) {
			if reached(t, between) {
				t.Error("what is sent to the container before reaches the one after")
			}
		})
	}
}
