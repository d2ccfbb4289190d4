package guard

import (
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
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
			w.edit(0).Admitted = false
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
			w.edit(0).Admitted = true
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

// Who could not be admitted at the first attempt is introduced at the next; who was
// admitted before the driver began is not.
func TestNewcomers(t *testing.T) {
	d := &Driver{log: slog.New(slog.DiscardHandler), newcomers: map[int]struct{}{}, failed: map[int][]error{}}
	plans := func(states map[int]State) *plan {
		p := &plan{ports: map[int]*portPlan{}}
		for index, state := range states {
			p.ports[index] = &portPlan{Port: Port{Index: index}, state: state}
		}
		return p
	}
	for i, step := range []struct {
		states map[int]State
		failed map[int][]error
		want   []int
	}{
		{states: map[int]State{1: Admitted, 2: Quarantined}, want: []int{2}},
		{states: map[int]State{1: Admitted, 2: Admitted, 3: Admitted}, failed: map[int][]error{2: {errors.New("no")}}, want: []int{2}},
		{states: map[int]State{1: Admitted, 2: Admitted, 4: Quarantined}, want: []int{4}},
		{states: map[int]State{1: Admitted, 2: Admitted}},
	} {
		d.plan, d.failed = plans(step.states), step.failed
		d.expect(scope{all: true}, i == 0)
		d.introduce(scope{all: true}, work{})
		d.report(scope{all: true}, work{})
		if got := slices.Sorted(maps.Keys(d.newcomers)); !slices.Equal(got, step.want) {
			t.Errorf("after step %d %v are to be introduced, want %v", i, got, step.want)
		}
	}
}
