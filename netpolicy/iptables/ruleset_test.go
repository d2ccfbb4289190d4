package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"netguard/netpolicy"
)

// A small rule set by hand: containers of "web" and "db", where only web may
// reach db, on the ports of open. It has the shape of a compiled one: deny, the
// sender's stage, the receiver's.

const (
	allowAny = netpolicy.AnyICMPType
	setTail  = "aaaaaaaaaaaaaaaa"
)

// small describes a rule set.
type small struct {
	generation string // a letter
	web, db    []netip.Addr
	closed     []netip.Addr          // may not send
	ports      []netpolicy.PortRange // of TCP and UDP, from web to db
	banned     netip.Prefix          // nobody sends there
	published  uint16                // a port of the host that nobody may use
	homes      []Home
}

func (s small) id() string { return strings.Repeat(s.generation, 12) }

func (s small) rules() *netpolicy.RuleSet {
	rs := &netpolicy.RuleSet{Generation: s.id()}
	rs.V4, rs.V6 = s.family(false), s.family(true)
	return rs
}

func (s small) wish() Wish {
	return Wish{Rules: s.rules(), Containers: slices.Concat(s.web, s.db, s.closed), Homes: s.homes}
}

func (s small) name(ipv6 bool, letter string, scoped bool) string {
	if scoped {
		return netpolicy.SetPrefix(ipv6) + letter + "-" + s.id()
	}
	return netpolicy.SetPrefix(ipv6) + letter + "-" + setTail
}

func members(ipv6 bool, addrs ...[]netip.Addr) []netpolicy.Member {
	return membersOf(nil, slices.Concat(addrs...), families{}, container)[index(ipv6)]
}

func (s small) family(ipv6 bool) netpolicy.Family {
	chain := func(code string) string { return "NG-" + code + "-" + s.id() }
	web, db := s.name(ipv6, "sw", false), s.name(ipv6, "sd", false)
	in, out := s.name(ipv6, "ii", true), s.name(ipv6, "ie", true)
	ports, banned := s.name(ipv6, "p", false), s.name(ipv6, "n", false)
	f := netpolicy.Family{IPv6: ipv6, Entry: [3]string{chain("F"), chain("I"), chain("O")}}
	f.Sets = []netpolicy.Set{
		{Name: out, Kind: netpolicy.Addrs, Scoped: true, Closes: true, Members: members(ipv6, s.closed)},
		{Name: in, Kind: netpolicy.Addrs, Scoped: true, Closes: true, Members: members(ipv6, s.db)},
		{Name: banned, Kind: netpolicy.Nets},
		{Name: ports, Kind: netpolicy.Published, Closes: true},
		{Name: db, Kind: netpolicy.Addrs, Members: members(ipv6, s.db)},
		{Name: web, Kind: netpolicy.Addrs, Members: members(ipv6, s.web)},
	}
	if s.banned.IsValid() && s.banned.Addr().Is6() == ipv6 {
		f.Sets[2].Members = []netpolicy.Member{{Prefix: s.banned}}
	}
	if s.published != 0 {
		f.Sets[3].Members = everywhere(ipv6, s.published)
	}
	src := func(set string) netpolicy.SetMatch { return netpolicy.SetMatch{Set: set, Side: netpolicy.Src} }
	dst := func(set string) netpolicy.SetMatch { return netpolicy.SetMatch{Set: set, Side: netpolicy.Dst} }
	not := func(m netpolicy.SetMatch) []netpolicy.SetMatch { m.Not = true; return []netpolicy.SetMatch{m} }
	at := func(stage netpolicy.Stage, policy string, d netpolicy.Direction) netpolicy.Origin {
		return netpolicy.Origin{Stage: stage, Policy: policy, Direction: d}
	}
	drop := func(o netpolicy.Origin, m ...netpolicy.SetMatch) netpolicy.Rule {
		return netpolicy.Rule{Sets: m, ICMPType: allowAny, Verdict: netpolicy.Drop, Origin: o}
	}
	back := netpolicy.Rule{ICMPType: allowAny, Verdict: netpolicy.Return}
	goTo := func(name string) netpolicy.Rule {
		return netpolicy.Rule{ICMPType: allowAny, Verdict: netpolicy.Goto, Goto: name}
	}
	with := func(r netpolicy.Rule, m ...netpolicy.SetMatch) netpolicy.Rule { r.Sets = m; return r }
	allow := func(proto netpolicy.Protocol, ports []netpolicy.PortRange, icmp int16) netpolicy.Rule {
		return netpolicy.Rule{Sets: []netpolicy.SetMatch{src(web), dst(db)}, Proto: proto, Ports: ports, ICMPType: icmp,
			Verdict: netpolicy.Return, Origin: at(netpolicy.FileIngress, "db", netpolicy.Ingress)}
	}
	icmp, echo := netpolicy.ICMP, int16(8)
	if ipv6 {
		icmp, echo = netpolicy.ICMPv6, 128
	}
	ingress := netpolicy.Chain{Name: chain("FI"), Rules: []netpolicy.Rule{with(back, not(dst(in))...)}}
	if len(s.ports) > 0 {
		ingress.Rules = append(ingress.Rules, allow(netpolicy.TCP, s.ports, allowAny), allow(netpolicy.UDP, s.ports, allowAny))
	}
	ingress.Rules = append(ingress.Rules, allow(icmp, nil, echo), drop(at(netpolicy.FileIngress, "", netpolicy.Ingress)))
	egress := netpolicy.Chain{Name: chain("FE"), Rules: []netpolicy.Rule{
		with(goTo(chain("FI")), not(src(out))...), drop(at(netpolicy.FileEgress, "", netpolicy.Egress))}}
	hostIn := netpolicy.Chain{Name: chain("IE"), Rules: []netpolicy.Rule{
		with(back, not(src(out))...), drop(at(netpolicy.FileEgress, "", netpolicy.Egress))}}
	hostOut := netpolicy.Chain{Name: chain("OI"), Rules: []netpolicy.Rule{
		with(back, not(dst(in))...), drop(at(netpolicy.FileIngress, "", netpolicy.Ingress))}}
	ban := at(netpolicy.Guardrail, "ban", netpolicy.Egress)
	f.Chains = []netpolicy.Chain{ingress, egress, hostIn, hostOut,
		{Name: chain("F"), Rules: []netpolicy.Rule{drop(ban, dst(banned)), goTo(chain("FE"))}},
		{Name: chain("I"), Rules: []netpolicy.Rule{drop(at(netpolicy.Guardrail, "ports", netpolicy.Ingress), dst(ports)), goTo(chain("IE"))}},
		{Name: chain("O"), Rules: []netpolicy.Rule{goTo(chain("OI"))}},
	}
	return f
}

// everywhere is a port of all of the host's addresses.
func everywhere(ipv6 bool, port uint16) []netpolicy.Member {
	low, high := netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1")
	if ipv6 {
		low, high = netip.MustParsePrefix("::/1"), netip.MustParsePrefix("8000::/1")
	}
	return []netpolicy.Member{{Prefix: low, Proto: netpolicy.TCP, Port: port}, {Prefix: high, Proto: netpolicy.TCP, Port: port}}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// many gives n addresses of each family.
func many(n int) []netip.Addr {
	var all []netip.Addr
	for i := range n {
		all = append(all, addr(fmt.Sprintf("10.77.%d.%d", i/250, i%250+1)), addr(fmt.Sprintf("2001:db8:77::%x:%x", i/250, i%250+1)))
	}
	return all
}
