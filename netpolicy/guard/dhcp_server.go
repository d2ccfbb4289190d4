package guard

import (
	"fmt"

	"github.com/google/nftables/expr"

	"netguard/internal/label"
)

// Whoever answers a DHCP client becomes its router. So a packet of a container from a server's
// port, or to a client's port, reaches neither its bridge nor a managed network. The other
// port does not matter: clients do not look at it. A packet that leaves the host hurts nobody
// here. It is in a frame to the bridge, and its destination is on no managed network.
//
// No rule of the bridge can tell two things of a frame that is to be routed. It may be for the
// host itself, which may be a client on another device. A route may lead back to a managed
// bridge. The table of limits refuses both, after routing. Where the kernel has no such table,
// only answers to relays leave.

// LabelDHCP is the label that ParseDHCP reads.
const LabelDHCP = label.DHCP

// ParseDHCP reads the label netguard.guard.dhcp. It has one value.
func ParseDHCP(label string) error {
	if label != "server" {
		return fmt.Errorf("label %s is %.60q: it is server (the container may answer DHCP clients of its network, where the operator permits it), or left out", LabelDHCP, label)
	}
	return nil
}

var (
	ip4ToFirst        = network(16, 1)
	ip6ToStart        = network(24, 2)
	answer4, relayed4 = portPair.is(0, 67, 0, 68), portPair.is(0, 67, 0, 67)
	answer6, relayed6 = portPair.is(547>>8, 547&0xff, 546>>8, 546&0xff), portPair.is(547>>8, 547&0xff, 547>>8, 547&0xff)
)

// servers adds the checks of what comes from a server's port, or goes to a client's.
func (b *builder) servers(f Features) {
	toBridge, server, routed := in(setBridges, etherTo), in(setServers, inPort), in(setRouted, inPort)
	b.pass("dhcp-server", "of a server, to its own network", server, notIn(setBridges, etherTo), answer4)
	b.pass("dhcp-server", "of a server, to a relay", server, relayed4)
	b.pass("dhcpv6-server", "of a server, to its own network", server, notIn(setBridges, etherTo), answer6)
	b.pass("dhcpv6-server", "of a server, to a relay", server, relayed6)
	if f.Prefixes {
		b.refuse("dhcp-server", "to a managed network", kindDHCP, in(setSubnets4, etherType, ip4To))
		b.pass("dhcp-server", "to a relay", toBridge, relayed4, ip4ToFirst.between(1, 223))
		b.pass("dhcp-server", "to a network beyond the host", toBridge, routed, ip4ToFirst.between(1, 223))
		b.refuse("dhcpv6-server", "to a managed network", kindDHCP, in(setSubnets6, etherType, ip6To))
		b.refuse("dhcpv6-server", "to a link-local address", kindDHCP, ip6ToStart.maskedIs([]byte{0xff, 0xc0}, []byte{0xfe, 0x80}))
		b.pass("dhcpv6-server", "to a relay", toBridge, relayed6, ip6ToGroup.isNot(0xff))
		b.pass("dhcpv6-server", "to a network beyond the host", toBridge, routed, ip6ToGroup.isNot(0xff))
	}
	b.refuse("dhcp-server", "any other", kindDHCP)
	b.refuse("dhcpv6-server", "any other", kindDHCP)
}

// setGuests is the set of the managed bridges that have only guarded ports, by ifindex. No
// uplink leads from them to a DHCP server.
const setGuests = "guests"

// clients adds rules to the table of limits. They match only packets to a client's UDP port:
// everybody may send to a relay or a server on the host.
func (b *builder) clients() {
	for _, c := range []struct {
		kind   string
		client match
	}{{"DHCP", targetPort.is(0, 68)}, {"DHCPv6", targetPort.is(546>>8, 546&0xff)}} {
		b.add("forward", c.kind+" answer back to a managed bridge", goTo(refuseAnswer), l4.is(udp), c.client, in(setGuests, inPort), in(setGuests, outPort))
		b.add("input", c.kind+" answer to the host", goTo(refuseAnswer), l4.is(udp), c.client, in(setGuests, inPort))
	}
	b.add(refuseAnswer, "count", goTo("refuse"), match{&expr.Counter{}})
}

// refuseAnswer is the chain that counts these refused answers. It cannot tell which port sent
// them.
const refuseAnswer = "refuse-dhcp"

// guests are the bridges of the set.
func guests(w Wish) map[int]bool {
	out := map[int]bool{}
	for _, bridge := range w.Bridges {
		out[bridge.Index] = true
	}
	for _, p := range w.Ports {
		if !p.Guarded {
			delete(out, p.Bridge)
		}
	}
	return out
}
