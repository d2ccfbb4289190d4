package guard

import (
	"net/netip"

	"netguard/integration/attack"
)

// Frames that containers send, honest and other ones, as package attack builds them. What is
// not checked, such as checksums, is zero: a bridge does not look at it.

var (
	broadcast = MAC(attack.Broadcast)
	nobody    = MAC(attack.Nobody)
	none4     = attack.None4
	none6     = attack.None6
	all4      = attack.All4
	allNodes  = attack.AllNodes
	allRouter = attack.AllRouters
	mdns4     = attack.MDNS4
	igmpv3    = attack.ReportGroup4
	mldv2     = attack.ReportGroup6
	burden    = attack.Burden
)

var (
	with        = attack.With
	ip4         = attack.IPv4
	ip6         = attack.IPv6
	sum4        = attack.Sum4
	fragment4   = attack.Fragment4
	fragment6   = attack.Fragment6
	udpPacket   = attack.Datagram
	extension   = attack.Extension
	routerAlert = attack.RouterAlert6
	icmp6Packet = attack.Message6
	igmpPacket  = attack.IGMP
	solicited   = attack.Solicited
	options     = attack.Options
	report4     = attack.Records4
	report6     = attack.Records6
	quote       = attack.Quote
)

func ether(to, from MAC, typ uint16, payload ...[]byte) []byte {
	return attack.Ether(attack.MAC(to), attack.MAC(from), typ, payload...)
}

func arpPacket(op uint16, senderMAC MAC, sender netip.Addr, targetMAC MAC, target netip.Addr) []byte {
	return attack.ARP(op, attack.MAC(senderMAC), sender, attack.MAC(targetMAC), target)
}

func ndOptionOf(typ byte, mac MAC) []byte { return attack.MACOption(typ, attack.MAC(mac)) }
func group4(a netip.Addr) MAC             { return MAC(attack.Group4(a)) }
func group6(a netip.Addr) MAC             { return MAC(attack.Group(a)) }
func dhcpRequest(mac MAC) []byte          { return attack.DHCPRequest(attack.MAC(mac)) }

// routerAdvertisement says "I am your router".
func routerAdvertisement() []byte { return icmp6Packet(134, make([]byte, 8)) }

// nd is an ICMPv6 message from the sender's own address, in a frame to the victim.
func nd(a, v *box, message ...[]byte) []byte {
	return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, 58, message...))
}

func flow4(from, to netip.Addr) []byte { return ip4(from, to, 17, udpPacket(5000, 53)) }
func flow6(from, to netip.Addr) []byte { return ip6(from, to, 17, udpPacket(5000, 53)) }

func errorTo4(v, a *box, message []byte) []byte {
	return ether(v.mac, a.mac, 0x800, ip4(a.ip4, v.ip4, 1, message))
}

func errorTo6(v, a *box, next byte, parts ...[]byte) []byte {
	return ether(v.mac, a.mac, 0x86dd, ip6(a.ip6, v.ip6, next, parts...))
}

// igmpTo is a message of IGMP to a group.
func igmpTo(group netip.Addr, a *box, message []byte, behind ...[]byte) []byte {
	return attack.IGMPTo(attack.Group4(group), attack.MAC(a.mac), a.ip4, group, message, behind...)
}

// discover is the question of a client of DHCP, with so many bytes more.
func discover(a *box, extra int) []byte {
	return attack.DiscoverTo(attack.Broadcast, attack.MAC(a.mac), all4, 1, extra)
}

func netip4(a, b, c, d byte) netip.Addr { return netip.AddrFrom4([4]byte{a, b, c, d}) }

func (b *box) party() attack.Party {
	return attack.Party{MAC: attack.MAC(b.mac), IPv4: b.ip4, IPv6: b.ip6}
}

// scene has a attack v, about c, a third container.
func scene(a, v, c *box) attack.Scene {
	return attack.Scene{Attacker: a.party(), Victim: v.party(), Third: c.party(),
		Gateway: attack.Party{MAC: attack.MAC(a.host.mac), IPv4: gateway4, IPv6: gateway6}}
}

// violation is what a kind of attack is counted as.
func violation(k attack.Kind) func(*Violations) *uint64 {
	return map[attack.Kind]func(*Violations) *uint64{attack.OfMAC: ofMAC, attack.OfARP: ofARP, attack.OfIP: ofIP,
		attack.OfND: ofND, attack.OfDHCP: ofDHCP, attack.OfEthertype: ofEthertype}[k]
}

func ofMAC(v *Violations) *uint64       { return &v.MAC }
func ofARP(v *Violations) *uint64       { return &v.ARP }
func ofIP(v *Violations) *uint64        { return &v.IP }
func ofND(v *Violations) *uint64        { return &v.ND }
func ofDHCP(v *Violations) *uint64      { return &v.DHCP }
func ofEthertype(v *Violations) *uint64 { return &v.Ethertype }
