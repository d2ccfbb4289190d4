package iptables

import (
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// touched are the connections that a change of the wish may concern. Policy says of all others
// what it said when Cut went over them last.
type touched struct {
	all   bool
	addrs map[netip.Addr]bool
	ports map[uint16]bool // of servers
	// came are the addresses of addrs that no container had when Cut last went over the
	// connections.
	came map[netip.Addr]bool
}

// note adds the connections that a plan may concern.
func (t *touched) note(p *plan) {
	if t.addrs == nil {
		t.addrs, t.ports, t.came = map[netip.Addr]bool{}, map[uint16]bool{}, map[netip.Addr]bool{}
	}
	t.all = t.all || p.rules()
	for _, c := range p.changes {
		for _, m := range c.Members {
			if a := m.Prefix.Addr(); c.name == deniedSet(c.ipv6).name && !c.Delete && !t.addrs[a] {
				t.came[a] = true
			}
		}
	}
	for _, c := range p.changes {
		if c.name == subnetsSet(c.ipv6).name {
			continue // no rule judges by it
		}
		for _, m := range c.Members {
			switch {
			case c.Kind == netpolicy.Published:
				t.ports[m.Port] = true
			case m.Prefix.IsSingleIP():
				t.addrs[m.Prefix.Addr()] = true
				if c.Delete {
					delete(t.came, m.Prefix.Addr())
				}
			default:
				t.all = true
			}
		}
	}
}

func (t *touched) any() bool { return t.all || len(t.addrs)+len(t.ports) > 0 }

func (t *touched) about(e entry) bool {
	return t.all || t.ports[e.orig.dport] || t.ports[e.reply.sport] ||
		slices.ContainsFunc(e.addrs(), func(a netip.Addr) bool { return t.addrs[a] })
}

// addrs are the addresses of both ends, as either direction names them.
func (e entry) addrs() []netip.Addr {
	return []netip.Addr{e.orig.src, e.orig.dst, e.reply.src, e.reply.dst}
}

const (
	// The kernel goes through its whole table for each list, even for a list of one address. So
	// one list of all is cheaper for more than fewAddrs addresses, or up to fewEntries
	// connections.
	fewAddrs   = 4
	fewEntries = 8192
)

// lists are the requests for all entries that may be concerned, and for those of old addresses.
// whole says that it is one request for all entries that there are.
func (t *touched) lists(old map[netip.Addr]bool) (all [][]byte, whole bool) {
	addrs := maps.Clone(old)
	if addrs == nil {
		addrs = map[netip.Addr]bool{}
	}
	maps.Copy(addrs, t.addrs)
	if t.all || len(t.ports) > 0 || len(addrs) > fewAddrs || entries() <= fewEntries {
		return [][]byte{netfilterHeader(unix.AF_UNSPEC)}, true
	}
	for a := range addrs {
		for _, tuple := range []int{nl.CTA_TUPLE_ORIG, nl.CTA_TUPLE_REPLY} {
			for _, dst := range []bool{false, true} {
				all = append(all, entriesOf(a, tuple, dst))
			}
		}
	}
	return all, false
}

// entries counts the connections that the kernel has.
func entries() int {
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	n, bad := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || bad != nil {
		return 0
	}
	return n
}

// Attributes and flags that nl has no names for.
const (
	ctaFilter       = 25
	ctaFilterSource = 1 << 0
	ctaFilterDest   = 1 << 1
)

// entriesOf asks for the connections with an address at one end of a tuple (Linux 5.8;
// an older kernel lists all).
func entriesOf(a netip.Addr, tuple int, dst bool) []byte {
	family, typ := uint8(unix.AF_INET), nl.CTA_IP_V4_SRC
	if a.Is6() {
		family, typ = unix.AF_INET6, nl.CTA_IP_V6_SRC
	}
	flag := uint32(ctaFilterSource)
	if dst {
		typ, flag = map[int]int{nl.CTA_IP_V4_SRC: nl.CTA_IP_V4_DST, nl.CTA_IP_V6_SRC: nl.CTA_IP_V6_DST}[typ], ctaFilterDest
	}
	b := netfilterHeader(family)
	b = nest(b, tuple, func(b []byte) []byte {
		return nest(b, nl.CTA_TUPLE_IP, func(b []byte) []byte { return attr(b, typ, a.AsSlice()...) })
	})
	return nest(b, ctaFilter, func(b []byte) []byte {
		return attr(b, tuple-nl.CTA_TUPLE_ORIG+1, native32(flag)...) // CTA_FILTER_ORIG_FLAGS, _REPLY_FLAGS
	})
}
