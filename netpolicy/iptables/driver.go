package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"netguard/netpolicy"
)

// Options are what a Driver can be told. The zero value is fine.
type Options struct {
	// Programs are those to run; nil: Open finds them.
	Programs *Programs
	// Wait is how long somebody else may hold the lock of iptables, in whole
	// seconds; 5 s if zero.
	Wait time.Duration
	// CutFor is how long the server's side of a cut connection is refused after
	// its last packet; 10 minutes if zero. TCP gives up earlier.
	CutFor time.Duration
	// Samples has a few of the packets that policies refuse handed to SampleGroup.
	// All Drivers of a host must agree; ProbeSamples tells whether it can be.
	Samples bool
	// Monitor has what policies would refuse counted, and handed over, and let
	// pass. Another Driver with the other setting switches the host over, at once.
	Monitor bool
}

// Wish is what shall be in the kernel. The Driver keeps it: it must not be
// changed after it was given.
type Wish struct {
	Rules *netpolicy.RuleSet
	// Containers are the addresses of all containers of the host, netguard's
	// or not. Denied counts by them, and Cut looks at their connections.
	Containers []netip.Addr
	// Homes are the bridges of the containers that are netguard's: of the addresses
	// that Docker gave them, their link-local ones, and their extra ones that are of
	// the same network.
	Homes []Home
	// Away are addresses that are a container's on its bridge alone: Cut looks at
	// their connections as well.
	Away []netip.Prefix
}

// Report is what a call of Apply did.
type Report struct {
	// Rules says that chains or jumps were written, Generation that those of a
	// new generation were.
	Rules, Generation bool
	// Added and Deleted are members of sets, Created and Destroyed are sets.
	Added, Deleted, Created, Destroyed int
	// Forks are programs that were run, Messages are netlink messages that
	// changed something.
	Forks, Messages int
	// InForce says that the wish is what packets meet, also if something else
	// went wrong afterwards.
	InForce bool
	// Looked says that what rules there were was read first.
	Looked bool
	// Drift is what was not as it had been left, if Apply had reason to look.
	Drift []string
}

// Changed tells whether the kernel is another than before.
func (r Report) Changed() bool {
	return r.Rules || r.Added+r.Deleted+r.Created+r.Destroyed > 0
}

// Driver brings the network namespace that it was opened in to a wish.
type Driver struct {
	options  Options
	backends []*backend
	families []int // indexes: IPv4, and IPv6 if the host has it
	sets     *sets
	rules    ruleLists
	links    *conn

	forked, wrote int

	wish *Wish
	// The members of the sets of the driver's own.
	denied, homed, homes [2][]netpolicy.Member
	// bridgeFilter is a file that is there if br_netfilter is.
	bridgeFilter string
	backend      Backend
	// switched are the bridges that are recorded as switched on.
	switched [2]map[string]bool
	// layouts are those of a generation.
	layouts    [2]*layout
	generation string
	// kernel is what is there, nil if it has to be read. settled says that its rules are
	// as wished, and that there are the sets that there should be.
	kernel  *kernel
	settled bool
	// seen are the tables that were read last, held the sets: what a sign or a sum tells
	// to be the same is not read again.
	seen map[*backend][2]seen
	held map[string]*heldSet
	// few: sets of others have no more members than netguard's.
	few bool
	// agreed are tables that hold what the layouts say, of this generation. Their chains
	// are worded as this version of iptables words them.
	agreed [2]*table
	// due is what Cut has to go over.
	due touched
	// displaced is of the last Verify, until Apply: see plan.displaced.
	displaced bool
	// stuck are sets that cannot be destroyed: something else names them.
	stuck map[string]bool
}

// Open finds the programs and opens the sockets. It changes nothing. It needs
// CAP_NET_ADMIN for whatever comes later. Not having iptables is ErrNoIPTables.
func Open(ctx context.Context, o Options) (*Driver, error) {
	if o.Wait <= 0 {
		o.Wait = 5 * time.Second
	}
	if o.CutFor < time.Second {
		o.CutFor = 10 * time.Minute
	}
	d := &Driver{options: o, families: []int{0}, stuck: map[string]bool{}, seen: map[*backend][2]seen{}, due: touched{all: true}, bridgeFilter: bridgeFilter}
	if o.Programs == nil {
		var err error
		if o.Programs, err = findPrograms(o.Wait, hasIPv6()); err != nil {
			return nil, fmt.Errorf("open iptables: %w", err)
		}
	}
	d.backends = o.Programs.backends(&d.forked)
	if o.Programs.ipv6 {
		d.families = []int{0, 1}
	}
	var err error
	if err := d.probe(ctx); err != nil {
		return nil, fmt.Errorf("open iptables: %w", err)
	}
	if d.sets, err = openSets(&d.wrote); err != nil {
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
	return d, nil
}

// hasIPv6 tells whether the host was booted with it; without, there is nothing to
// filter.
func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return !os.IsNotExist(err)
}

