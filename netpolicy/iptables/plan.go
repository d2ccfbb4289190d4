package iptables

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"

	"netguard/internal/plain"
	"netguard/netpolicy"
)

// plan is what is to be done to bring the kernel to a wish.
type plan struct {
	create  []setSpec
	changes []change
	tables  [2]tablePlan
	destroy []string
	stale   []stale
}

// change is a change of netpolicy, with its set.
type change struct {
	setSpec
	netpolicy.Change
	about string
	// late says that the change waits for new rules, if there are any. It opens something by a
	// set that the old rules use too. The new rules may close a container that the old ones do
	// not know.
	late bool
}

// tablePlan is the part of a plan about the filter table of a family, in its order.
type tablePlan struct {
	build   []chain     // chains of the generation, written while nothing leads to them
	swap    []chain     // static chains, which lead packets there
	collect []string    // chains that no packet meets any more
	anchors []anchoring // jumps
}

func (p tablePlan) empty() bool {
	return len(p.build) == 0 && len(p.swap) == 0 && len(p.collect) == 0 && len(p.anchors) == 0
}

func (p *plan) rules() bool {
	return !p.tables[0].empty() || !p.tables[1].empty() || len(p.stale) > 0
}

// displaced tells whether the plan only puts the jumps in FORWARD first again, as it has to
// while Docker writes its rules. The jump in DOCKER-USER is in its place then. Where Docker
// has no DOCKER-USER (20.10 in IPv6), only Docker's rules come before the jump.
func (p *plan) displaced(k *kernel) bool {
	if len(p.create)+len(p.changes)+len(p.destroy)+len(p.stale) > 0 {
		return false
	}
	return p.jumpsAlone(k)
}

// jumpsAlone is the part of displaced about rules.
func (p *plan) jumpsAlone(k *kernel) bool {
	jumps := 0
	for i, t := range p.tables {
		if len(t.build)+len(t.swap)+len(t.collect) > 0 {
			return false
		}
		for _, a := range t.anchors {
			if a.path != netpolicy.Forward && a.path != standby || !k.tables[i].overtaken() {
				return false
			}
			jumps++
		}
	}
	return jumps > 0
}

// overtaken tells whether netguard's jump for forwarded packets is there, with at most
// Docker's rules before it.
func (t *table) overtaken() bool {
	jump := join(anchors[netpolicy.Forward]...)
	if users := t.rules[dockerUser]; len(users) > 0 && users[0] == jump {
		return true
	}
	if t.has(dockerUser) {
		return false
	}
	for _, r := range t.rules["FORWARD"] {
		if r == jump {
			return true
		}
		if !slices.Contains(dockerFirst, r) && !aboutBridge.MatchString(r) {
			return false
		}
	}
	return false
}

// aboutBridge matches Docker's rules in FORWARD about the bridge of a network.
var aboutBridge = regexp.MustCompile(`^(-i \S+ (! )?)?-o \S+ (-m conntrack --ctstate RELATED,ESTABLISHED )?-j (ACCEPT|DROP|DOCKER)$`)

// gone gives the addresses that no container has any more.
func (p *plan) gone() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, c := range p.changes {
		if c.Delete && c.name == deniedSet(c.ipv6).name {
			for _, m := range c.Members {
				out[m.Prefix.Addr()] = true
			}
		}
	}
	return out
}

// counted gives the sets of a family that are not in a rule set, and that have members to
// compare.
func (d *Driver) counted(i int) []netpolicy.Set {
	return []netpolicy.Set{
		{Name: deniedSet(i == 1).name, Kind: netpolicy.Addrs, About: "counters of what was denied", Members: d.denied[i]},
		{Name: homedSet(i == 1).name, Kind: netpolicy.Addrs, Closes: true, About: "addresses of containers", Members: d.homed[i]},
		{Name: homesSet(i == 1).name, Kind: netpolicy.Places, About: "the bridges of containers", Members: d.homes[i]},
		{Name: subnetsSet(i == 1).name, Kind: netpolicy.Nets, About: "subnets of containers", Members: d.subnets[i]},
	}
}

func specOf(s netpolicy.Set, ipv6 bool) setSpec {
	for _, own := range []setSpec{deniedSet(ipv6), subnetsSet(ipv6)} {
		if s.Name == own.name {
			return own
		}
	}
	return setSpec{name: s.Name, typ: typeOf(s.Kind), ipv6: ipv6}
}

