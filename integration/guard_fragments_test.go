package integration

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// TestGuardFragments has a container fill the host's reassembly with fragments whose rest
// never comes. A clean-up gives the host its settings back.
func TestGuardFragments(t *testing.T) {
	t.Parallel()
	e := Start(t)
	n := e.Network("net", Subnet("198.18.45.0/24"))
	mallory, client := enter(t, e.Run("mallory", On("net")), "net"), enter(t, e.Run("client", On("net")), "net")
	host := gateway(t, e, n, client.Container)
	var server net.PacketConn
	err := e.Do(func() (err error) {
		server, err = net.ListenPacket("udp", netip.AddrPortFrom(host.IPv4, 9).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	arrive := func(patience time.Duration) int {
		t.Helper()
		err := client.Inside().Do(func() error {
			c, err := net.Dial("udp", netip.AddrPortFrom(host.IPv4, 9).String())
			if err != nil {
				return err
			}
			defer c.Close()
			for range 10 {
				if _, err := c.Write(make([]byte, 8000)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got, buf := 0, make([]byte, 9000)
		_ = server.SetReadDeadline(time.Now().Add(patience))
		for got < 10 {
			if _, _, err := server.ReadFrom(buf); err != nil {
				break
			}
			got++
		}
		return got
	}
	const lonely = 20000
	flood := func() {
		t.Helper()
		for range 2 { // from a socket without room single ones are lost
			if err := mallory.port.Send(attack.LonelyFragments(host.MAC, mallory.MAC, mallory.IPv4, host.IPv4, lonely)...); err != nil {
				t.Fatal(err)
			}
		}
	}
	settings := func() string {
		return e.Output("sh", "-c", "cd /proc/sys/net && grep . ipv4/ipfrag_high_thresh ipv4/ipfrag_time ipv6/ip6frag_high_thresh ipv6/ip6frag_time netfilter/nf_conntrack_frag6_*  2>/dev/null || true")
	}
	if got := arrive(arrives); got != 10 {
		t.Fatalf("%d of 10 arrive", got)
	}
	flood()
	if got := arrive(300 * time.Millisecond); got != 0 {
		t.Errorf("without netguard %d of 10 arrive: the attack proves nothing", got)
	}
	before := settings()
	a := e.Agent()
	a.AwaitStatus("all are admitted", AllAdmitted)
	if now := settings(); !strings.Contains(now, "ipfrag_time:2\n") || strings.Contains(now, "ipfrag_high_thresh:4194304") {
		t.Errorf("the host's settings are\n%s", now)
	}
	flood()
	if got := arrive(arrives); got != 10 {
		t.Errorf("with netguard %d of 10 arrive", got)
	}
	if v := violations(t, a, mallory, client); v[0].Fragments == 0 || v[1].Fragments != 0 {
		t.Errorf("violations %+v", v)
	}
	if r := a.CLI("cleanup"); !r.OK() {
		t.Error(fmt.Sprint(r))
	}
	if now := settings(); now != before {
		t.Errorf("after a clean-up\n%s\nbefore\n%s", now, before)
	}
}
