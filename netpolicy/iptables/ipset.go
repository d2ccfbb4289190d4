package iptables

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	vish "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
	"netguard/netpolicy"
)

// Types of sets.
const (
	hashIP       = "hash:ip"
	hashNet      = "hash:net"
	hashNetPort  = "hash:net,port"
	hashIPPortIP = "hash:ip,port,ip"
	hashNetIface = "hash:net,iface"
)

// maxMembers bounds each set. It is a bound and no allocation.
const maxMembers = 1 << 18

// setSpec is what a set is made as.
type setSpec struct {
	name     string
	typ      string
	ipv6     bool
	counters bool
	timeout  uint32 // seconds that a member stays, 0 for ever
}

func typeOf(k netpolicy.Kind) string {
	return [...]string{netpolicy.Addrs: hashIP, netpolicy.Nets: hashNet, netpolicy.Published: hashNetPort, netpolicy.Places: hashNetIface}[k]
}

func family(ipv6 bool) uint8 {
	if ipv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// element is a member of a set of any type.
type element struct {
	netpolicy.Member
	second  netip.Addr // hash:ip,port,ip
	packets uint64
}

// sets speaks with the kernel's ipset: the library makes and removes sets, the
// socket does what the library has no words for.
type sets struct {
	*conn
	library *vish.Handle
}

func openSets(wrote *int) (*sets, error) {
	c, err := dial(unix.NETLINK_NETFILTER, wrote)
	if err != nil {
		return nil, err
	}
	h, err := vish.NewHandle(unix.NETLINK_NETFILTER)
	if err == nil {
		err = h.SetSocketTimeout(answerWithin)
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("open netlink for sets: %w", err)
	}
	return &sets{c, h}, nil
}

func (s *sets) close() {
	if s != nil {
		s.conn.close()
		s.library.Close()
	}
}

func (s *sets) create(spec setSpec) error {
	o := vish.IpsetCreateOptions{Counters: spec.counters, Family: family(spec.ipv6), MaxElements: maxMembers}
	if spec.timeout != 0 {
		o.Timeout = &spec.timeout
	}
	*s.wrote++
	err := fault.Write("ipset create", func() error { return s.library.IpsetCreate(spec.name, spec.typ, o) })
	if err != nil {
		return fmt.Errorf("create set %s (%s): %w", spec.name, spec.typ, setError(err))
	}
	return nil
}

func (s *sets) destroy(name string) error {
	*s.wrote++
	err := setError(fault.Write("ipset destroy", func() error { return s.library.IpsetDestroy(name) }))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("destroy set %s: %w", name, err)
	}
	return nil
}

// batch is how many members a message takes: no attribute is longer than 64 KiB,
// and an IPv6 member of hash:ip,port,ip has 84 bytes.
const batch = 500

// change adds or deletes members, many a message. A member that is there, or is
// not, is no error. An error may leave a part of it done.
func (s *sets) change(spec setSpec, del bool, list []element) error {
	cmd, verb := nl.IPSET_CMD_ADD, "add to"
	if del {
		cmd, verb = nl.IPSET_CMD_DEL, "delete from"
	}
	for part := range slices.Chunk(list, batch) {
		b := setRequest(spec.name)
		b = attr(b, nl.IPSET_ATTR_LINENO|int(nl.NLA_F_NET_BYTEORDER), be32(0)...)
		b = nest(b, nl.IPSET_ATTR_ADT, func(b []byte) []byte {
			for _, e := range part {
				b = e.append(b, spec)
			}
			return b
		})
		if err := s.write(unix.NFNL_SUBSYS_IPSET<<8|cmd, 0, b); err != nil {
			return fmt.Errorf("%s set %s: %w", verb, spec.name, setError(err))
		}
	}
	return nil
}

func setRequest(name string) []byte {
	b := netfilterHeader(unix.AF_UNSPEC)
	b = attr(b, nl.IPSET_ATTR_PROTOCOL, nl.IPSET_PROTOCOL)
	if name != "" {
		b = attr(b, nl.IPSET_ATTR_SETNAME, text(name)...)
	}
	return b
}

func (e element) append(b []byte, spec setSpec) []byte {
	return nest(b, nl.IPSET_ATTR_DATA, func(b []byte) []byte {
		b = appendIP(b, nl.IPSET_ATTR_IP, e.Prefix.Addr())
		if spec.typ != hashIP && spec.typ != hashIPPortIP {
			b = attr(b, nl.IPSET_ATTR_CIDR, uint8(e.Prefix.Bits()))
		}
		if spec.typ == hashNetPort || spec.typ == hashIPPortIP {
			b = attr(b, nl.IPSET_ATTR_PORT|int(nl.NLA_F_NET_BYTEORDER), be16(e.Port)...)
			b = attr(b, nl.IPSET_ATTR_PROTO, uint8(e.Proto))
		}
		if spec.typ == hashIPPortIP {
			b = appendIP(b, nl.IPSET_ATTR_IP2, e.second)
		}
		if spec.typ == hashNetIface {
			b = attr(b, nl.IPSET_ATTR_IFACE, text(e.Bridge)...)
		}
		return attr(b, nl.IPSET_ATTR_LINENO|int(nl.NLA_F_NET_BYTEORDER), be32(0)...)
	})
}

func appendIP(b []byte, typ int, a netip.Addr) []byte {
	inner := nl.IPSET_ATTR_IPADDR_IPV4
	if a.Is6() {
		inner = nl.IPSET_ATTR_IPADDR_IPV6
	}
	return nest(b, typ, func(b []byte) []byte {
		return attr(b, inner|int(nl.NLA_F_NET_BYTEORDER), a.AsSlice()...)
	})
}

// setHeader is a set of the kernel without its members.
type setHeader struct {
	name, typ  string
	family     uint8
	counters   bool
	timeout    bool
	elements   uint32
	references uint32
}

// is tells whether a set is what it would be made as.
func (h setHeader) is(spec setSpec) bool {
	return h.typ == spec.typ && h.family == family(spec.ipv6) && h.counters == spec.counters && h.timeout == (spec.timeout != 0)
}

// listHeader is IPSET_FLAG_LIST_HEADER: without the members, of which a
// stranger's set may have any number.
const listHeader = 4

// headers lists all sets of the namespace, or the one of a name.
func (s *sets) headers(name string) ([]setHeader, error) {
	var all []setHeader
	b := attr(setRequest(name), nl.IPSET_ATTR_FLAGS|int(nl.NLA_F_NET_BYTEORDER), be32(listHeader)...)
	err := s.dump(unix.NFNL_SUBSYS_IPSET<<8|nl.IPSET_CMD_LIST, b, func() { all = nil }, func(m []byte) bool {
		if h := parseSetHeader(m); h.name != "" {
			all = append(all, h)
		}
		return true
	})
	if name != "" && errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", setError(err))
	}
	return all, nil
}

// members lists a set, sorted as netpolicy sorts.
func (s *sets) members(name string) ([]element, error) {
	var all []element
	err := s.dump(unix.NFNL_SUBSYS_IPSET<<8|nl.IPSET_CMD_LIST, setRequest(name), func() { all = nil }, func(m []byte) bool {
		all = append(all, parseMembers(m)...)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("list set %s: %w", name, setError(err))
	}
	slices.SortFunc(all, func(a, b element) int { return compareMembers(a.Member, b.Member) })
	return all, nil
}

func compareMembers(a, b netpolicy.Member) int {
	return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()),
		cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), strings.Compare(a.Bridge, b.Bridge))
}
