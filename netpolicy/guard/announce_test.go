package guard

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// A container with a new MAC is reached as soon as it is admitted, though its neighbours
// remember the old one: nobody heard what it said itself.
func TestAnnounce(t *testing.T) {
	h := newHost(t, 3)
	a, v, quarantined := h.boxes[0], h.boxes[1], h.boxes[2]
	old := MAC{2, 0x42, 0xde, 0xad, 0, 1}
	addrs := map[string]netip.Addr{"IPv4": a.ip4, "IPv6": a.ip6, "link-local": a.mac.LinkLocal()}
	for _, b := range h.boxes {
		h.await("its link-local address is its own", func() (is bool) {
			b.inside(func() { is = !strings.Contains(output(t, "ip", "-6", "addr", "show", "dev", "eth0"), "tentative") })
			return is
		})
	}
	believe := func() {
		for _, addr := range addrs {
			run(t, "ip", "neigh", "replace", addr.String(), "lladdr", old.String(), "dev", "eth0", "nud", "reachable")
		}
	}
	known := func(addr netip.Addr, device string, mac MAC) bool {
		return strings.Contains(output(t, "ip", "neigh", "show", addr.String(), "dev", device), mac.String())
	}
	everybodyKnows := func() {
		for name, addr := range addrs {
			h.await("the neighbour knows the new MAC by "+name, func() (is bool) {
				v.inside(func() { is = known(addr, "eth0", a.mac) })
				return is
			})
		}
		quarantined.inside(func() {
			for name, addr := range addrs {
				if !known(addr, "eth0", old) {
					t.Errorf("a container that is not admitted was told of %s", name)
				}
			}
		})
	}
	prepare := func() {
		v.inside(believe)
		quarantined.inside(believe)
	}
	wish := func(admitted bool) Wish {
		w := h.wish()
		w.edit(0).Admitted, w.edit(2).Admitted = admitted, false
		return w
	}

	h.run(t, "after it was quarantined", func(t *testing.T) {
		d := h.driver()
		h.apply(d, wish(false))
		prepare()
		h.apply(d, wish(true))
		everybodyKnows()
		for _, addr := range addrs {
			if !known(addr, bridgeName, a.mac) {
				t.Errorf("the host does not know where %s is", addr)
			}
		}
	})
	h.run(t, "by a driver that begins", func(t *testing.T) {
		h.apply(h.driver(), wish(false))
		prepare()
		h.apply(h.driver(), wish(true))
		everybodyKnows()
	})
	h.run(t, "who was admitted before is not announced again", func(t *testing.T) {
		h.apply(h.driver(), wish(true))
		prepare()
		h.apply(h.driver(), wish(true))
		w := wish(true)
		w.edit(2).Admitted = true
		h.apply(h.driver(), w) // its announcement is the sentinel
		quarantinedIs := h.boxes[2]
		v.inside(func() {
			run(t, "ip", "neigh", "replace", quarantinedIs.ip4.String(), "lladdr", old.String(), "dev", "eth0", "nud", "reachable")
		})
		w.edit(2).Admitted = false
		d := h.driver()
		h.apply(d, w)
		w.edit(2).Admitted = true
		h.apply(d, w)
		h.await("the neighbour knows who came last", func() (is bool) {
			v.inside(func() { is = known(quarantinedIs.ip4, "eth0", quarantinedIs.mac) })
			return is
		})
		v.inside(func() {
			if !known(a.ip4, "eth0", old) {
				t.Error("it was announced again")
			}
		})
	})
	h.run(t, "link-local addresses that it has besides, also when it has them later", func(t *testing.T) {
		locals := []netip.Addr{netip.MustParseAddr("169.254.7.7"), netip.MustParseAddr("fe80::7:7")}
		for _, addr := range locals {
			addrs[addr.String()] = addr
		}
		with := func(n int) Wish {
			w := wish(true)
			w.edit(0).LinkLocals = locals[:n]
			for _, addr := range locals[:n] {
				w.edit(0).Allow.Prefixes = append(w.Ports[0].Allow.Prefixes, netip.PrefixFrom(addr, addr.BitLen()))
			}
			return w
		}
		d := h.driver()
		h.apply(d, wish(false))
		prepare()
		for _, addr := range locals {
			run(t, "ip", "neigh", "replace", addr.String(), "lladdr", old.String(), "dev", bridgeName, "nud", "stale")
		}
		h.apply(d, with(1))
		h.apply(d, with(2))
		everybodyKnows()
		for _, addr := range locals {
			if !known(addr, bridgeName, a.mac) {
				t.Errorf("the host does not know where %s is", addr)
			}
		}
		prepare()
		h.apply(d, with(2))
		v.inside(func() {
			for _, addr := range locals {
				if !known(addr, "eth0", old) {
					t.Errorf("%s was announced again", addr)
				}
			}
		})
		for _, addr := range locals {
			delete(addrs, addr.String())
		}
	})
	h.run(t, "on a network that is not guarded", func(t *testing.T) {
		d := h.driver()
		w := wish(false)
		w.edit(1).Guarded = false
		h.apply(d, w)
		prepare()
		for _, addr := range addrs {
			run(t, "ip", "neigh", "replace", addr.String(), "lladdr", old.String(), "dev", bridgeName, "nud", "stale")
		}
		p0 := w.edit(0)
		p0.Guarded, p0.Admitted = false, true
		h.apply(d, w)
		everybodyKnows()
		for _, addr := range addrs {
			if !known(addr, bridgeName, a.mac) {
				t.Errorf("the host does not know where %s is: %s", addr, fmt.Sprint(output(t, "ip", "neigh", "show", "dev", bridgeName)))
			}
		}
	})
}
