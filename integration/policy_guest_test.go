package integration

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	. "netguard/integration/harness"
)

// guest is a container on one network, with echo servers in it.
type guest struct {
	*Container
	network string
	at      *spot
	doors   *doors
	addrs   []netip.Addr // IPv4, and IPv6 where the network has it
}

// welcome starts a container and its servers.
func welcome(t testing.TB, e *Engine, name, network string, services []string, options ...ContainerOption) *guest {
	t.Helper()
	if network != "bridge" {
		options = append(options, On(network))
	}
	g := &guest{Container: e.Run(name, options...), network: network}
	g.settle(t, services)
	return g
}

// settle opens the servers where the container is now.
func (g *guest) settle(t testing.TB, services []string) {
	t.Helper()
	g.at = &spot{g.Name, g.Inside()}
	g.addrs = nil
	there := g.Inspect().NetworkSettings.Networks[g.network]
	for _, text := range []string{there.IPAddress, there.GlobalIPv6Address} {
		if a, err := netip.ParseAddr(text); err == nil {
			g.addrs = append(g.addrs, a)
		}
	}
	g.doors = openDoors(t, g.at, services, g.addrs...)
}

// to are connections from a place to addresses, by a service such as tcp/80.
func (s *spot) to(open bool, what, service string, addrs ...netip.Addr) []*knock {
	protocol, text, _ := strings.Cut(service, "/")
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil && protocol != "icmp" {
		panic(err)
	}
	var all []*knock
	for _, a := range addrs {
		all = append(all, &knock{from: s, protocol: protocol, to: netip.AddrPortFrom(a, uint16(port)), open: open, what: what})
	}
	return all
}

// to are connections between two guests, in every family.
func (g *guest) to(open bool, other *guest, services ...string) []*knock {
	var all []*knock
	for _, s := range services {
		all = append(all, g.at.to(open, g.Name+">"+other.Name, s, other.addrs...)...)
	}
	return all
}
