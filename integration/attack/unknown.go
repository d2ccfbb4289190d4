package attack

import (
	"fmt"
	"net/netip"
)

// HostPort is the UDP port that frames to the host go to.
const HostPort = 7198

// ToHost are frames to the host, by name: to groups, to broadcast, and to the MAC of the
// host's end of the sender's veth. Only the bridge shows where they come from. The addresses
// are the host's and a third party's, and should belong to no managed network.
func ToHost(sender, host Party, end MAC) map[string][]byte {
	local := netip.MustParseAddr("fe80::5")
	four := UDP4(port(sender.IPv4, 7), port(host.IPv4, HostPort))
	six := func(from netip.Addr) []byte { return UDP6(port(from, 7), port(host.IPv6, HostPort)) }
	fragmented := func() []byte {
		d := sum6(sender.IPv6, host.IPv6, udp, Datagram(7, HostPort), 6)
		return IPv6(sender.IPv6, host.IPv6, 44, Fragment6(udp, 0, false), d)
	}
	out := map[string][]byte{}
	to := map[string]MAC{"all": Broadcast, "all hosts": {1, 0, 0x5e, 0, 0, 1}, "a group": {1, 0, 0x5e, 0x7f, 0xff, 0xfa},
		"all nodes": Group(AllNodes), "the port": end}
	for last := range byte(16) {
		// The second is flow control, which the bridge drops.
		if last != 1 {
			to[fmt.Sprintf("link-local group %d", last)] = MAC{1, 0x80, 0xc2, 0, 0, last}
		}
	}
	for name, to := range to {
		frame := func(what string, typ uint16, payload []byte) {
			out[what+" to "+name] = Ether(to, sender.MAC, typ, payload)
		}
		frame("IPv4", EtherIPv4, four)
		frame("IPv6", EtherIPv6, six(sender.IPv6))
		frame("IPv6 from a link-local address", EtherIPv6, six(local))
		frame("IPv6 in an atomic fragment", EtherIPv6, fragmented())
		frame("ARP request", EtherARP, ARP(Request, sender.MAC, sender.IPv4, MAC{}, host.IPv4))
		frame("ARP reply", EtherARP, ARP(Reply, sender.MAC, sender.IPv4, MAC{}, host.IPv4))
		out["IPv4 in VLAN 0 to "+name] = Tagged(Ether(to, sender.MAC, EtherIPv4, four), EtherVLAN, 0)
		out["ARP in VLAN 0 to "+name] = Tagged(Ether(to, sender.MAC, EtherARP, ARP(Request, sender.MAC, sender.IPv4, MAC{}, host.IPv4)), EtherVLAN, 0)
	}
	for name, message := range map[string][]byte{
		"multicast query":         ICMPv6(local, AllNodes, 130, make([]byte, 20)),
		"router advertisement":    RouterAdvertisement(local, AllNodes),
		"neighbour solicitation":  ICMPv6(local, AllNodes, 135, make([]byte, 4), host.IPv6.AsSlice()),
		"neighbour advertisement": ICMPv6(local, AllNodes, 136, ndOverride, sender.IPv6.AsSlice(), MACOption(2, sender.MAC)),
		"redirect":                ICMPv6(local, AllNodes, 137, make([]byte, 4), local.AsSlice(), sender.IPv6.AsSlice()),
	} {
		out[name] = Ether(Group(AllNodes), sender.MAC, EtherIPv6, IPv6(local, AllNodes, icmpv6, message))
	}
	return out
}
