package iptables

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

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

// setSpec says how a set is made.
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

// sets speaks with the kernel's ipset.
type sets struct{ *conn }

// revisions has the first revision of each type that can do all that netguard uses.
var revisions = map[string]uint8{hashIP: 1, hashNet: 3, hashNetPort: 2, hashIPPortIP: 1, hashNetIface: 0}

// smallHash is the smallest hash table that the kernel makes for a set. It grows with the
// members. To count members the kernel goes over this table, and most sets have few.
const smallHash = 64

func (s sets) create(spec setSpec) error {
	b := setRequest(spec.name)
	b = attr(b, nl.IPSET_ATTR_TYPENAME, text(spec.typ)...)
	b = attr(b, nl.IPSET_ATTR_REVISION, revisions[spec.typ])
	b = attr(b, nl.IPSET_ATTR_FAMILY, family(spec.ipv6))
	b = nest(b, nl.IPSET_ATTR_DATA, func(b []byte) []byte {
		number := func(typ int, v uint32) { b = attr(b, typ|int(nl.NLA_F_NET_BYTEORDER), be32(v)...) }
		number(nl.IPSET_ATTR_MAXELEM, maxMembers)
		if netpolicy.OwnsSet(spec.name) {
			number(nl.IPSET_ATTR_HASHSIZE, smallHash)
		}
		if spec.timeout != 0 {
			number(nl.IPSET_ATTR_TIMEOUT, spec.timeout)
		}
		if spec.counters {
			number(nl.IPSET_ATTR_CADT_FLAGS, nl.IPSET_FLAG_WITH_COUNTERS)
		}
		return b
	})
	if err := s.write(unix.NFNL_SUBSYS_IPSET<<8|nl.IPSET_CMD_CREATE, unix.NLM_F_EXCL, b); err != nil {
		return fmt.Errorf("create set %s (%s): %w", spec.name, spec.typ, setError(err))
	}
	return nil
}

func (s sets) destroy(name string) error {
	err := setError(s.write(unix.NFNL_SUBSYS_IPSET<<8|nl.IPSET_CMD_DESTROY, 0, setRequest(name)))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("destroy set %s: %w", name, err)
	}
	return nil
}

// batch is how many members a message takes. No attribute is longer than 64 KiB, and an IPv6
// member of hash:ip,port,ip has 84 bytes.
const batch = 500

// change adds or deletes members, many in a message. To add a member that is there, or to
// delete one that is not, is no error. After an error a part may be done.
func (s sets) change(spec setSpec, del bool, list []element) error {
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

// is tells whether a set is as spec would make it.
func (h setHeader) is(spec setSpec) bool {
	return h.typ == spec.typ && h.family == family(spec.ipv6) && h.counters == spec.counters && h.timeout == (spec.timeout != 0)
}

// listHeader is IPSET_FLAG_LIST_HEADER: list no members, of which a foreign set may have any
// number.
const listHeader = 4

// headers hands on all sets of the namespace, or the one with the name if it is there. start
// comes before the first set, and again if the list has to be read again.
func (s sets) headers(name string, start func(), each func(setHeader)) error {
	b := attr(setRequest(name), nl.IPSET_ATTR_FLAGS|int(nl.NLA_F_NET_BYTEORDER), be32(listHeader)...)
	err := s.list(b, start, each, func(element) {})
	if name != "" && errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (s sets) list(request []byte, start func(), head func(setHeader), each func(element)) error {
	return s.messages(request, start, func(m []byte) {
		if h := parseSetHeader(m); h.typ != "" { // the rest of a long list has none
			head(h)
		}
		parseMembers(m, each)
	})
}

// messages hands on the messages of a list as they are.
func (s sets) messages(request []byte, start func(), each func([]byte)) error {
	err := s.dump(unix.NFNL_SUBSYS_IPSET<<8|nl.IPSET_CMD_LIST, request, start, func(m []byte) bool { each(m); return true })
	if err != nil {
		return fmt.Errorf("list sets: %w", setError(err))
	}
	return nil
}

// header gives the set with a name, nil if there is none.
func (s sets) header(name string) (*setHeader, error) {
	var found *setHeader
	err := s.headers(name, func() { found = nil }, func(h setHeader) { found = &h })
	return found, err
}

// each hands on the members of a set, in the kernel's order.
func (s sets) each(name string, start func(), each func(element)) error {
	if err := s.list(setRequest(name), start, func(setHeader) {}, each); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// members lists the members of a set, sorted as netpolicy sorts.
func (s sets) members(name string) ([]element, error) {
	var all []element
	err := s.each(name, func() { all = nil }, func(e element) { all = append(all, e) })
	slices.SortFunc(all, func(a, b element) int { return netpolicy.CompareMembers(a.Member, b.Member) })
	return all, err
}