// Close closes the sockets; what is in the kernel stays.
func (d *Driver) Close() {
	if d.sets != nil {
		d.sets.close()
	}
	d.rules.close()
	d.links.close()
}

// Backend tells which of iptables' two backends the rules are in, "" before the
// first Apply.
func (d *Driver) Backend() Backend { return d.backend }

func (d *Driver) cutSeconds() uint32 { return d.options.cutSeconds() }

func (o Options) cutSeconds() uint32 { return uint32(o.CutFor / time.Second) }

// take makes a wish the driver's own, or refuses it.
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
		}
		d.layouts, d.generation, d.settled, d.agreed = laid, w.Rules.Generation, false, [2]*table{}
	}
	if d.wish == nil || !slices.Equal(d.wish.Containers, w.Containers) {
		d.denied = containers(w.Containers)
	}
	if d.wish == nil || !slices.Equal(d.wish.Homes, w.Homes) {
		d.homes, d.homed = homesOf(w.Homes)
	}
	d.wish = &w
	return nil
}

// containers gives the addresses of each family as members, sorted.
func containers(addrs []netip.Addr) [2][]netpolicy.Member {
	var out [2][]netpolicy.Member
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		if !a.IsValid() || a.IsUnspecified() {
			continue
		}
		i := index(a.Is6())
		if out[i] == nil {
			out[i] = make([]netpolicy.Member, 0, len(addrs))
		}
		out[i] = append(out[i], netpolicy.Member{Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	for i := range out {
		out[i] = sortedMembers(out[i])
	}
	return out
}

// sortedMembers sorts a list in place, and leaves out what is there twice.
func sortedMembers(list []netpolicy.Member) []netpolicy.Member {
	if !slices.IsSortedFunc(list, netpolicy.CompareMembers) {
		slices.SortFunc(list, netpolicy.CompareMembers)
	}
	return slices.Compact(list)
}

// Drift is what Verify found.
type Drift struct {
	// Changes are what is not as it was last applied, a sentence each. None means that
	// all is in place.
	Changes []string
	// Displaced says that the changes are no more than what Docker does, which writes its
	// rules anew each time that it makes a network.
	Displaced bool
	// Rewritten says that somebody, whoever it is, wrote rules in the table since it was
	// read last.
	Rewritten bool
}

// Verify reads the kernel and tells what is not as it was last applied. The next Apply
// repairs it.
func (d *Driver) Verify(ctx context.Context) (Drift, error) {
	var found Drift
	if d.wish == nil {
		return found, fmt.Errorf("verify rules: %w", ErrNothingApplied)
	}
	d.kernel, d.settled = nil, false
	k, err := d.read(ctx)
	if err != nil {
		return found, fmt.Errorf("verify rules: %w", err)
	}
	for _, i := range d.families {
		found.Rewritten = found.Rewritten || k.tables[i] != d.agreed[i]
	}
	p, err := d.plan(k, true)
	if err != nil {
		return found, fmt.Errorf("verify rules: %w", err)
	}
	d.kernel, d.settled, d.displaced = k, !p.rules() && len(p.create)+len(p.destroy) == 0, p.displaced(k)
	found.Displaced, found.Changes = d.displaced, p.describe(k)
	return found, nil
}

// plan compares the kernel with the wish. Where the rules are settled, the sets are
// there, and only their members are compared.
func (d *Driver) plan(k *kernel, rules bool) (*plan, error) {
	p := &plan{}
	if !rules {
		for _, i := range d.families {
			p.planMembers(k, d.wish.Rules.Families()[i], d.counted(i))
		}
		return p, nil
	}
	wanted := map[string]bool{bridgeSet(false).name: true, bridgeSet(true).name: true}
	for _, i := range d.families {
		f := d.wish.Rules.Families()[i]
		if err := p.planSets(k, f, d.counted(i), []setSpec{cutSet(f.IPv6, d.cutSeconds()), beganSet(f.IPv6)}, wanted); err != nil {
			return nil, err
		}
		if d.agreed[i] != k.tables[i] {
			p.tables[i] = planTable(k.tables[i], d.layouts[i], d.agreed[i])
		}
		if p.tables[i].empty() {
			d.agreed[i] = k.tables[i]
		}
	}
	for _, name := range sortedKeys(k.sets) {
		if !wanted[name] {
			p.destroy = append(p.destroy, name)
		}
	}
	p.stale = k.stale
	return p, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}

// Expect makes a wish what Verify compares with, and applies nothing: for a Driver
// that only reads, beside the one that writes.
func (d *Driver) Expect(w Wish) error {
	if d.wish != nil && d.wish.Rules == w.Rules {
		return nil
	}
	return d.take(w)
}
