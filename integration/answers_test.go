package integration

import (
	"net/netip"
	"slices"
	"testing"

	"netguard/agent/control"

	. "netguard/integration/harness"
)

// TestAnswersByAnotherNetwork: a container that is reached by its address on a routed
// network answers by its default gateway on another. It begins nothing so.
func TestAnswersByAnotherNetwork(t *testing.T) {
	t.Parallel()
	e := Start(t, WithIPv6(), WithOutside())
	const mode = "com.docker.network.bridge.gateway_mode_ipv"
	// By their names the first has the default gateway.
	near := e.Network("aanat", Subnet("198.18.62.0/24"), Subnet("fd00:62::/64"))
	routed := e.Network("zrouted", Subnet("198.18.63.0/24"), Subnet("fd00:63::/64"), DriverOption(mode+"4", "routed"), DriverOption(mode+"6", "routed"))
	// Engines that know no routed networks let them be reached by the operator's rule, and
	// no reverse path filter stands in the way.
	for _, program := range []string{"iptables", "ip6tables"} {
		chain := "DOCKER-USER"
		if !e.Try(program, "-L", chain).OK() {
			chain = "FORWARD"
		}
		e.Output(program, "-I", chain, "-o", routed.Bridge, "-j", "ACCEPT")
		e.Output(program, "-I", chain, "-i", routed.Bridge, "-j", "ACCEPT")
		e.Output(program, "-I", chain, "-i", near.Bridge, "-j", "ACCEPT")
	}
	for _, dev := range []string{"all", Uplink, near.Bridge, routed.Bridge} {
		e.Output("sysctl", "-qw", "net.ipv4.conf."+dev+".rp_filter=0")
	}
	services := []string{"tcp/80", "udp/53"}
	c := e.Run("two", On("aanat"))
	c.Connect("zrouted")
	mate := welcome(t, e, "mate", "aanat", services)
	two := &guest{Container: c, network: "zrouted"}
	two.settle(t, services)
	outside := &spot{"outside", e.Outside.Netns}
	openDoors(t, outside, services, OutsideIPv4, OutsideIPv6)
	asked := func() (all []*knock) {
		for _, s := range services {
			all = slices.Concat(all, outside.to(true, "by its address on the routed network", s, two.addrs...))
		}
		return all
	}
	// begins are connections that it opens under that address by its default gateway.
	begins := func(open bool) (all []*knock) {
		for i, a := range two.addrs {
			for _, s := range services {
				for _, k := range two.at.to(open, "in the name of that address", s, []netip.Addr{OutsideIPv4, OutsideIPv6}[i]) {
					k.source = a
					all = append(all, k)
				}
			}
		}
		return all
	}
	mustKnock(t, slices.Concat(asked(), begins(true)))
	book := newRulebook(e, e.Agent())
	book.awaitAdmitted(t, 3)
	mustKnock(t, slices.Concat(asked(), begins(false), two.at.to(true, "as itself", "tcp/80", mate.addrs...)))
	for _, v := range violations(t, book.a, &actor{Container: c, network: "aanat"}) {
		if v != (control.Violations{}) {
			t.Errorf("violations %+v", v)
		}
	}
}
