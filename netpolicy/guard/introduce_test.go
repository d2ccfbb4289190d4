package guard

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// What a container wants to send before it is admitted is not lost: its kernel keeps
// it while it asks for the neighbour, and would ask again after a second only.
func TestIntroduce(t *testing.T) {
	h := newHost(t, 2)
	a, v := h.boxes[0], h.boxes[1]
	for name, c := range map[string]struct {
		to    netip.Addr
		where func(func())
	}{
		"a_neighbour":         {v.ip4, v.inside},
		"a_neighbour_by_IPv6": {v.ip6, v.inside},
		"the_host":            {gateway4, func(f func()) { f() }},
		"the_host_by_IPv6":    {gateway6, func(f func()) { f() }},
	} {
		h.run(t, name, func(t *testing.T) {
			d := h.driver()
			w := h.wish()
			w.Ports[0].Admitted = false
			h.apply(d, w)
			a.inside(func() { run(t, "ip", "neigh", "flush", "all") })
			var socket *net.UDPConn
			var err error
			c.where(func() { socket, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.to, 5555))) })
			h.check(err)
			defer socket.Close()
			asked := violations(t, d, a).Quarantine
			a.inside(func() {
				conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.to, 5555)))
				h.check(err)
				defer conn.Close()
				_, err = conn.Write([]byte("the first word"))
				h.check(err)
			})
			h.await("it has asked and was refused", func() bool { return violations(t, d, a).Quarantine > asked })
			w.Ports[0].Admitted = true
			h.apply(d, w)
			// Half of the time after which its kernel asks again.
			h.check(socket.SetReadDeadline(time.Now().Add(500 * time.Millisecond)))
			word := make([]byte, 64)
			if n, err := socket.Read(word); err != nil || string(word[:n]) != "the first word" {
				t.Errorf("%q, %v", word[:n], err)
			}
		})
	}
}
