package iptables

import (
	"bytes"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// Flow is a connection that the kernel knows, from who opened it to who serves
// it, as they are: behind all translation. With an end that is the host's own it
// goes by Input or Output, else by Forward.
type Flow struct {
	Src, Dst netip.AddrPort
	Proto    netpolicy.Protocol
	// ICMPType is the type of the first packet, for ICMP and ICMPv6.
	ICMPType uint8
	// Dialled is what the client asked for: other than Dst for a published port.
	Dialled netip.AddrPort
	// Noted says that this is no connection of now, but the note about one that
	// was cut, of which Src's port and Dialled are not known.
	Noted bool
	// Translated says that an end has another address on its way: the connection is
	// routed, and not within a bridge.
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

// entry is a connection as the kernel lists it, with what is needed to delete it.
type entry struct {
	family      uint8
	orig, reply tuple
	origRaw     []byte
	id, zone    []byte
	master      []byte // the raw tuple of the connection that this one belongs to
	tcpState    uint8
	// midstream: the kernel saw no beginning, so who opened it is a guess.
	midstream bool
	// doubted: it may be the wrong way round; see answered.
	doubted bool
}

// parseEntry reads a connection. ok is false for what is not whole.
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

// flow is the connection between its real ends. Who answers is the source of the
// replies, whatever address the client asked for; who asks is the source of the
// first packet, whatever address it was given on its way.
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

// translated tells whether an end has another address on its way.
func (e entry) translated() bool { return e.orig.src != e.reply.dst || e.orig.dst != e.reply.src }

// reversed is the same connection as if the other end had opened it.
func (e entry) reversed() entry {
	e.orig, e.reply = e.reply, e.orig
	return e
}

// readings are what the connection may be: who opened it is not known of one within a
// bridge that was entered from the middle. Its ports tell, or it may be either. That
// is as in the rules (see midstream.go).
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

// answered tells whether the first packet that the kernel saw of a connection may
// have been an answer, as where a bridge begins to hand over its frames: UDP does
// not tell, and clients use high ports. Then its entry lets pass whatever the client
// sends. Without it the next packet is judged as it is, so that nothing is lost if
// the server did open it; not where the entry knows a translation.
func (e entry) answered() bool {
	return e.orig.proto == unix.IPPROTO_UDP && e.orig.sport < firstHigh && e.reply.sport >= firstHigh && e.master == nil &&
		!e.translated() && e.orig.sport == e.reply.dport && e.orig.dport == e.reply.sport
}

// reopens gives what to note so that the server does not open the connection
// again from its side; false if it cannot. One whose client was hidden behind
// another address has no way back without its entry, ICMP has no answers without
// questions, and what was closed is.
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

// kept is the entry with bytes of its own: those of a list last only until the next.
func (e entry) kept() entry {
	e.origRaw, e.id, e.zone, e.master = bytes.Clone(e.origRaw), bytes.Clone(e.id), bytes.Clone(e.zone), bytes.Clone(e.master)
	return e
}

// removal is the message that deletes the entry, and no other that has taken its
// place since.
func (e entry) removal() []byte {
	b := netfilterHeader(e.family)
	b = attr(b, nl.CTA_TUPLE_ORIG|int(nl.NLA_F_NESTED), e.origRaw...)
	if e.zone != nil {
		b = attr(b, nl.CTA_ZONE, e.zone...)
	}
	if e.id != nil {
		b = attr(b, nl.CTA_ID, e.id...)
	}
	return b
}

// masterRequest asks for the connection that this one belongs to.
func (e entry) masterRequest() []byte {
	b := netfilterHeader(e.family)
	b = attr(b, nl.CTA_TUPLE_ORIG|int(nl.NLA_F_NESTED), e.master...)
	if e.zone != nil {
		b = attr(b, nl.CTA_ZONE, e.zone...)
	}
	return b
}
