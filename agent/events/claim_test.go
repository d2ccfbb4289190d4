package events

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"netguard/netpolicy"
	"netguard/netpolicy/guard"
)

var (
	own    = guard.MAC{2, 0x42, 0, 0, 0, 1}
	forged = guard.MAC{2, 0xbb, 0, 0, 0, 2}
	v4, w4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	v6, w6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// link is the header of a frame to nobody.
func link(from guard.MAC, typ uint16) []byte {
	return binary.BigEndian.AppendUint16(append(make([]byte, 6), from[:]...), typ)
}

func packet4(proto byte, payload ...byte) []byte {
	p := append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0}, v4.AsSlice()...)
	return append(append(p, w4.AsSlice()...), payload...)
}

func packet6(next byte, payload ...byte) []byte {
	p := append([]byte{0x60, 0, 0, 0, 0, 0, next, 255}, v6.AsSlice()...)
	return append(append(p, w6.AsSlice()...), payload...)
}

func arp(op byte, mac guard.MAC, ip netip.Addr) []byte {
	p := append([]byte{0, 1, 8, 0, 6, 4, 0, op}, mac[:]...)
	return append(append(p, ip.AsSlice()...), make([]byte, 10)...)
}

// advertisement is of an address, with a MAC as an option.
func advertisement(typ byte, target netip.Addr, option byte, mac guard.MAC) []byte {
	m := append([]byte{typ, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	return append(append(m, option, 1), mac[:]...)
}

func dhcp(from uint16, mac guard.MAC) []byte {
	m := binary.BigEndian.AppendUint16(nil, from)
	m = append(m, make([]byte, 6+28)...)
	return append(m, mac[:]...)
}

func TestClaim(t *testing.T) {
	fromNobody := packet6(58, advertisement(135, w6, 1, own)...)
	copy(fromNobody[8:24], make([]byte, 16))
	for name, test := range map[string]struct {
		kind   string
		sample Sample
		want   Claim
	}{
		"a_MAC":                  {"mac", Sample{Link: link(forged, 0x800), Packet: packet4(17)}, Claim{forged, v4, "IPv4 to 192.0.2.2, protocol 17"}},
		"a_MAC_with_IPv6":        {"mac", Sample{Link: link(forged, 0x86dd), Packet: packet6(6)}, Claim{forged, v6, "IPv6 to 2001:db8::2, next header 6"}},
		"a_MAC_with_ARP":         {"mac", Sample{Link: link(forged, 0x806), Packet: arp(1, own, v4)}, Claim{forged, v4, "ARP request"}},
		"an_ARP_reply":           {"arp", Sample{Link: link(own, 0x806), Packet: arp(2, forged, w4)}, Claim{forged, w4, "ARP reply"}},
		"an_odd_ARP_operation":   {"arp", Sample{Link: link(own, 0x806), Packet: arp(9, own, w4)}, Claim{own, w4, "ARP operation 9"}},
		"ARP_of_other_hardware":  {"arp", Sample{Link: link(own, 0x806), Packet: append([]byte{0, 6}, arp(2, forged, w4)[2:]...)}, Claim{MAC: own, What: "ARP of hardware 6 for protocol 0x0800"}},
		"ARP_that_is_cut_off":    {"arp", Sample{Link: link(own, 0x806), Packet: arp(2, forged, w4)[:7]}, Claim{MAC: own, What: "ARP, cut off"}},
		"an_address":             {"ip", Sample{Link: link(own, 0x800), Packet: packet4(1)}, Claim{own, v4, "IPv4 to 192.0.2.2, protocol 1"}},
		"IPv4_that_is_cut_off":   {"ip", Sample{Link: link(own, 0x800), Packet: packet4(1)[:19]}, Claim{MAC: own, What: "IPv4, cut off"}},
		"IPv6_that_is_cut_off":   {"ip", Sample{Link: link(own, 0x86dd), Packet: packet6(1)[:39]}, Claim{MAC: own, What: "IPv6, cut off"}},
		"a_router":               {"nd", Sample{Link: link(own, 0x86dd), Packet: packet6(58, 134, 0, 0, 0)}, Claim{own, v6, "router advertisement"}},
		"a_neighbour":            {"nd", Sample{Link: link(own, 0x86dd), Packet: packet6(58, advertisement(136, w6, 2, forged)...)}, Claim{forged, w6, "neighbour advertisement"}},
		"who_asks":               {"nd", Sample{Link: link(own, 0x86dd), Packet: packet6(58, advertisement(135, w6, 1, forged)...)}, Claim{forged, v6, "neighbour solicitation"}},
		"who_wants_an_address":   {"nd", Sample{Link: link(own, 0x86dd), Packet: fromNobody}, Claim{own, w6, "neighbour solicitation"}},
		"ND_behind_a_header":     {"nd", Sample{Link: link(own, 0x86dd), Packet: packet6(60, 58, 0, 0, 0)}, Claim{own, v6, "ICMPv6 behind a header of type 60"}},
		"a_DHCP_server":          {"dhcp", Sample{Link: link(own, 0x800), Packet: packet4(17, dhcp(67, own)...)}, Claim{own, v4, "DHCP server"}},
		"a_DHCP_client":          {"dhcp", Sample{Link: link(own, 0x800), Packet: packet4(17, dhcp(68, forged)...)}, Claim{forged, v4, "DHCP client"}},
		"a_DHCPv6_server":        {"dhcp", Sample{Link: link(own, 0x86dd), Packet: packet6(17)}, Claim{own, v6, "DHCPv6 server"}},
		"a_tag_beside_the_frame": {"ethertype", Sample{Link: link(own, 0x800), VLAN: &VLAN{0x8100, 0}, Packet: packet4(6)}, Claim{MAC: own, What: "VLAN 0 (0x8100)"}},
		"a_tag_in_the_frame":     {"ethertype", Sample{Link: link(own, 0x88a8), Packet: []byte{0xf0, 7}}, Claim{MAC: own, What: "VLAN 7 (0x88a8)"}},
		"a_tag_without_a_number": {"ethertype", Sample{Link: link(own, 0x8100)}, Claim{MAC: own, What: "0x8100"}},
		"a_tagged_forged_MAC":    {"mac", Sample{Link: link(forged, 0x800), VLAN: &VLAN{0x8100, 5}, Packet: packet4(6)}, Claim{forged, v4, "VLAN 5 (0x8100), IPv4 to 192.0.2.2, protocol 6"}},
		"LLDP":                   {"ethertype", Sample{Link: link(own, 0x88cc)}, Claim{MAC: own, What: "ethertype 0x88cc"}},
		"a_length":               {"ethertype", Sample{Link: link(own, 38)}, Claim{MAC: own, What: "LLC, without an ethertype"}},
		"nothing":                {"mac", Sample{}, Claim{}},
	} {
		t.Run(name, func(t *testing.T) {
			if have := test.sample.Claim(test.kind); have != test.want {
				t.Errorf("%+v, want %+v", have, test.want)
			}
		})
	}
	t.Run("has_texts_only_of_what_is_there", func(t *testing.T) {
		if mac, ip := (Claim{}).Texts(); mac != "" || ip != "" {
			t.Errorf("%q %q", mac, ip)
		}
		if mac, ip := (Claim{MAC: own, IP: v6}).Texts(); mac != "02:42:00:00:00:01" || ip != "2001:db8::1" {
			t.Errorf("%q %q", mac, ip)
		}
	})
}

func TestFlow(t *testing.T) {
	ports := []byte{0x10, 0x00, 0x15, 0x38}
	later := packet4(6, ports...)
	later[7] = 1
	options := packet4(6, append(make([]byte, 4), ports...)...)
	options[0] = 0x46
	for name, test := range map[string]struct {
		packet []byte
		want   Flow
	}{
		"TCP":                       {packet4(6, ports...), Flow{v4, w4, netpolicy.TCP, 5432, -1}},
		"UDP_over_IPv6":             {packet6(17, ports...), Flow{v6, w6, netpolicy.UDP, 5432, -1}},
		"with_IPv4_options":         {options, Flow{v4, w4, netpolicy.TCP, 5432, -1}},
		"behind_extension_headers":  {packet6(0, slices.Concat([]byte{60, 0, 0, 0, 0, 0, 0, 0}, []byte{6, 0, 0, 0, 0, 0, 0, 0}, ports, ports)...), Flow{v6, w6, netpolicy.TCP, 5432, -1}},
		"a_first_fragment":          {packet6(44, slices.Concat([]byte{6, 0, 0, 1, 0, 0, 0, 0}, ports, ports)...), Flow{v6, w6, netpolicy.TCP, 5432, -1}},
		"a_later_fragment":          {later, Flow{v4, w4, netpolicy.TCP, 0, -1}},
		"a_later_fragment_of_IPv6":  {packet6(44, slices.Concat([]byte{6, 0, 1, 0, 0, 0, 0, 0}, ports, ports)...), Flow{v6, w6, netpolicy.TCP, 0, -1}},
		"ICMP":                      {packet4(1, 8, 0), Flow{v4, w4, netpolicy.ICMP, 0, 8}},
		"ICMPv6":                    {packet6(58, 128, 0), Flow{v6, w6, netpolicy.ICMPv6, 0, 128}},
		"ICMP_that_is_cut_off":      {packet4(1), Flow{v4, w4, netpolicy.ICMP, 0, -1}},
		"TCP_that_is_cut_off":       {packet4(6, 1, 2, 3), Flow{v4, w4, netpolicy.TCP, 0, -1}},
		"a_protocol_without_ports":  {packet4(47, ports...), Flow{v4, w4, 47, 0, -1}},
		"a_header_that_is_too_long": {packet6(0, 6, 255, 0, 0, 0, 0, 0, 0), Flow{v6, w6, netpolicy.TCP, 0, -1}},
	} {
		t.Run(name, func(t *testing.T) {
			s := Sample{Packet: test.packet}
			if have, ok := s.Flow(); !ok || have != test.want {
				t.Errorf("%+v, %t, want %+v", have, ok, test.want)
			}
		})
	}
	for name, p := range map[string][]byte{"nothing": nil, "another_version": {0x50, 39: 0}, "half_a_header": packet6(6)[:39]} {
		t.Run("is_none_of/"+name, func(t *testing.T) {
			s := Sample{Packet: p}
			if have, ok := s.Flow(); ok {
				t.Errorf("%+v", have)
			}
		})
	}
}

// FuzzSample reads whatever comes.
func FuzzSample(f *testing.F) {
	attr := func(typ uint16, value []byte) []byte {
		b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
		b = append(binary.NativeEndian.AppendUint16(b, typ), value...)
		return append(b, make([]byte, -len(b)&3)...)
	}
	for _, p := range [][]byte{packet4(6, 1, 2, 3, 4), packet6(58, advertisement(136, w6, 2, forged)...), arp(2, forged, w4), packet4(17, dhcp(68, forged)...), packet6(0, 44, 0, 0, 0, 0, 0, 0, 0)} {
		for _, typ := range []uint16{0x800, 0x806, 0x86dd, 0x8100, 5} {
			f.Add(slices.Concat([]byte{7, 0, 0x4e, 0x47}, attr(attrPrefix, []byte("netguard mac\x00")), attr(attrPortIn, []byte{0, 0, 0, 9}),
				attr(attrVLAN, attr(vlanTag, []byte{0, 9})), attr(attrLink, link(own, typ)), attr(attrPayload, p), attr(attrSequence, []byte{0, 0, 0, 1})))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseSample(data)
		if err != nil {
			return
		}
		for _, kind := range guard.Kinds {
			c := s.Claim(kind)
			for _, r := range c.What {
				if r < ' ' || r > '~' {
					t.Errorf("%q", c.What)
				}
			}
		}
		if flow, ok := s.Flow(); ok && (!flow.Src.IsValid() || flow.Src.Is4() != flow.Dst.Is4()) {
			t.Errorf("%+v", flow)
		}
	})
}
