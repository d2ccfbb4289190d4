package guard

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netguard/integration/attack"
)

// The effects of attacks, beyond whether a frame arrives.
func TestEffects(t *testing.T) {
	// steal sends from v's MAC and says whether a frame from c to v still
	// arrives there.
	steal := func(t *testing.T, a, v, c *box) bool {
		t.Helper()
		a.host.learn(t)
		deliver(t, a, c, ether(broadcast, v.mac, 0x806, arpPacket(1, v.mac, v.ip4, MAC{}, v.ip4)))
		return deliver(t, c, v, ether(v.mac, c.mac, 0x800, ip4(c.ip4, v.ip4, 17, udpPacket(1, 2))))
	}
	t.Run("a_port_cannot_be_stolen", func(t *testing.T) {
		h := newHost(t, 3)
		a, v, c := h.boxes[0], h.boxes[1], h.boxes[2]
		if steal(t, a, v, c) {
			t.Fatal("the attack fails by itself")
		}
		d := h.driver()
		h.apply(d, h.wish())
		if !steal(t, a, v, c) {
			t.Error("the port was stolen")
		}
		// The bridge port is the second line.
		run(t, "nft", "delete", "table", "bridge", "netguard")
		if !steal(t, a, v, c) {
			t.Error("without the filter the port was stolen")
		}
		if deliver(t, a, v, ether(v.mac, nobody, 0x800, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2)))) {
			t.Error("without the filter a frame from a forged MAC arrived")
		}
	})
	t.Run("what_was_stolen_before_is_given_back", func(t *testing.T) {
		h := newHost(t, 3)
		a, v, c := h.boxes[0], h.boxes[1], h.boxes[2]
		x := MAC{2, 1, 2, 3, 4, 5}
		deliver(t, a, c, ether(broadcast, x, 0x806, arpPacket(1, x, c.ip4, MAC{}, c.ip4)))
		if !strings.Contains(output(t, "bridge", "fdb", "get", x.String(), "br", bridgeName), a.name) {
			t.Fatal("the bridge did not learn")
		}
		if steal(t, a, v, c) {
			t.Fatal("the attack fails by itself")
		}
		h.apply(h.driver(), h.wish())
		if !deliver(t, c, v, ether(v.mac, c.mac, 0x800, ip4(c.ip4, v.ip4, 17, udpPacket(1, 2)))) {
			t.Error("the port is still stolen")
		}
		if strings.Contains(output(t, "bridge", "fdb", "show", "br", bridgeName), x.String()) {
			t.Error("the bridge still knows a forged MAC")
		}
	})
	t.Run("a_flood_of_MACs_is_counted_exactly_and_not_learned", func(t *testing.T) {
		h := newHost(t, 2)
		a, v := h.boxes[0], h.boxes[1]
		d := h.driver()
		h.apply(d, h.wish())
		before := output(t, "bridge", "fdb", "show", "br", bridgeName)
		const frames = 5000
		for i := range frames {
			forged := MAC{2, 0xf0, 0, 0, byte(i >> 8), byte(i)}
			a.send(ether(v.mac, forged, 0x800, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2))))
		}
		h.learn(t)
		if got := violations(t, d, a); got != (Violations{MAC: frames}) {
			t.Errorf("counted %+v, want %d forged MACs", got, frames)
		}
		if after := output(t, "bridge", "fdb", "show", "br", bridgeName); after != before {
			t.Errorf("the FDB changed from\n%s\nto\n%s", before, after)
		}
	})
	t.Run("the_neighbours_of_a_container_and_of_the_host_are_not_poisoned", func(t *testing.T) {
		h := newHost(t, 3)
		a, v, c := h.boxes[0], h.boxes[1], h.boxes[2]
		poison := func() (container, host string) {
			v.inside(func() {
				run(t, "ip", "neigh", "replace", c.ip4.String(), "lladdr", c.mac.String(), "dev", "eth0", "nud", "stale")
			})
			deliver(t, a, v, ether(broadcast, a.mac, 0x806, arpPacket(2, a.mac, c.ip4, a.mac, c.ip4)))
			v.inside(func() { container = output(t, "ip", "neigh", "show", c.ip4.String()) })
			return container, output(t, "ip", "neigh", "show", c.ip4.String())
		}
		run(t, "ip", "neigh", "replace", c.ip4.String(), "lladdr", c.mac.String(), "dev", bridgeName, "nud", "stale")
		container, host := poison()
		if !strings.Contains(container, a.mac.String()) || !strings.Contains(host, a.mac.String()) {
			t.Fatalf("the attack fails by itself: %s%s", container, host)
		}
		d := h.driver()
		h.apply(d, h.wish())
		container, host = poison()
		if !strings.Contains(container, c.mac.String()) || !strings.Contains(host, c.mac.String()) {
			t.Errorf("poisoned: %s%s", container, host)
		}
		// The permanent entry is the second line.
		run(t, "nft", "delete", "table", "bridge", "netguard")
		if container, host = poison(); !strings.Contains(container, a.mac.String()) || !strings.Contains(host, c.mac.String()) {
			t.Errorf("without the filter: %s%s", container, host)
		}
	})
	t.Run("frames_to_nobody_are_not_overheard", func(t *testing.T) {
		h := newHost(t, 3)
		a, v := h.boxes[0], h.boxes[1]
		toNobody := ether(nobody, a.mac, 0x800, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2)))
		if !deliver(t, a, v, toNobody) {
			t.Fatal("unknown unicast is not flooded anyway")
		}
		h.apply(h.driver(), h.wish())
		if deliver(t, a, v, toNobody) {
			t.Error("unknown unicast was flooded")
		}
	})
	t.Run("link_local_protocols_do_not_reach_the_host", func(t *testing.T) {
		h := newHost(t, 2)
		a, v := h.boxes[0], h.boxes[1]
		listener := packetSocket(t, a.name, 0x88cc)
		lldp := func(n int) []byte {
			return ether(MAC{1, 0x80, 0xc2, 0, 0, 0xe}, a.mac, 0x88cc, fmt.Appendf(nil, "<lldp %d>", n))
		}
		deliver(t, a, v, lldp(1))
		if f := receive(listener); !strings.Contains(string(f), "<lldp 1>") {
			t.Fatalf("the attack fails by itself: %q", f)
		}
		d := h.driver()
		h.apply(d, h.wish())
		deliver(t, a, v, lldp(2))
		if f := receive(listener); f != nil {
			t.Errorf("the host got %q", f)
		}
		if got := violations(t, d, a); got != (Violations{Ethertype: 1}) {
			t.Errorf("counted %+v", got)
		}
	})
	t.Run("a_VLAN_device_in_the_container_is_no_way_out", func(t *testing.T) {
		h := newHost(t, 2)
		a, v := h.boxes[0], h.boxes[1]
		var tagged int
		a.inside(func() {
			eth0, err := vish.LinkByName("eth0")
			if err != nil {
				t.Fatal(err)
			}
			attrs := vish.NewLinkAttrs()
			attrs.Name, attrs.ParentIndex = "eth0.5", eth0.Attrs().Index
			err = vish.LinkAdd(&vish.Vlan{LinkAttrs: attrs, VlanId: 5})
			if errors.Is(err, unix.EOPNOTSUPP) {
				t.Skip("the kernel has no VLAN devices (CONFIG_VLAN_8021Q)")
			}
			if err != nil {
				t.Fatal(err)
			}
			run(t, "ip", "link", "set", "eth0.5", "up")
			tagged = packetSocket(t, "eth0.5", unix.ETH_P_ALL)
		})
		send := func() bool {
			if _, err := unix.Write(tagged, ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2)), []byte("<tagged>"))); err != nil {
				t.Fatal(err)
			}
			sentinel := []byte("<after the tagged frame>")
			a.send(ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 17, udpPacket(1, 2)), sentinel))
			return got(t, v.socket, []byte("<tagged>"), sentinel)
		}
		if !send() {
			t.Fatal("the attack fails by itself")
		}
		d := h.driver()
		h.apply(d, h.wish())
		before := violations(t, d, a)
		if send() {
			t.Error("a frame with its tag beside it arrived")
		}
		expect(t, before, violations(t, d, a), ofEthertype)
	})
}

