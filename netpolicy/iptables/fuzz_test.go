package iptables

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

func nested(typ int, parts ...[]byte) []byte {
	return nest(nil, typ, func(b []byte) []byte {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	})
}

// connection is a message about one, as the kernel writes it.
func connection(src, dst netip.Addr, sport, dport uint16) []byte {
	tuple := func(typ int, src, dst netip.Addr, sport, dport uint16) []byte {
		from, to := nl.CTA_IP_V4_SRC, nl.CTA_IP_V4_DST
		if src.Is6() {
			from, to = nl.CTA_IP_V6_SRC, nl.CTA_IP_V6_DST
		}
		return nested(typ,
			nested(nl.CTA_TUPLE_IP, attr(nil, from, src.AsSlice()...), attr(nil, to, dst.AsSlice()...)),
			nested(nl.CTA_TUPLE_PROTO, attr(nil, nl.CTA_PROTO_NUM, unix.IPPROTO_TCP),
				attr(nil, nl.CTA_PROTO_SRC_PORT, be16(sport)...), attr(nil, nl.CTA_PROTO_DST_PORT, be16(dport)...)))
	}
	b := netfilterHeader(unix.AF_INET)
	b = append(b, tuple(nl.CTA_TUPLE_ORIG, src, dst, sport, dport)...)
	b = append(b, tuple(nl.CTA_TUPLE_REPLY, dst, src, dport, sport)...)
	b = append(b, nested(nl.CTA_PROTOINFO, nested(nl.CTA_PROTOINFO_TCP, attr(nil, ctaProtoTCPState, 3)))...)
	return attr(b, nl.CTA_ID, be32(7)...)
}

// The kernel is trusted, but a message that is cut short must not end the agent.
func FuzzMessages(f *testing.F) {
	f.Add(connection(addr("192.0.2.1"), addr("192.0.2.2"), 40000, 80))
	f.Add(connection(addr("2001:db8::1"), addr("2001:db8::2"), 40000, 80))
	set := setRequest("ng4-cut")
	e := element{Member: netpolicy.Member{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Proto: netpolicy.TCP, Port: 80}, second: addr("192.0.2.2")}
	set = nest(set, nl.IPSET_ATTR_ADT, func(b []byte) []byte { return e.append(b, cutSet(false, 600)) })
	set = nest(set, nl.IPSET_ATTR_DATA, func(b []byte) []byte { return attr(b, nl.IPSET_ATTR_TIMEOUT, be32(600)...) })
	f.Add(set)
	link := make([]byte, unix.SizeofIfInfomsg)
	f.Add(append(link, nested(unix.IFLA_LINKINFO, attr(nil, nl.IFLA_INFO_KIND, text("bridge")...),
		nested(nl.IFLA_INFO_DATA, attr(nil, nl.IFLA_BR_NF_CALL_IPTABLES, 1)))...))
	f.Fuzz(func(t *testing.T, m []byte) {
		if e, ok := parseEntry(m); ok {
			e.flow()
			e.reopens()
			if again, ok := parseEntry(append(m[:4:4], e.removal()[4:]...)); ok && again.orig != e.orig {
				t.Errorf("the removal is about %v, not %v", again.orig, e.orig)
			}
		}
		parseSetHeader(m)
		parseMembers(m, func(e element) {
			if !e.Prefix.IsValid() {
				t.Errorf("member %v", e)
			}
		})
		parseBridge(m)
	})
}

func TestMessages(t *testing.T) {
	t.Run("are_read_as_they_were_written", func(t *testing.T) {
		for _, a := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
			e, ok := parseEntry(connection(addr(a[0]), addr(a[1]), 40000, 80))
			if !ok || e.tcpState != nl.TCP_CONNTRACK_ESTABLISHED || number32(e.id) != 7 {
				t.Fatalf("%t, %+v", ok, e)
			}
			want := Flow{Src: netip.AddrPortFrom(addr(a[0]), 40000), Dst: netip.AddrPortFrom(addr(a[1]), 80), Dialled: netip.AddrPortFrom(addr(a[1]), 80), Proto: netpolicy.TCP}
			if have := e.flow(); have != want {
				t.Errorf("flow = %+v, want %+v", have, want)
			}
			n, ok := e.reopens()
			if !ok || n.String() != a[0]+",tcp:80" || n.second != addr(a[1]) {
				t.Errorf("note = %+v, %t", n, ok)
			}
		}
	})
	t.Run("never_outgrow_their_length", func(t *testing.T) {
		e := element{Member: netpolicy.Member{Prefix: netip.MustParsePrefix("2001:db8::1/128"), Proto: netpolicy.TCP, Port: 80}, second: addr("2001:db8::2")}
		all := nest(nil, nl.IPSET_ATTR_ADT, func(b []byte) []byte {
			for range batch {
				b = e.append(b, cutSet(true, 600))
			}
			return b
		})
		if n := int(binary.NativeEndian.Uint16(all)); n != len(all) {
			t.Errorf("%d bytes say that they are %d", len(all), n)
		}
	})
}

// Other people's rules are in the list too.
func FuzzTable(f *testing.F) {
	f.Add("*filter\n:INPUT ACCEPT [1:2]\n:NG-FORWARD - [0:0]\n[3:4] -A INPUT -j NG-INPUT\n-A NG-FORWARD -j RETURN\nCOMMIT\n")
	f.Add("# Table `filter' is incompatible, use 'nft' tool.\n")
	f.Add(":\n-A \n[ -A x\n:x\n-A x")
	f.Fuzz(func(t *testing.T, text string) {
		table, err := parseTable(text, filter)
		if err != nil {
			return
		}
		for _, c := range table.chains {
			if !table.has(c) {
				t.Errorf("chain %q is missing", c)
			}
		}
		table.anchorings()
		table.removals()
		table.empty()
	})
}
