package iptables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// fingerprint tells one content of a filter table from another without a fork. Equal and known
// fingerprints are of equal rules. Different ones may be of equal rules, too.
type fingerprint struct {
	known bool
	// generation is the number of the last change of nftables in this namespace, in any
	// table.
	generation uint32
	// rules and bytes are the size of a legacy table.
	rules, bytes uint32
	// sum is the sum of the rules' handles, which the kernel gives to no other rule, or of
	// the rules themselves where they have no handles.
	sum uint64
}

// same tells whether two fingerprints are known to be of equal rules.
func (s fingerprint) same(as fingerprint) bool {
	return s.known && as.known && s.sum == as.sum && s.rules == as.rules && s.bytes == as.bytes
}

var seed = maphash.MakeSeed()

// hash is the hash of a member of a set. The sum of hashes does not depend on their order.
func hash(m netpolicy.Member) uint64 {
	a := m.Prefix.Addr().As16()
	h := mix(binary.NativeEndian.Uint64(a[:]) ^ uint64(m.Prefix.Bits()+1)<<32 ^ uint64(m.Proto)<<16 ^ uint64(m.Port))
	h = mix(h ^ binary.NativeEndian.Uint64(a[8:]))
	if m.Bridge != "" {
		h = mix(h ^ maphash.String(seed, m.Bridge))
	}
	return h
}

// mix is the last step of MurmurHash3: each bit of v changes each bit of the result.
func mix(v uint64) uint64 {
	v ^= v >> 33
	v *= 0xff51afd7ed558ccd
	v ^= v >> 33
	v *= 0xc4ceb9fe1a85ec53
	return v ^ v>>33
}

// fingerprint gives the fingerprint of a family's filter table. was is the last one. If nftables
// did not change since, it is given again. An unknown fingerprint makes the caller read the
// table.
func (d *Driver) fingerprint(b *backend, i int, was fingerprint) (fingerprint, error) {
	switch {
	case b.kind == NFT:
		s, err := d.rules.fingerprint(i, was)
		if err != nil {
			return fingerprint{}, nil // reading the table tells what is wrong
		}
		return s, nil
	case !b.present(i):
		return fingerprint{known: true}, nil
	}
	s, err := legacyFingerprint(i, filter)
	if errors.Is(err, unix.EAGAIN) { // the table changed in between
		return fingerprint{}, nil
	}
	if err != nil {
		return fingerprint{}, fmt.Errorf("measure %s rules: %w", familyNames[i], err)
	}
	return s, nil
}

// ruleLists asks for the rules of iptables' nft backend.
type ruleLists struct{ *conn }

// Attributes that unix has no names for.
const nftaTableHandle = 4

// told are the lists that tell one content of a table from another. table is the attribute with
// the table's name, by are the attributes that change with the content. The kernel gives each new
// rule, and each new table, a handle that was never used before.
var told = []struct {
	get, table int
	by         []int
}{
	{unix.NFT_MSG_GETTABLE, unix.NFTA_TABLE_NAME, []int{nftaTableHandle}},
	{unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE, []int{unix.NFTA_CHAIN_NAME, unix.NFTA_CHAIN_HANDLE, unix.NFTA_CHAIN_POLICY}},
	{unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE, []int{unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_HANDLE}},
}

// generation gives a fingerprint of all tables of nftables: the number of the last change.
func (n ruleLists) generation() (s fingerprint, err error) {
	err = n.ask(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0, netfilterHeader(unix.AF_UNSPEC), func(m []byte) bool {
		for typ, v := range attrs(m[min(len(m), nl.SizeofNfgenmsg):]) {
			if typ == unix.NFTA_GEN_ID && len(v) == 4 {
				s.known, s.generation = true, binary.BigEndian.Uint32(v)
			}
		}
		return true
	})
	return s, err
}

