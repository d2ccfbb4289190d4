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
	// From and To are the bridges that it comes and leaves by, "" for another
	// device. Only a world of places asks.
	From, To string
	Proto    Protocol
	Port     uint16 // of the destination, for protocols that have ports
	ICMPType int16  // for ICMP and ICMPv6
}

// Judge walks packets through a rule set, as a packet filter would: it knows
// chains and sets, and no policy.
type Judge struct {
	families [2]judgeFamily
}

type judgeFamily struct {
	*Family
	chains map[string][]Rule
	sets   map[string]judgeSet
}

// judgeSet finds members as ipset does.
type judgeSet struct {
	kind    Kind
	addrs   map[netip.Addr]bool
	places  map[place]bool
	members []Member // of Places those that are no single addresses
}

// place is an address on a bridge.
type place struct {
	bridge string
	addr   netip.Addr
}

// NewJudge takes a rule set that does not change any more.
func NewJudge(rs *RuleSet) *Judge {
	var j Judge
	for i, f := range rs.Families() {
		jf := judgeFamily{Family: f, chains: map[string][]Rule{}, sets: map[string]judgeSet{}}
		for _, c := range f.Chains {
			jf.chains[c.Name] = c.Rules
		}
		for _, s := range f.Sets {
			js := judgeSet{kind: s.Kind, members: s.Members}
			if s.Kind == Addrs {
				js.addrs = make(map[netip.Addr]bool, len(s.Members))
				for _, m := range s.Members {
					js.addrs[m.Prefix.Addr()] = true
				}
			}
			if s.Kind == Places {
				js.places, js.members = make(map[place]bool, len(s.Members)), nil
				for _, m := range s.Members {
					if m.Prefix.IsSingleIP() {
						js.places[place{m.Bridge, m.Prefix.Addr()}] = true
					} else {
						js.members = append(js.members, m)
					}
				}
			}
			jf.sets[s.Name] = js
		}
		j.families[i] = jf
	}
	return &j
}

// Hit is a rule that matched, and did not only lead on past a stage that does
// not close its endpoint.
type Hit struct {
	Chain string
	Index int // of the rule in the chain
	Origin
	Verdict Verdict
}

// Trace is what became of a packet.
type Trace struct {
	Allowed bool
	// Hits are the rules that policies wrote and that it met, and, if it was
	// dropped, last the one that did so.
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
		if f.sets[m.Set].has(a, bridge, p) == m.Not {
			return false
		}
	}
	return true
}

func (s judgeSet) has(a netip.Addr, bridge string, p *Packet) bool {
	switch s.kind {
	case Addrs:
		return s.addrs[a]
	case Places:
		return bridge != "" && (s.places[place{bridge, a}] ||
			slices.ContainsFunc(s.members, func(m Member) bool { return m.Bridge == bridge && m.Prefix.Contains(a) }))
	case Nets:
		return inside(len(s.members), func(i int) netip.Prefix { return s.members[i].Prefix }, a)
	}
	return slices.ContainsFunc(s.members, func(m Member) bool {
		return m.Proto == p.Proto && m.Port == p.Port && m.Prefix.Contains(a)
	})
}
