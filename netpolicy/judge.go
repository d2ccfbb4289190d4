package netpolicy

import (
	"net/netip"
	"slices"
)

// Packet is the first packet of a connection, where it meets the rules: a
// published port is already translated on Forward.
type Packet struct {
	Path     Path
	Src, Dst netip.Addr // of one family
	// From and To are the bridges that it comes and leaves by, "" for another device. Only rules
	// of a world of places ask for them.
	From, To string
	Proto    Protocol
	Port     uint16 // of the destination, for protocols that have ports
	ICMPType int16  // for ICMP and ICMPv6
}

// Judge walks packets through a rule set, as a packet filter would. It knows chains and sets, and
// nothing of policies.
type Judge struct {
	families [2]judgeFamily
}

type judgeFamily struct {
	*Family
	*familyIndex
}

// familyIndex finds the rules of a chain and the index of a set by name. All rule sets with the
// same rules share it.
type familyIndex struct {
	chains map[string][]Rule
	sets   map[string]int
}

func indexOf(f *Family) *familyIndex {
	x := &familyIndex{chains: make(map[string][]Rule, len(f.Chains)), sets: make(map[string]int, len(f.Sets))}
	for _, c := range f.Chains {
		x.chains[c.Name] = c.Rules
	}
	for i, s := range f.Sets {
		x.sets[s.Name] = i
	}
	return x
}

// NewJudge takes a rule set that does not change any more.
func NewJudge(rs *RuleSet) *Judge {
	var j Judge
	for i, f := range rs.Families() {
		j.families[i] = judgeFamily{f, rs.index[i]}
		if rs.index[i] == nil { // nobody compiled it
			j.families[i].familyIndex = indexOf(f)
		}
	}
	return &j
}

// set gives a set by its name.
func (f *judgeFamily) set(name string) *Set {
	if i, ok := f.sets[name]; ok {
		return &f.Sets[i]
	}
	return &Set{}
}

// Hit is a rule that matched, if a policy wrote it or it dropped the packet.
type Hit struct {
	Chain string
	Index int // of the rule in the chain
	Origin
	Verdict Verdict
}

// Trace is what became of a packet.
type Trace struct {
	Allowed bool
	// Hits are the rules of policies that the packet matched. If the packet was dropped, the last
	// hit is the rule that dropped it.
	Hits []Hit

	steps int // rules that it met
}

// Walk tells what the rule set does with a packet.
func (j *Judge) Walk(p Packet) Trace {
	f := &j.families[0]
	if p.Dst.Is6() || p.Src.Is6() {
		f = &j.families[1]
	}
	var t Trace
	for chain := f.Entry[p.Path]; ; {
		i := slices.IndexFunc(f.chains[chain], func(r Rule) bool { return f.matches(&r, &p) })
		if i < 0 {
			return t // the end of a chain is never reached: every chain ends with a rule for all
		}
		t.steps += i + 1
		r := &f.chains[chain][i]
		if r.Origin.Policy != "" || r.Verdict == Drop {
			t.Hits = append(t.Hits, Hit{chain, i, r.Origin, r.Verdict})
		}
		if r.Verdict != Goto {
			t.Allowed = r.Verdict == Return
			return t
		}
		chain = r.Goto
	}
}

func (f *judgeFamily) matches(r *Rule, p *Packet) bool {
	if r.Proto != AnyProtocol && r.Proto != p.Proto {
		return false
	}
	if r.ICMPType != AnyICMPType && r.ICMPType != p.ICMPType {
		return false
	}
	if len(r.Ports) > 0 && !slices.ContainsFunc(r.Ports, func(o PortRange) bool { return o.First <= p.Port && p.Port <= o.Last }) {
		return false
	}
	return f.meets(r, p)
}

// meets tells whether the ends of a packet are those that a rule asks for.
func (f *judgeFamily) meets(r *Rule, p *Packet) bool {
	for _, m := range r.Sets {
		a, bridge := p.Src, p.From
		if m.Side == Dst {
			a, bridge = p.Dst, p.To
		}
		if f.set(m.Set).has(a, bridge, p) == m.Not {
			return false
		}
	}
	return true
}

// has tells whether the set has an address on a bridge. For published ports, it tells whether the
// set has the address with the protocol and port of the packet.
func (s *Set) has(a netip.Addr, bridge string, p *Packet) bool {
	if s.Kind == Nets {
		return inside(len(s.Members), func(i int) netip.Prefix { return s.Members[i].Prefix }, a)
	}
	if s.Kind == Places && bridge == "" {
		return false
	}
	// A member with the address is one of the prefixes of the address, nearly always the longest.
	for bits := a.BitLen(); bits >= 0; bits-- {
		m := Member{Prefix: netip.PrefixFrom(a, bits).Masked(), Bridge: bridge}
		switch s.Kind {
		case Addrs:
			m.Bridge = ""
		case Published:
			m.Bridge, m.Proto, m.Port = "", p.Proto, p.Port
		}
		if _, ok := slices.BinarySearchFunc(s.Members, m, CompareMembers); ok {
			return true
		}
		if s.Kind == Addrs || s.Kind == Places && s.singles {
			return false
		}
	}
	return false
}