func (n ruleLists) fingerprint(i int, was fingerprint) (fingerprint, error) {
	s, err := n.generation()
	if err != nil || was.known && was.generation == s.generation {
		return was, err
	}
	family := [2]uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}[i]
	for _, list := range told {
		var part maphash.Hash
		part.SetSeed(seed)
		request := netfilterHeader(family)
		if list.get == unix.NFT_MSG_GETRULE {
			request = attr(request, unix.NFTA_RULE_TABLE, text(filter)...) // no rules of other tables
		}
		err := n.dump(unix.NFNL_SUBSYS_NFTABLES<<8|list.get, request, part.Reset, func(m []byte) bool {
			m = m[min(len(m), nl.SizeofNfgenmsg):]
			for typ, v := range attrs(m) {
				if int(typ) == list.table && string(v) != filter+"\x00" {
					return true
				}
			}
			for typ, v := range attrs(m) {
				if slices.Contains(list.by, int(typ)) {
					_, _ = part.Write(v) // it cannot fail
				}
			}
			return true
		})
		if err != nil && !errors.Is(err, unix.ENOENT) { // there is no such table
			return fingerprint{}, err
		}
		s.sum = mix(s.sum ^ part.Sum64())
	}
	return s, nil
}

// tableInfo is struct ipt_getinfo or struct ip6t_getinfo.
type tableInfo struct {
	name            [32]byte
	hooks           uint32
	entry, overflow [5]uint32
	rules, bytes    uint32
}

// entriesHead is the length of struct ipt_get_entries and of struct ip6t_get_entries: a name
// of 32 bytes, the size of the table, and padding.
const entriesHead = 40

// Questions about a table: IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES, with the same numbers for
// IPv6.
const (
	legacyInfo    = 64
	legacyEntries = 65
)

// entryForm says where struct ipt_entry and struct ip6t_entry have the distance to the next
// entry, and what packets change: comefrom and the counters.
type entryForm struct{ next, changes, fixed int }

var entryForms = [2]entryForm{{next: 90, changes: 92, fixed: 112}, {next: 142, changes: 144, fixed: 168}}

// legacySize gives the size of a legacy table of a family. The question makes the table if it is
// not there.
func legacySize(i int, name string) (fingerprint, error) {
	var info tableInfo
	copy(info.name[:], name)
	err := askTable(i, legacyInfo, unsafe.Pointer(&info), uint32(unsafe.Sizeof(info)))
	return fingerprint{rules: info.rules, bytes: info.bytes}, err
}

// legacyFingerprint gives the fingerprint of such a table.
func legacyFingerprint(i int, name string) (fingerprint, error) {
	s, err := legacySize(i, name)
	if err != nil {
		return s, err
	}
	b := make([]byte, entriesHead+int(s.bytes))
	copy(b, name)
	binary.NativeEndian.PutUint32(b[32:], s.bytes)
	if err := askTable(i, legacyEntries, unsafe.Pointer(&b[0]), uint32(len(b))); err != nil {
		return s, err
	}
	var h maphash.Hash
	h.SetSeed(seed)
	form := entryForms[i]
	for e := b[entriesHead:]; len(e) >= form.fixed; {
		next := int(binary.NativeEndian.Uint16(e[form.next:]))
		if next < form.fixed || next > len(e) {
			return s, unix.EBADMSG
		}
		_, _ = h.Write(e[:form.changes]) // it cannot fail
		_, _ = h.Write(e[form.fixed:next])
		e = e[next:]
	}
	s.sum, s.known = h.Sum64(), true
	return s, nil
}

func askTable(i, what int, answer unsafe.Pointer, length uint32) error {
	domain, level := unix.AF_INET, unix.SOL_IP
	if i == 1 {
		domain, level = unix.AF_INET6, unix.SOL_IPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(what),
		uintptr(answer), uintptr(unsafe.Pointer(&length)), 0)
	err = unix.Close(fd)
	if errno != 0 {
		err = errors.Join(errno, err)
	}
	return err
}
