package integration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// TestForgedErrors: nobody breaks or narrows a connection of others, errors of those who
// serve arrive, a DHCP server's answers to a relay leave the host, and those to its own
// network pass by the operator's word.
func TestForgedErrors(t *testing.T) {
	t.Parallel()
	e := Start(t, WithIPv6(), WithOutside())
	e.Network("net", Subnet("198.18.70.0/24"), Subnet("fd00:70::/64"))
	victim := enter(t, e.Run("victim", On("net")), "net")
	server := enter(t, e.Run("server", On("net")), "net")
	mallory := enter(t, e.Run("mallory", On("net")), "net")

	// narrowed has mallory say that the way from the victim to the server is narrow.
	narrowed := func(t *testing.T, from, to netip.Addr, typ byte) bool {
		t.Helper()
		var flow *net.UDPConn
		err := victim.Inside().Do(func() (err error) {
			flow, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 53)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = flow.Close() }()
		local := flow.LocalAddr().(*net.UDPAddr).AddrPort()
		local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
		ether, quoted, m := uint16(attack.EtherIPv4), []byte(nil), mallory.IPv4
		if to.Is6() {
			ether, quoted, m = attack.EtherIPv6, attack.UDP6(local, netip.AddrPortFrom(to, 53), []byte("q")), mallory.IPv6
		} else {
			quoted = attack.UDP4(local, netip.AddrPortFrom(to, 53), []byte("q"))
		}
		mallory.delivers(t, victim, attack.Ether(victim.MAC, mallory.MAC, ether, attack.Unreachable(m, from, typ, quoted)))
		return strings.Contains(victim.Inside().Output("ip", "route", "get", to.String()), "mtu")
	}
	forge := func(t *testing.T, want bool) {
		for name, c := range map[string]struct {
			from, to netip.Addr
			typ      byte
		}{"IPv4": {victim.IPv4, server.IPv4, 3}, "IPv6": {victim.IPv6, server.IPv6, 2}} {
			if got := narrowed(t, c.from, c.to, c.typ); got != want {
				t.Errorf("%s: the way is narrow: %v", name, got)
			}
		}
		victim.Inside().Output("ip", "route", "flush", "cache")
		victim.Inside().Output("ip", "-6", "route", "flush", "cache")
	}
	t.Run("without_netguard", func(t *testing.T) { forge(t, true) })
	a := e.Agent()
	a.AwaitStatus("all are admitted", AllAdmitted)
	t.Run("with_netguard", func(t *testing.T) { forge(t, false) })
	for _, to := range []netip.Addr{server.IPv4, server.IPv6} {
		t.Run("nobody_at_a_port_is_told/"+to.String(), func(t *testing.T) {
			if err := refusedAt(victim, netip.AddrPortFrom(to, 9)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("a_DHCP_server_answers_a_relay", func(t *testing.T) {
		if err := answerRelay(e, server); err != nil {
			t.Error(err)
		}
	})
	got := violations(t, a, victim, server)
	for i, c := range []*actor{victim, server} {
		if got[i].IP+got[i].DHCP+got[i].ARP+got[i].ND != 0 {
			t.Errorf("%s was honest, but: %+v", c.Name, got[i])
		}
	}
	t.Run("DHCP_servers", func(t *testing.T) { dhcpServers(t, e, a) })
}

// refusedAt sends to a port at which nobody is, and gives what comes back.
func refusedAt(from *actor, to netip.AddrPort) error {
	return from.Inside().Do(func() error {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		buf := make([]byte, 10)
		// The first one may be lost while an address is still being looked for.
		for until := deadline(); time.Now().Before(until); {
			if _, err := c.Write([]byte("is anybody there?")); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			if _, err = c.Read(buf); !errors.Is(err, unix.EAGAIN) && !isTimeout(err) {
				return err
			}
		}
		return fmt.Errorf("nothing came back from %s", to)
	})
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// answerRelay has a container send from a DHCP server's port to a relay outside.
func answerRelay(e *Engine, from *actor) error {
	var relay, sender *net.UDPConn
	err := e.Outside.Do(func() (err error) {
		relay, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 67})
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = relay.Close() }()
	err = from.Inside().Do(func() (err error) {
		sender, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 67})
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = sender.Close() }()
	buf := make([]byte, 100)
	for until := deadline(); time.Now().Before(until); {
		if _, err := sender.WriteToUDP([]byte("an answer"), &net.UDPAddr{IP: OutsideIPv4.AsSlice(), Port: 67}); err != nil {
			return err
		}
		_ = relay.SetReadDeadline(time.Now().Add(time.Second))
		if _, err = relay.Read(buf); err == nil {
			return nil
		}
	}
	return fmt.Errorf("the relay got nothing")
}