// planSets compares the sets of a family. The sets of others only have to exist.
func (p *plan) planSets(k *kernel, f *netpolicy.Family, own []netpolicy.Set, others []setSpec, wanted map[string]bool) error {
	specs := map[string]setSpec{}
	for _, s := range others {
		specs[s.name] = s
	}
	for _, sets := range [][]netpolicy.Set{f.Sets, own} {
		for _, s := range sets {
			specs[s.Name] = specOf(s, f.IPv6)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		wanted[name] = true
		if err := k.checkSpec(specs[name]); err != nil {
			return err
		}
		if k.sets[name] == nil {
			p.create = append(p.create, specs[name])
		}
	}
	p.planMembers(k, f, own)
	return nil
}

// planMembers compares the members of a family's sets.
func (p *plan) planMembers(k *kernel, f *netpolicy.Family, own []netpolicy.Set) {
	differ := netpolicy.Family{IPv6: f.IPv6}
	have := map[string][]netpolicy.Member{}
	for _, sets := range [][]netpolicy.Set{f.Sets, own} {
		for i := range sets {
			var old []netpolicy.Member
			if held := k.sets[sets[i].Name]; held != nil {
				old = held.members
			}
			// Most changes are about one container, so both lists begin and end alike.
			if a, b := trim(old, sets[i].Members); len(a)+len(b) > 0 {
				s := sets[i]
				have[s.Name], s.Members = a, b
				differ.Sets = append(differ.Sets, s)
			}
		}
	}
	var first, then, last []change
	for _, c := range differ.Changes(have) {
		i := slices.IndexFunc(differ.Sets, func(s netpolicy.Set) bool { return s.Name == c.Set })
		s := differ.Sets[i]
		late := s.Closes == c.Delete && k.sets[c.Set] != nil
		switch each := (change{specOf(s, f.IPv6), c, s.About, late}); {
		case c.Set != homesSet(f.IPv6).name:
			then = append(then, each)
		case c.Delete: // after the set homed lost the address
			each.late = true
			last = append(last, each)
		default: // before the set homed has the address
			each.late = false
			first = append(first, each)
		}
	}
	p.changes = slices.Concat(p.changes, first, then, last)
}

// trim leaves out what two lists begin and end with alike.
func trim[T comparable](a, b []T) ([]T, []T) {
	if len(a) == len(b) && len(a) > 0 && &a[0] == &b[0] {
		return nil, nil
	}
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	a, b = a[n:], b[n:]
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return a, b
}

// planTable compares a family's chains with the layout. A chain is right if it reads as in
// the agreed table, or as netguard words it.
func planTable(t *table, l *layout, agreed *table) tablePlan {
	var p tablePlan
	keep := map[string]bool{}
	for _, m := range marks {
		keep[m] = true
	}
	differ := func(all []chain) (out []chain) {
		for _, c := range all {
			keep[c.name] = true
			list := t.rules[c.name]
			as := agreed != nil && agreed.has(c.name) && slices.Equal(agreed.rules[c.name], list)
			if !t.has(c.name) || !as && !slices.EqualFunc(c.rules, list, sameRule) {
				out = append(out, c)
			}
		}
		return out
	}
	p.build, p.swap = differ(l.generation), differ(l.static)
	for _, c := range t.own() {
		if !keep[c] {
			p.collect = append(p.collect, c)
		}
	}
	p.anchors = t.anchorings()
	return p
}

// maxSentences bounds what describe says.
const maxSentences = 20

// describe tells people what is not as wished.
func (p *plan) describe(k *kernel) []string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for _, s := range p.stale {
		say("%s rules of netguard are left over in iptables' %s backend, which Docker does not use", familyNames[s.family], s.backend.kind)
	}
	for _, s := range p.create {
		say("set %s is missing", s.name)
	}
	for _, c := range p.changes {
		if k.sets[c.name] == nil {
			continue
		}
		if c.Delete {
			say("set %s has %d members too many (%q)", c.name, len(c.Members), plain.Clip(c.about, 80))
		} else {
			say("set %s lacks %d members (%q)", c.name, len(c.Members), plain.Clip(c.about, 80))
		}
	}
	all = append(all, p.describeTables(k)...)
	for _, name := range p.destroy {
		say("set %s is left over", name)
	}
	if more := len(all) - maxSentences; more > 1 {
		all = append(all[:maxSentences], fmt.Sprintf("and %d things more", more))
	}
	return all
}

// describeTables is the part of describe about rules.
func (p *plan) describeTables(k *kernel) []string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for i, t := range p.tables {
		for _, c := range slices.Concat(t.build, t.swap) {
			if k.tables[i].has(c.name) {
				say("%s chain %s was changed", familyNames[i], c.name)
			} else {
				say("%s chain %s is missing", familyNames[i], c.name)
			}
		}
		for _, c := range t.collect {
			say("%s chain %s is left over", familyNames[i], c)
		}
		for _, a := range t.anchors {
			say("%s: %s", familyNames[i], a)
		}
	}
	return all
}
