package iptables

import (
	"net/netip"

	"github.com/vishvananda/netlink/nl"

	"netguard/netpolicy"
)

func parseSetHeader(m []byte) setHeader {
	var h setHeader
	if len(m) < nl.SizeofNfgenmsg {
		return h
	}
	for typ, v := range attrs(m[nl.SizeofNfgenmsg:]) {
		switch typ {
		case nl.IPSET_ATTR_SETNAME:
			h.name = word(v)
		case nl.IPSET_ATTR_TYPENAME:
			h.typ = word(v)
		case nl.IPSET_ATTR_FAMILY:
			h.family = number8(v)
		case nl.IPSET_ATTR_DATA:
			for typ, v := range attrs(v) {
				switch typ {
				case nl.IPSET_ATTR_CADT_FLAGS:
					h.counters = number32(v)&nl.IPSET_FLAG_WITH_COUNTERS != 0
				case nl.IPSET_ATTR_TIMEOUT:
					h.timeout = true
				case nl.IPSET_ATTR_ELEMENTS:
					h.elements = number32(v)
				case nl.IPSET_ATTR_REFERENCES:
					h.references = number32(v)
				}
			}
		}
	}
	return h
}

// parseMembers reads the members in a message of a list.
func parseMembers(m []byte, each func(element)) {
	if len(m) < nl.SizeofNfgenmsg {
		return
	}
	for typ, v := range attrs(m[nl.SizeofNfgenmsg:]) {
		if typ != nl.IPSET_ATTR_ADT {
			continue
		}
		for typ, v := range attrs(v) {
			if typ != nl.IPSET_ATTR_DATA {
				continue
			}
			if e, ok := parseElement(v); ok {
				each(e)
			}
		}
	}
}

func parseElement(b []byte) (element, bool) {
	var e element
	var ip netip.Addr
	bits := -1
	for typ, v := range attrs(b) {
		switch typ {
		case nl.IPSET_ATTR_IP:
			ip = parseIP(v)
		case nl.IPSET_ATTR_IP2:
			e.second = parseIP(v)
		case nl.IPSET_ATTR_CIDR:
			bits = int(number8(v))
		case nl.IPSET_ATTR_PORT:
			e.Port = number16(v)
		case nl.IPSET_ATTR_PROTO:
			e.Proto = netpolicy.Protocol(number8(v))
		case nl.IPSET_ATTR_IFACE:
			e.Bridge = word(v)
		case nl.IPSET_ATTR_PACKETS:
			e.packets = number64(v)
		}
	}
	if bits < 0 {
		bits = ip.BitLen()
	}
	e.Prefix = netip.PrefixFrom(ip, bits)
	return e, e.Prefix.IsValid()
}

func parseIP(b []byte) netip.Addr {
	for typ, v := range attrs(b) {
		if typ == nl.IPSET_ATTR_IPADDR_IPV4 || typ == nl.IPSET_ATTR_IPADDR_IPV6 {
			return address(v)
		}
	}
	return netip.Addr{}
}
