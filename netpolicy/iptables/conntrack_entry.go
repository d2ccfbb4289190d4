package iptables

import (
	"bytes"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// Flow is a connection that the kernel knows, from the client to the server. Both are the real
// ends, without any translation. A connection of the host goes by Input or Output, all others
// by Forward.
type Flow struct {
	Src, Dst netip.AddrPort
	Proto    netpolicy.Protocol
	// ICMPType is the type of the first packet, for ICMP and ICMPv6.
	ICMPType uint8
	// Dialled is the address that the client asked for. For a published port it is not Dst.
	Dialled netip.AddrPort
	// Noted says that this is the note of a connection that was cut. It has no Dialled, and
	// no port of the client.
	Noted bool
	// Translated says that the kernel translates an address of the connection. So the
	// connection is routed, and not within a bridge.
	Translated bool
}

// Attributes that nl has no names for.
const (
	ctaTupleMaster   = 14
	ctaProtoICMPType = 5
	ctaProtoICMP6    = 8
	ctaProtoTCPState = 1
	ctaNum           = nl.CTA_PROTO_NUM

	ctaProtoTCPFlagsOrig  = 4
	ctaProtoTCPFlagsReply = 5
	// tcpFlagLiberal is IP_CT_TCP_FLAG_BE_LIBERAL, which the kernel sets on both
	// sides of a connection that it enters from the middle (tcp_new).
	tcpFlagLiberal = 0x08
)

// tuple is one direction of a connection.
type tuple struct {
	src, dst     netip.Addr
	sport, dport uint16
	proto        uint8
	icmpType     uint8
}

// entry is a connection as the kernel lists it, with what deletes it.
type entry struct {
	family      uint8
	orig, reply tuple
	origRaw     []byte
	id, zone    []byte
	master      []byte // the raw tuple of the connection that this one belongs to
	tcpState    uint8
	// midstream says that the kernel did not see the beginning, so nobody knows the client.
	midstream bool
	// doubted says that client and server may have changed places; see answered.
	doubted bool
	// answer says that policy allows it as the kernel entered it, and refuses its other direction.
	answer bool
}

// parseEntry reads a connection. ok is false where a part is missing.
func parseEntry(m []byte) (e entry, ok bool) {
	if len(m) < nl.SizeofNfgenmsg {
		return e, false
	}
	e.family = m[0]
	for typ, v := range attrs(m[nl.SizeofNfgenmsg:]) {
		switch typ {
		case nl.CTA_TUPLE_ORIG:
			e.orig, e.origRaw = parseTuple(v), v
		case nl.CTA_TUPLE_REPLY:
			e.reply = parseTuple(v)
		case ctaTupleMaster:
			e.master = v
		case nl.CTA_ID:
			e.id = v
		case nl.CTA_ZONE:
			e.zone = v
		case nl.CTA_PROTOINFO:
			for typ, v := range attrs(v) {
				if typ != nl.CTA_PROTOINFO_TCP {
					continue
				}
				liberal := 0
				for typ, v := range attrs(v) {
					switch typ {
					case ctaProtoTCPState:
						e.tcpState = number8(v)
					case ctaProtoTCPFlagsOrig, ctaProtoTCPFlagsReply:
						if number8(v)&tcpFlagLiberal != 0 {
							liberal++
						}
					}
				}
				e.midstream = liberal == 2
			}
		}
	}
	valid := e.orig.src.IsValid() && e.orig.dst.IsValid() && e.reply.src.IsValid() && e.reply.dst.IsValid()
	return e, valid
}

func parseTuple(b []byte) tuple {
	var t tuple
	for typ, v := range attrs(b) {
		switch typ {
		case nl.CTA_TUPLE_IP:
			for typ, v := range attrs(v) {
				switch typ {
				case nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC:
					t.src = address(v)
				case nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST:
					t.dst = address(v)
				}
			}
		case nl.CTA_TUPLE_PROTO:
			for typ, v := range attrs(v) {
				switch typ {
				case ctaNum:
					t.proto = number8(v)
				case nl.CTA_PROTO_SRC_PORT:
					t.sport = number16(v)
				case nl.CTA_PROTO_DST_PORT:
					t.dport = number16(v)
				case ctaProtoICMPType, ctaProtoICMP6:
					t.icmpType = number8(v)
				}
			}
		}
	}
	return t
}

// flow is the connection between its real ends. The server is the source of the replies,
// whatever address the client asked for. The client is the source of the first packet,
// whatever address the kernel gave it on its way.
func (e entry) flow() Flow {
	return Flow{
		Src:      netip.AddrPortFrom(e.orig.src, e.orig.sport),
		Dst:      netip.AddrPortFrom(e.reply.src, e.reply.sport),
		Dialled:  netip.AddrPortFrom(e.orig.dst, e.orig.dport),
		Proto:    netpolicy.Protocol(e.orig.proto),
		ICMPType: e.orig.icmpType,

		Translated: e.translated(),
	}
}

// translated tells whether the kernel translates an address of the connection.
func (e entry) translated() bool { return e.orig.src != e.reply.dst || e.orig.dst != e.reply.src }

// reversed is the same connection as if the other end had opened it.
func (e entry) reversed() entry {
	e.orig, e.reply = e.reply, e.orig
	return e
}

// readings are the connections that an entry may be. Within a bridge, the kernel may have
// entered the connection from the middle. Then the ports tell the client, as in the rules (see
// midstream.go). If they do not, either end may be the client.
func (e entry) readings(bridged bool) []entry {
	if !e.midstream || !bridged {
		return []entry{e}
	}
	from, to := e.orig.sport >= firstHigh, e.reply.sport >= firstHigh
	switch {
	case from && !to:
		return []entry{e}
	case to && !from:
		return []entry{e.reversed()}
	}
	return []entry{e, e.reversed()}
}

// answered tells whether the first packet that the kernel saw of a connection may have been an
// answer. That happens where a bridge begins to hand over its frames. UDP does not tell who
// began, but clients use high ports. Such an entry lets pass whatever the real client sends.
// Without the entry, the rules judge the next packet as it is, and nothing is lost if the
// server did open the connection. A note would refuse the packets of a client that policy
// allows. An entry with a translation cannot be spared.
func (e entry) answered() bool {
	return e.orig.proto == unix.IPPROTO_UDP && e.orig.sport < firstHigh && e.reply.sport >= firstHigh && e.master == nil &&
		!e.translated() && e.orig.sport == e.reply.dport && e.orig.dport == e.reply.sport
}

// reopens gives the note that keeps the server from opening the connection again from its
// side. It is false if the server cannot: the client was hidden behind another address, the
// connection is of ICMP, or it is closed already.
func (e entry) reopens() (element, bool) {
	closed := e.orig.proto == unix.IPPROTO_TCP && (e.tcpState == nl.TCP_CONNTRACK_TIME_WAIT || e.tcpState == nl.TCP_CONNTRACK_CLOSE)
	icmp := e.orig.proto == unix.IPPROTO_ICMP || e.orig.proto == unix.IPPROTO_ICMPV6
	if closed || icmp || e.reply.dst != e.orig.src {
		return element{}, false
	}
	return element{
		Member: netpolicy.Member{Prefix: netip.PrefixFrom(e.orig.src, e.orig.src.BitLen()),
			Proto: netpolicy.Protocol(e.orig.proto), Port: e.reply.sport},
		second: e.reply.src,
	}, true
}

// kept copies the entry. The bytes that a list hands on are overwritten later.
func (e entry) kept() entry {
	e.origRaw, e.id, e.zone, e.master = bytes.Clone(e.origRaw), bytes.Clone(e.id), bytes.Clone(e.zone), bytes.Clone(e.master)
	return e
}

// removal is the message that deletes this entry, and no other entry that has taken its place.
func (e entry) removal() []byte {
	b := e.request(e.origRaw)
	if e.id != nil {
		b = attr(b, nl.CTA_ID, e.id...)
	}
	return b
}

// masterRequest asks for the connection that this one belongs to.
func (e entry) masterRequest() []byte { return e.request(e.master) }

// request names a connection in the entry's zone by the raw tuple of its first direction.
func (e entry) request(tuple []byte) []byte {
	b := attr(netfilterHeader(e.family), nl.CTA_TUPLE_ORIG|int(nl.NLA_F_NESTED), tuple...)
	if e.zone != nil {
		b = attr(b, nl.CTA_ZONE, e.zone...)
	}
	return b
}
