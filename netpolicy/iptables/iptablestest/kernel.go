// Package iptablestest is a kernel that is not there, for tests: it keeps what iptables.Driver
// writes, and refuses what the kernel refuses. It knows no clock and does no I/O.
package iptablestest

import (
	"net/netip"
	"slices"

	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

// Step is what can fail.
type Step string

const (
	Read   Step = "read"   // rules and sets
	Write  Step = "write"  // rules and members: what was before stays in force
	Lead   Step = "lead"   // packets to the new rules: return iptables.ErrOvertaken there
	Remove Step = "remove" // what was before: the new is in force already
	Switch Step = "switch" // a bridge, of which Fail is given the name
	List   Step = "list"   // connections
	End    Step = "end"    // a connection, of which Fail is given the client
)

// Kernel is the state of a host. It outlives each Driver.
type Kernel struct {
	// Fail is asked before each step; its error is the step's. Nil: none fails.
	Fail func(step Step, about string) error
	// Lists is called when a list of connections begins. It calls end when the list is over. Nil:
	// that is at once.
	Lists func(end func())
	// NoBridgeFilter says that br_netfilter is not loaded.
	NoBridgeFilter bool
	// Room is how many members a set takes; 0 for as many as there are.
	Room int

	// rules are those that netguard's jumps lead to, "" where there is none.
	generation string
	met        iptables.Wish
	members    map[member]bool
	foreign    map[string]bool // sets of other software
	// first: rules of another program come before netguard's.
	first bool
	// left: something of before could not be taken away.
	left bool
	// written counts changes of the table, whoever's they are.
	written int

	bridges map[string]*bridge
	flows   []iptables.Flow
	noted   []iptables.Flow // connections that were cut, and that their servers may not open again
}

// member is one of a set. Home has the bridge, too.
type member struct {
	set string
	netpolicy.Member
}

type bridge struct {
	on       bool // it hands its frames to iptables
	recorded bool // netguard switched it on
}

// New makes a host without rules, sets, bridges and connections.
func New() *Kernel {
	return &Kernel{members: map[member]bool{}, foreign: map[string]bool{}, bridges: map[string]*bridge{}}
}

func (k *Kernel) fail(step Step, about string) error {
	if k.Fail == nil {
		return nil
	}
	return k.Fail(step, about)
}

// InForce gives the wish that packets meet. It is false where they meet none as a whole:
// nothing was applied, another program deleted rules or members, or has its own first.
func (k *Kernel) InForce() (iptables.Wish, bool) {
	return k.met, k.generation != "" && !k.first && len(k.lacking(k.met)) == 0
}

// Left tells whether something of before is still there.
func (k *Kernel) Left() bool { return k.left }

// DeleteRules is another program that deletes netguard's rules, and leaves the sets.
func (k *Kernel) DeleteRules() { k.generation, k.written = "", k.written+1 }

// RestoreRules is another program that restores the rules that packets met last.
func (k *Kernel) RestoreRules() { k.generation, k.written = k.met.Rules.Generation, k.written+1 }

// Displace is another program that writes rules before netguard's, as Docker does.
func (k *Kernel) Displace() { k.first, k.written = true, k.written+1 }

// Rewrite is another program that writes a rule which has no part in netguard's.
func (k *Kernel) Rewrite() { k.written++ }

// EmptySets is another program that deletes all members.
func (k *Kernel) EmptySets() { clear(k.members) }

// AddForeignSet makes a set of other software.
func (k *Kernel) AddForeignSet(name string) { k.foreign[name] = true }

// RemoveForeignSet deletes it.
func (k *Kernel) RemoveForeignSet(name string) { delete(k.foreign, name) }

// AddBridge adds a bridge, which hands over its frames or does not.
func (k *Kernel) AddBridge(name string, on bool) { k.bridges[name] = &bridge{on: on} }

// RemoveBridge removes a bridge. The record of it stays.
func (k *Kernel) RemoveBridge(name string) { delete(k.bridges, name) }

// SwitchOff is another program that has a bridge hand over nothing.
func (k *Kernel) SwitchOff(name string) { k.bridges[name].on = false }

// HandsOver tells whether a bridge hands its frames to iptables.
func (k *Kernel) HandsOver(name string) bool { return k.bridges[name] != nil && k.bridges[name].on }

// Connect adds connections.
func (k *Kernel) Connect(flows ...iptables.Flow) { k.flows = append(k.flows, flows...) }

// Connections are those that there are, in the order in which they were added.
func (k *Kernel) Connections() []iptables.Flow { return slices.Clone(k.flows) }

// membersOf are the members of the sets of a wish.
func membersOf(w iptables.Wish) map[member]bool {
	out := map[member]bool{}
	single := func(a netip.Addr) netpolicy.Member {
		return netpolicy.Member{Prefix: netip.PrefixFrom(a, a.BitLen())}
	}
	for _, f := range w.Rules.Families() {
		for _, s := range f.Sets {
			for _, m := range s.Members {
				out[member{s.Name, m}] = true
			}
		}
	}
	for _, a := range w.Containers {
		out[member{"containers", single(a)}] = true
	}
	for _, p := range w.Subnets {
		out[member{"subnets", netpolicy.Member{Prefix: p}}] = true
	}
	for _, h := range w.Homes {
		m := single(h.Addr)
		m.Bridge = h.Bridge
		out[member{"homes", m}] = true
	}
	return out
}

// lacking are the members of a wish that the sets lack.
func (k *Kernel) lacking(w iptables.Wish) (out []member) {
	for m := range membersOf(w) {
		if !k.members[m] {
			out = append(out, m)
		}
	}
	return out
}

// needless are the members that no set of a wish has.
func (k *Kernel) needless(w iptables.Wish) (out []member) {
	want := membersOf(w)
	for m := range k.members {
		if !want[m] {
			out = append(out, m)
		}
	}
	return out
}
