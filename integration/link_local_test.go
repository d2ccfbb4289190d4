package integration

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// TestLinkLocalGroups has a container that starts while no agent runs send IP to the host
// in frames to link-local groups, LLDP's among them: a bridge hands those over as if they
// had come in by the port, past its hooks.
func TestLinkLocalGroups(t *testing.T) {
	t.Parallel()
	e := Start(t)
	for _, name := range []string{"all", "default"} {
		e.Output("sysctl", "-qw", "net.ipv4.conf."+name+".rp_filter=0")
	}
	e.Network("net", Subnet("198.18.98.0/24"))
	host := netip.MustParseAddrPort("198.18.98.1:7198")
	// This one is of no managed network.
	other := netip.MustParseAddrPort("203.0.113.1:7198")
	e.Output("ip", "addr", "add", other.Addr().String()+"/32", "dev", "lo")
	var box net.PacketConn
	if err := e.Do(func() (err error) {
		box, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", host.Port()))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = box.Close() })
	arrived := func(c *Container) int {
		iface, own := c.Interface("net"), mac(t, c.MAC("net"))
		for last := range 16 {
			for _, from := range []netip.Addr{c.IP("net"), netip.MustParseAddr("192.0.2.5")} {
				group := attack.MAC{1, 0x80, 0xc2, 0, 0, byte(last)}
				for _, to := range []netip.AddrPort{host, other} {
					c.Inside().SendFrame(iface, attack.Ether(group, own, attack.EtherIPv4, attack.UDP4(netip.AddrPortFrom(from, 7), to, []byte("group"))), 2)
				}
			}
		}
		// The host's own datagram comes last.
		if err := e.Do(func() error {
			own, err := net.Dial("udp4", host.String())
			if err != nil {
				return err
			}
			defer own.Close()
			_, err = own.Write([]byte("last"))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if err := box.SetReadDeadline(time.Now().Add(arrives)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 2048)
		for n := 0; ; n++ {
			if got, _, err := box.ReadFrom(buf); err != nil {
				t.Fatal(err)
			} else if string(buf[:got]) == "last" {
				return n
			}
		}
	}
	if n := arrived(e.Run("before", On("net"))); n < 16 {
		t.Fatalf("without netguard %d frames arrived", n)
	}
	a := e.Agent()
	a.AwaitStatus("all are admitted", AllAdmitted)
	a.Kill()
	for i := range 2 {
		if n := arrived(e.Run(fmt.Sprintf("late%d", i), On("net"))); n != 0 {
			t.Errorf("%d frames of a container that came while no agent ran arrived", n)
		}
	}
}