// A port that netguard shapes leads what arrives from the container through an
// IFB, and the frames come back behind the hooks of the device.
func TestBehindIFB(t *testing.T) {
	h := newHost(t, 3)
	a, v, c := h.boxes[0], h.boxes[1], h.boxes[2]
	run(t, "ip", "link", "add", "ifb-a", "type", "ifb")
	run(t, "ip", "link", "set", "ifb-a", "up")
	run(t, "tc", "qdisc", "add", "dev", a.name, "handle", "ffff:", "ingress")
	run(t, "tc", "filter", "add", "dev", a.name, "parent", "ffff:", "protocol", "all", "u32", "match", "u32", "0", "0",
		"action", "mirred", "egress", "redirect", "dev", "ifb-a")
	d := h.driver()
	h.apply(d, h.wish())
	for _, at := range attack.All {
		h.run(t, "fails/"+at.Name, func(t *testing.T) {
			before := violations(t, d, a)
			if deliver(t, a, v, at.Frame(scene(a, v, c))) {
				t.Error("the frame arrived")
			}
			expect(t, before, violations(t, d, a), violation(at.Kind))
		})
	}
	before := violations(t, d, a)
	for _, f := range honest {
		h.run(t, "arrives/"+f.name, func(t *testing.T) {
			if !deliver(t, a, v, f.frame(a, v)) {
				t.Error("it was dropped")
			}
		})
	}
	if after := violations(t, d, a); after != before {
		t.Errorf("honest frames were counted: %+v", after)
	}
	w := h.wish()
	w.Storm = Storm{Rate: 1, Burst: 5}
	h.apply(d, w)
	for range 20 {
		a.send(ether(broadcast, a.mac, 0x806, arpPacket(1, a.mac, a.ip4, MAC{}, v.ip4)))
	}
	// The IFB hands them on in its own time.
	beyond := func() uint64 { return violations(t, d, a).Storm - before.Storm }
	h.await("most of 20 broadcasts are beyond a limit of 5", func() bool { return beyond() >= 13 })
	if got := beyond(); got > 20 {
		t.Errorf("of 20 broadcasts %d were beyond a limit of 5", got)
	}
	ifb, err := vish.LinkByName("ifb-a")
	if err != nil || ifb.Attrs().Statistics.TxPackets < uint64(2*len(attack.All)) {
		t.Errorf("the frames did not go through the IFB: %+v, %v", ifb, err)
	}
}
