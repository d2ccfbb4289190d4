package netpolicy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// differences are what two rule sets of the same endpoints do not have in common, in a family. If
// no difference is about two addresses, both rule sets say the same of each packet between them,
// unless it goes to the host.
type differences struct {
	judges [2]*judgeFamily
	rules  [2][]Rule // rules of policies that the other rule set lacks
	closed [2][]*Set
	// moved are the addresses that are in a set of one rule set, and not in the set of the same
	// name in the other. This happens where labels of images select. Then other policies also
	// decide to whom a policy allows something.
	moved map[netip.Addr]bool
}

func (p *planner) differences(ipv6 bool) differences {
	d := differences{judges: [2]*judgeFamily{&p.was.families[index(ipv6)], &p.is.families[index(ipv6)]}}
	var has [2]map[string]Rule
	for i := range has {
		has[i] = map[string]Rule{}
		for _, c := range d.judges[i].Chains {
			code := chainCode(c.Name)
			for _, r := range c.Rules {
				if r.Origin.Policy != "" {
					has[i][fmt.Sprintln(code, r.Sets, r.Proto, r.Ports, r.ICMPType, r.Origin.Stage)] = r
				}
			}
		}
		for _, s := range []Stage{FileEgress, LabelEgress, FileIngress, LabelIngress} {
			d.closed[i] = append(d.closed[i], d.judges[i].isolated(s))
		}
	}
	d.move()
	for i := range has {
		for key, r := range has[i] {
			if _, same := has[1-i][key]; !same {
				d.rules[i] = append(d.rules[i], r)
			}
		}
	}
	return d
}

// isolated gives the set of the endpoints that a stage closes.
func (f *judgeFamily) isolated(s Stage) *Set {
	prefix := scopedSet(f.IPv6, letterIsolated, s, "")
	for i := range f.Sets {
		if strings.HasPrefix(f.Sets[i].Name, prefix) {
			return &f.Sets[i]
		}
	}
	return &Set{}
}

// between tells whether a difference may be about packets between two addresses, whatever their
// protocol and ports.
func (d *differences) between(src, dst netip.Addr, from, to string) bool {
	if d.moved[src] || d.moved[dst] {
		return true
	}
	p := Packet{Src: src, Dst: dst, From: from, To: to}
	for i := range d.closed[0] {
		for _, at := range []struct {
			bridge string
			addr   netip.Addr
		}{{from, src}, {to, dst}} {
			if d.closed[0][i].has(at.addr, at.bridge, &p) != d.closed[1][i].has(at.addr, at.bridge, &p) {
				return true
			}
		}
	}
	for i, rules := range d.rules {
		for j := range rules {
			if d.judges[i].meets(&rules[j], &p) {
				return true
			}
		}
	}
	return false
}

func (d *differences) move() {
	d.moved = map[netip.Addr]bool{}
	for name := range d.judges[0].sets {
		if _, both := d.judges[1].sets[name]; !both {
			continue
		}
		was, is := d.judges[0].set(name), d.judges[1].set(name)
		if was.Kind != Addrs && was.Kind != Places {
			continue
		}
		add, del := DiffMembers(was.Members, is.Members)
		for _, m := range slices.Concat(add, del) {
			if m.Prefix.IsSingleIP() {
				d.moved[m.Prefix.Addr()] = true
			}
		}
	}
}
