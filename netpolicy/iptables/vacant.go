package iptables

import (
	"maps"
	"net/netip"
	"slices"

	"netguard/netpolicy"
)

// A connection may be older than the container that gets its address: somebody sent to the
// address, or from it, while no container had it. The kernel would let the container answer,
// whatever policies say of it. To look for such a connection costs the same for each container
// that starts, because the kernel goes through its whole table.
//
// So the rules count packets that may begin a connection and have a vacant address: one that is
// in a network's subnet, and that no container has. The set subnets has the counters. While they
// do not change, nothing can have begun since the last list of all connections.
type vacancy struct {
	// known says that a list of all connections was taken while the rules were in force.
	known bool
	// packets is the sum of the counters before that list.
	packets uint64
	// used are the vacant addresses that may have connections all the same.
	used map[netip.Addr]bool
}

// maxUsed bounds vacancy.used.
const maxUsed = 4096

// subnetsSet has the subnets of the networks that have containers.
func subnetsSet(ipv6 bool) setSpec {
	return setSpec{name: netpolicy.SetPrefix(ipv6) + "subnets", typ: hashNet, ipv6: ipv6, counters: true}
}

// vacant counts packets with vacant addresses. It stands after the rule for existing connections,
// where it costs those nothing. Packets that the host sends count by their destination alone:
// their sources are the host's own addresses, some of which are in the subnets.
func vacant(ipv6 bool, path netpolicy.Path) (rules []string) {
	for _, side := range [3][]string{netpolicy.Forward: {"src", "dst"}, netpolicy.Input: {"src"}, netpolicy.Output: {"dst"}}[path] {
		rules = append(rules, join("-m conntrack ! --ctstate INVALID,UNTRACKED",
			set(deniedSet(ipv6).name, side, true), "! --update-counters", set(subnetsSet(ipv6).name, side, false)))
	}
	return rules
}

// subnet gives a member of the set subnets.
func subnet(p netip.Prefix) netpolicy.Member { return netpolicy.Member{Prefix: p.Masked()} }

// cover tells whether an address is of one of the members.
func (f *families) cover(a netip.Addr) bool {
	return slices.ContainsFunc(f[index(a.Is6())], func(m netpolicy.Member) bool { return m.Prefix.Contains(a) })
}

// has tells whether an address is one of the members.
func (f *families) has(a netip.Addr) bool {
	_, is := slices.BinarySearchFunc(f[index(a.Is6())], a, func(m netpolicy.Member, a netip.Addr) int { return m.Prefix.Addr().Compare(a) })
	return is
}

// vacantPackets is how many packets with vacant addresses were counted.
func (d *Driver) vacantPackets() (n uint64, err error) {
	for _, i := range d.families {
		before := n
		err := d.sets.each(subnetsSet(i == 1).name, func() { n = before }, func(e element) { n += e.packets })
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// leave notes what a plan means for vacant addresses. An address that a container leaves may have
// connections, and notes that are not about its next container. After a change of rules or subnets,
// packets may have passed uncounted.
func (d *Driver) leave(p *plan) {
	if p.rules() || slices.ContainsFunc(p.changes, func(c change) bool { return c.name == subnetsSet(c.ipv6).name }) {
		d.uncounted()
	}
	gone := p.gone()
	maps.Copy(d.gone, gone)
	if d.vacancy.known {
		maps.Copy(d.vacancy.used, gone)
	}
	if d.listing != nil {
		maps.Copy(d.listing.gone, gone)
	}
}

// uncounted notes that packets may have passed uncounted.
func (d *Driver) uncounted() {
	d.vacancy.known = false
	if d.listing != nil {
		d.listing.stale = true
	}
}

// occupy notes the vacant addresses of a connection that may stay.
func (l *listing) occupy(e entry) {
	if !l.vacancy.known || len(l.vacancy.used) > maxUsed {
		return
	}
	for _, a := range e.addrs() {
		if l.addresses.cover(a) && !l.containers.has(a) {
			l.vacancy.used[a] = true
		}
	}
}

// Vacant tells which addresses of containers cannot have connections. Since the last list of all
// connections, nobody used such an address before it was in the rules, and no container left it.
func (d *Driver) Vacant() (func(netip.Addr) bool, error) {
	v := d.vacancy
	if !v.known {
		return func(netip.Addr) bool { return false }, nil
	}
	n, err := d.vacantPackets()
	return func(a netip.Addr) bool { return n == v.packets && d.denied.has(a) && d.subnets.cover(a) && !v.used[a] }, err
}

// skip leaves out the addresses that were vacant before a container came, if nobody can have
// a connection with them.
func (d *Driver) skip(t touched) (touched, error) {
	if t.all || len(t.came) == 0 {
		return t, nil
	}
	vacant, err := d.Vacant()
	if err != nil {
		return t, err
	}
	t.addrs = maps.Clone(t.addrs)
	maps.DeleteFunc(t.addrs, func(a netip.Addr, _ bool) bool { return t.came[a] && vacant(a) })
	return t, nil
}
