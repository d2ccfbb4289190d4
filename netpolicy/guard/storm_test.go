package guard

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStorm is about broadcast and multicast beyond the limit.
func TestStorm(t *testing.T) {
	h := newHost(t, 3)
	a, v, c := h.boxes[0], h.boxes[1], h.boxes[2]
	w := h.wish()
	w.Storm = Storm{Rate: 10, Burst: 50}
	d := h.driver()
	h.apply(d, w)
	h.run(t, "beyond_the_limit_frames_are_dropped_and_counted", func(t *testing.T) {
		const frames = 1000
		mark := ether(broadcast, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, netip4(192, 0, 2, 99)))
		before := violations(t, d, a)
		for range frames {
			a.send(mark)
		}
		arrived := 0
		sentinel := []byte("<after the storm>")
		a.send(ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2)), sentinel))
		for {
			f := receive(v.socket)
			if strings.Contains(string(f), string(sentinel)) {
				break
			}
			if strings.Contains(string(f), string(mark)) {
				arrived++
			}
		}
		after := violations(t, d, a)
		// The kernel of the container may send a report or two of its own.
		if sum := uint64(arrived) + after.Storm - before.Storm; sum < frames || sum > frames+3 {
			t.Errorf("%d arrived, %d were counted, of %d", arrived, after.Storm-before.Storm, frames)
		}
		if arrived < 40 || arrived > 200 {
			t.Errorf("%d frames arrived, the burst is 50", arrived)
		}
	})
	h.run(t, "multicast_counts_too_and_unicast_does_not", func(t *testing.T) {
		mdns := ether(MAC{1, 0, 0x5e, 0, 0, 0xfb}, a.mac, 0x800, ip4(a.ip4, netip4(224, 0, 0, 251), 17, udpPacket(5353, 5353)))
		before := violations(t, d, a)
		for range 20 { // a few may pass, if somebody kept this thread from running
			a.send(mdns)
		}
		after := violations(t, d, a)
		if n := after.Storm - before.Storm; n < 10 || n > 20 {
			t.Errorf("of 20 frames %d were counted", n)
		}
		after.Storm = before.Storm
		if after != before {
			t.Errorf("counted %+v, want %+v", after, before)
		}
	})
	h.run(t, "anothers_storm_does_not_count", func(t *testing.T) {
		if !deliver(t, c, v, ether(broadcast, c.mac, 0x806, arpPacket(1, c.mac, c.ip4, MAC{}, v.ip4))) {
			t.Error("the limit is not the port's own")
		}
	})
	h.run(t, "batches_of_datagrams_count_by_their_bytes", func(t *testing.T) {
		const batches, datagrams, size = 20, 40, 1400
		socket := vnetSocket(t, c)
		payload := make([]byte, datagrams*size)
		mark := "<a batch>"
		copy(payload, mark)
		for _, way := range []struct {
			left  leave
			frame []byte
		}{
			{fill(34, 6).cut(gsoUDP, size), ether(broadcast, c.mac, 0x800, ip4(c.ip4, netip4(255, 255, 255, 255), 17, udpPacket(1, 2, payload)))},
			{fill(54, 6).cut(gsoUDP, size), ether(MAC{0x33, 0x33, 0, 0, 0, 1}, c.mac, 0x86dd, ip6(c.ip6, allNodes, 17, udpPacket(1, 2, payload)))},
		} {
			before := violations(t, d, c)
			for range batches {
				write(t, socket, append(way.left.bytes(), way.frame...))
			}
			arrived := 0
			sentinel := []byte("<after the batches>")
			c.send(ether(v.mac, c.mac, 0x800, ip4(c.ip4, v.ip4, 17, udpPacket(1, 2)), sentinel))
			for end, done := time.Now().Add(arrives), false; !done; {
				switch f := receive(v.socket); {
				case f == nil && time.Now().After(end):
					t.Fatalf("%d of %d arrived, and then nothing", arrived, batches)
				case f == nil:
					_, _ = unix.Poll([]unix.PollFd{{Fd: int32(v.socket), Events: unix.POLLIN}}, 100)
				case strings.Contains(string(f), string(sentinel)):
					done = true
				case strings.Contains(string(f), mark):
					arrived++
				}
			}
			if refused := violations(t, d, c).Storm - before.Storm; arrived > 2 || uint64(arrived)+refused < batches {
				t.Errorf("%d batches of 56 kB arrived, %d were counted, of %d; the limit is 75 kB at once", arrived, refused, batches)
			}
		}
	})
}
