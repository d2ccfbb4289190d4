package guard

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// TestLoopback is about what listens for the host alone. Docker without its proxy sets
// route_localnet on bridges, and then the kernel takes 127.0.0.0/8 from there.
func TestLoopback(t *testing.T) {
	h := newHost(t, 2)
	a := h.boxes[0]
	h.check(os.WriteFile("/proc/sys/net/ipv4/conf/"+bridgeName+"/route_localnet", []byte("1"), 0))
	run(t, "ip", "link", "set", "lo", "up")
	// alone listens for the host, all for everybody.
	listen := func(address string) net.PacketConn {
		c, err := net.ListenPacket("udp4", address)
		h.check(err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	alone, second, all := listen("127.0.0.1:53"), listen("127.9.8.7:53"), listen(gateway4.String()+":53")
	arrives := func(t *testing.T, to net.PacketConn, patience time.Duration) bool {
		t.Helper()
		at := netip.MustParseAddrPort(to.LocalAddr().String()).Addr()
		a.send(ether(h.mac, a.mac, 0x800, ip4(a.ip4, at, 17, udpPacket(1, 53, []byte("<for the host>")))))
		_ = to.SetReadDeadline(time.Now().Add(patience))
		_, _, err := to.ReadFrom(make([]byte, 100))
		return err == nil
	}
	for _, to := range []net.PacketConn{alone, second} {
		if !arrives(t, to, 5*time.Second) {
			t.Fatal("the attack fails by itself")
		}
	}
	d := h.driver()
	for name, change := range map[string]func(*Wish){
		"closed": func(*Wish) {},
		"open":   func(w *Wish) { w.Open = true },
	} {
		h.run(t, "admission_is_"+name, func(t *testing.T) {
			w := h.wish()
			w.Bridges = []Bridge{{Index: h.bridge, Name: bridgeName}}
			change(&w)
			h.apply(d, w)
			before := violations(t, d, a)
			for _, to := range []net.PacketConn{alone, second} {
				if arrives(t, to, 0) {
					t.Errorf("the datagram for %s arrived", to.LocalAddr())
				}
			}
			// What comes later arrives later.
			if !arrives(t, all, 5*time.Second) {
				t.Error("the bridge's own address is not reached")
			}
			for _, to := range []net.PacketConn{alone, second} {
				_ = to.SetReadDeadline(time.Now().Add(time.Millisecond))
				if _, _, err := to.ReadFrom(make([]byte, 100)); err == nil {
					t.Errorf("the datagram for %s arrived", to.LocalAddr())
				}
			}
			if before != violations(t, d, a) {
				t.Errorf("counted %+v, want %+v", violations(t, d, a), before)
			}
		})
	}
}

// TestLimitsForgetBridges: a set without data loses what is not wanted any more.
func TestLimitsForgetBridges(t *testing.T) {
	h := newHost(t, 1)
	run(t, "ip", "link", "add", "br-gone", "type", "bridge")
	gone, err := net.InterfaceByName("br-gone")
	h.check(err)
	w, d := h.wish(), h.driver()
	w.Bridges = []Bridge{{Index: h.bridge, Name: bridgeName}, {Index: gone.Index, Name: "br-gone"}}
	h.apply(d, w)
	w.Bridges = w.Bridges[:1]
	h.apply(d, w)
	if got := len(d.kernel.limits.sets[setHostBridges]); got != 1 {
		t.Errorf("%d bridges are in the set", got)
	}
	if r, err := d.Read(Everything); err != nil || r.Changes != 0 || len(r.Drift) > 0 {
		t.Errorf("%d changes, drift %q, %v", r.Changes, r.Drift, err)
	}
	if got := output(t, "nft", "list", "set", "inet", TableName, setHostBridges); strings.Contains(got, "br-gone") || !strings.Contains(got, bridgeName) {
		t.Errorf("the kernel has %s", got)
	}
}
