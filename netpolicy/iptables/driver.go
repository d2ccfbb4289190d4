package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// Driver brings the network namespace that it was opened in to a wish.
type Driver struct {
	options  Options
	backends []*backend
	families []int // indexes: IPv4, and IPv6 if the host has it
	sets     sets
	rules    ruleLists
	links    *conn

	forked, wrote int

	wish *Wish
	// The members of the sets of the driver's own.
	denied, homed, homes, subnets families
	// bridgeFilter is a file that is there if br_netfilter is.
	bridgeFilter string
	backend      Backend
	// switched are the bridges that are recorded as switched on.
	switched [2]map[string]bool
	// layouts are those of a generation.
	layouts    [2]*layout
	generation string
	// kernel is what is there, nil if it has to be read. settled says that the rules are
	// as wished and that all sets exist.
	kernel  *kernel
	settled bool
	// glanced is what Glance compares with. After an Apply that failed when its rules were in
	// force already, it is known and kernel is not.
	glanced *kernel
	// held are the sets that were read last. They are read again only where a sum differs.
	held map[string]*heldSet
	sums sums
	// few says that foreign sets have no more members than netguard's.
	few bool
	// agreed are tables that were seen with this generation's layouts, or with the chains that
	// the generation before shares with it. They show how this version of iptables words these
	// chains.
	agreed [2]*table
	// due are the connections that Cut has to go over.
	due touched
	// gone are addresses that no container has any more, and whose notes are not deleted yet.
	gone    map[netip.Addr]bool
	late    lateAnswers
	vacancy vacancy
	listing *listing // that goes on
	others  *Others  // that were read last
	// displaced is what the last Verify found, until the next Apply: see plan.displaced.
	displaced bool
	// stuck are sets that cannot be destroyed, because another program's rule names them.
	stuck map[string]bool
}

// Open finds the programs and opens the sockets. It changes nothing. What comes later needs
// CAP_NET_ADMIN. The error is ErrNoIPTables where iptables is not installed.
func Open(ctx context.Context, o Options) (*Driver, error) {
	if o.Wait <= 0 {
		o.Wait = 5 * time.Second
	}
	if o.CutFor < time.Second {
		o.CutFor = 10 * time.Minute
	}
	d := &Driver{options: o, families: []int{0}, stuck: map[string]bool{}, gone: map[netip.Addr]bool{}, due: touched{all: true}, bridgeFilter: bridgeFilter}
	if o.Programs == nil {
		var err error
		if o.Programs, err = findPrograms(o.Wait, hasIPv6()); err != nil {
			return nil, fmt.Errorf("open iptables: %w", err)
		}
	}
	d.options.Programs = o.Programs
	d.backends = o.Programs.backends(&d.forked)
	if o.Programs.ipv6 {
		d.families = []int{0, 1}
	}
	var err error
	if d.sets.conn, err = dial(unix.NETLINK_NETFILTER, &d.wrote); err != nil {
		return nil, fmt.Errorf("open ipset: %w", err)
	}
	if d.rules.conn, err = dial(unix.NETLINK_NETFILTER, &d.wrote); err != nil {
		d.Close()
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	if d.links, err = dial(unix.NETLINK_ROUTE, &d.wrote); err != nil {
		d.Close()
		return nil, fmt.Errorf("open links: %w", err)
	}
	if err := d.probe(ctx); err != nil {
		d.Close()
		return nil, fmt.Errorf("open iptables: %w", err)
	}
	return d, nil
}

// hasIPv6 tells whether the host was booted with IPv6. Without it there is nothing to filter.
func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return !os.IsNotExist(err)
}

// Close closes the sockets. What is in the kernel stays.
func (d *Driver) Close() {
	d.sets.close()
	d.rules.close()
	d.links.close()
}

// Backend tells which of iptables' two backends the rules are in, "" before the
// first Apply.
func (d *Driver) Backend() Backend { return d.backend }

func (d *Driver) cutSeconds() uint32 { return d.options.cutSeconds() }

func (o Options) cutSeconds() uint32 { return uint32(o.CutFor / time.Second) }

// take keeps a wish, or refuses it.
func (d *Driver) take(w Wish) error {
	if w.Rules == nil {
		return fmt.Errorf("apply rules: %w", ErrInvalid)
	}
	if d.generation == "" || d.generation != w.Rules.Generation {
		var laid [2]*layout
		for i, f := range w.Rules.Families() {
			l, err := lay(f, d.options)
			if err != nil {
				return fmt.Errorf("apply %s rules: %w", familyNames[i], err)
			}
			laid[i] = l
			d.agreed[i] = l.keep(d.agreed[i], d.layouts[i])
		}
		d.layouts, d.generation, d.settled = laid, w.Rules.Generation, false
	}
	var was Wish
	if d.wish != nil {
		was = *d.wish
	}
	d.denied = membersOf(was.Containers, w.Containers, d.denied, container)
	d.homes = membersOf(was.Homes, w.Homes, d.homes, Home.place)
	d.homed = membersOf(was.Homes, w.Homes, d.homed, Home.address)
	d.subnets = membersOf(was.Subnets, w.Subnets, d.subnets, subnet)
	d.wish = &w
	return nil
}

// families are the members of a set of each family.
type families [2][]netpolicy.Member

// fewGone is how many parts of a list may go before all of its members are worked out again.
const fewGone = 16

// membersOf gives the sorted members for a list of the wish. was and have are the list before and
// its members. A part without a valid prefix has no member.
func membersOf[T comparable](was, is []T, have families, member func(T) netpolicy.Member) families {
	gone, came := trim(was, is)
	if len(gone) > fewGone {
		gone, came, have = nil, is, families{}
	}
	var add, del families
	for _, part := range came {
		if m := member(part); m.Prefix.IsValid() {
			i := index(m.Prefix.Addr().Is6())
			if _, there := slices.BinarySearchFunc(have[i], m, netpolicy.CompareMembers); !there {
				add[i] = append(add[i], m)
			}
		}
	}
	for _, part := range gone {
		m := member(part)
		if m.Prefix.IsValid() && !slices.ContainsFunc(is, func(other T) bool { return member(other) == m }) {
			i := index(m.Prefix.Addr().Is6())
			del[i] = append(del[i], m)
		}
	}
	for i := range have {
		have[i] = netpolicy.Patched(have[i], add[i], del[i])
	}
	return have
}

// container gives the address of a container as a member.
func container(a netip.Addr) (m netpolicy.Member) {
	if a = a.Unmap().WithZone(""); a.IsValid() && !a.IsUnspecified() {
		m.Prefix = netip.PrefixFrom(a, a.BitLen())
	}
	return m
}

// Expect makes Verify compare with a wish, and applies nothing. It is for a Driver that only
// reads, beside the one that writes.
func (d *Driver) Expect(w Wish) error {
	if d.wish != nil && d.wish.Rules == w.Rules {
		return nil
	}
	return d.take(w)
}
