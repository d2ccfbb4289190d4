package events

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"netguard/netpolicy/guard"
)

// Claim is what a refused frame says of its sender. All of it may be forged, and
// that is the point.
type Claim struct {
	MAC guard.MAC  // zero if it says nothing
	IP  netip.Addr // invalid if it says nothing
	// What says what the frame is, such as "ARP reply".
	What string
}

// Ethertypes and protocols.
const (
	typeIPv4, typeARP, typeIPv6 = 0x0800, 0x0806, 0x86dd
	typeVLAN, typeQinQ          = 0x8100, 0x88a8

	protoUDP, protoICMP6 = 17, 58
)

// Claim reads what a frame that was refused for a kind of violation claims.
func (s *Sample) Claim(kind string) Claim {
	var c Claim
	typ := uint16(0)
	if len(s.Link) >= 14 {
		c.MAC = guard.MAC(s.Link[6:12])
		typ = binary.BigEndian.Uint16(s.Link[12:])
	}
	if s.VLAN != nil {
		c.What = fmt.Sprintf("VLAN %d (0x%04x)", s.VLAN.ID, s.VLAN.Protocol)
		if kind == "ethertype" {
			return c
		}
	}
	p := s.Packet
	switch typ {
	case typeIPv4:
		c.ipv4(p, kind)
	case typeIPv6:
		c.ipv6(p, kind)
	case typeARP:
		c.arp(p, kind)
	case typeVLAN, typeQinQ:
		c.What = fmt.Sprintf("0x%04x", typ)
		if len(p) >= 2 {
			c.What = fmt.Sprintf("VLAN %d (0x%04x)", binary.BigEndian.Uint16(p)&0xfff, typ)
		}
	default:
		switch {
		case len(s.Link) < 14:
		case typ < 0x600:
			c.What = "LLC, without an ethertype"
		default:
			c.What = fmt.Sprintf("ethertype 0x%04x", typ)
		}
	}
	return c
}

func (c *Claim) say(what string) {
	if c.What != "" {
		what = c.What + ", " + what
	}
	c.What = what
}

func (c *Claim) arp(p []byte, kind string) {
	if len(p) < 8 {
		c.say("ARP, cut off")
		return
	}
	hardware, protocol, op := binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:]), binary.BigEndian.Uint16(p[6:])
	if hardware != 1 || protocol != typeIPv4 || p[4] != 6 || p[5] != 4 || len(p) < 28 {
		c.say(fmt.Sprintf("ARP of hardware %d for protocol 0x%04x", hardware, protocol))
		return
	}
	switch op {
	case 1:
		c.say("ARP request")
	case 2:
		c.say("ARP reply")
	default:
		c.say(fmt.Sprintf("ARP operation %d", op))
	}
	c.IP = netip.AddrFrom4([4]byte(p[14:]))
	if kind == "arp" {
		c.MAC = guard.MAC(p[8:14])
	}
}

func (c *Claim) ipv4(p []byte, kind string) {
	if len(p) < 20 || p[0]>>4 != 4 {
		c.say("IPv4, cut off")
		return
	}
	c.IP = netip.AddrFrom4([4]byte(p[12:]))
	header := int(p[0]&15) * 4
	protocol, later := p[9], binary.BigEndian.Uint16(p[6:])&0x1fff != 0
	if kind == "dhcp" && protocol == protoUDP && !later && header >= 20 && len(p) >= header+2 {
		if u := p[header:]; binary.BigEndian.Uint16(u) == 67 {
			c.say("DHCP server")
		} else {
			c.say("DHCP client")
			if len(u) >= 8+34 {
				c.MAC = guard.MAC(u[8+28:])
			}
		}
		return
	}
	c.say(fmt.Sprintf("IPv4 to %s, protocol %d", netip.AddrFrom4([4]byte(p[16:])), protocol))
}

func (c *Claim) ipv6(p []byte, kind string) {
	if len(p) < 40 || p[0]>>4 != 6 {
		c.say("IPv6, cut off")
		return
	}
	c.IP = netip.AddrFrom16([16]byte(p[8:]))
	next, to := p[6], netip.AddrFrom16([16]byte(p[24:]))
	switch {
	case kind == "dhcp":
		c.say("DHCPv6 server")
	case kind == "nd" && next == protoICMP6 && len(p) > 40:
		c.nd(p[40:])
	case kind == "nd":
		c.say(fmt.Sprintf("ICMPv6 behind a header of type %d", next))
	default:
		c.say(fmt.Sprintf("IPv6 to %s, next header %d", to, next))
	}
}

// nd reads an ICMPv6 message of neighbour discovery.
func (c *Claim) nd(m []byte) {
	switch typ := m[0]; typ {
	case 130:
		c.say("multicast query")
	case 133:
		c.say("router solicitation")
	case 134:
		c.say("router advertisement")
	case 135:
		c.say("neighbour solicitation")
		if len(m) >= 24 && c.IP.IsUnspecified() { // is it mine?
			c.IP = netip.AddrFrom16([16]byte(m[8:]))
		}
	case 136:
		c.say("neighbour advertisement")
		if len(m) >= 24 { // it is the target that it speaks for
			c.IP = netip.AddrFrom16([16]byte(m[8:]))
		}
	case 137:
		c.say("redirect")
	default:
		c.say(fmt.Sprintf("ICMPv6 type %d", typ))
	}
	// Solicitations and advertisements may have the sender's MAC as an option.
	const option = 24
	if (m[0] == 135 || m[0] == 136) && len(m) >= option+8 && m[option+1] == 1 && (m[option] == 1 || m[option] == 2) {
		c.MAC = guard.MAC(m[option+2:])
	}
}

// Texts gives the addresses as text, empty where there is none.
func (c Claim) Texts() (mac, ip string) {
	if c.MAC != (guard.MAC{}) {
		mac = c.MAC.String()
	}
	if c.IP.IsValid() {
		ip = c.IP.String()
	}
	return mac, ip
}
