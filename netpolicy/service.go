package netpolicy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Service is what a connection is for: a protocol, with its port or ICMP type.
// Get one from ParseService, or fill in a protocol and a port.
type Service struct {
	Proto Protocol
	Port  uint16
	icmp  icmpType // "" is every type without a name
}

// ParseService reads PROTO/PORT of the command line: tcp/80, icmp/echo-request.
// icmp alone is an echo request.
func ParseService(text string) (Service, error) {
	s, err := parsePort(text)
	switch {
	case err != nil:
		return Service{}, fmt.Errorf("%w", err)
	case s.proto.HasPorts() && (len(s.ranges) != 1 || s.ranges[0].First != s.ranges[0].Last):
		return Service{}, fmt.Errorf("%q: name one port, such as %s/80", clip(text), s.proto)
	case s.proto.HasPorts():
		return Service{Proto: s.proto, Port: s.ranges[0].First}, nil
	case len(s.icmp) == 0:
		return Service{Proto: s.proto, icmp: icmpTypes[0]}, nil
	}
	return Service{Proto: s.proto, icmp: s.icmp[0]}, nil
}

func (s Service) String() string {
	switch {
	case s.Proto == otherProtocol:
		return "other protocols"
	case s.Proto.HasPorts():
		return fmt.Sprintf("%s/%d", s.Proto, s.Port)
	case s.icmp.name != "":
		return s.Proto.String() + "/" + s.icmp.name
	}
	return s.Proto.String()
}

// packet puts the service into a packet. It gives false if the family lacks the service.
func (s Service) packet(p Packet, ipv6 bool) (Packet, bool) {
	p.Proto, p.Port, p.ICMPType = s.Proto, s.Port, AnyICMPType
	if s.Proto != ICMP && s.Proto != ICMPv6 {
		return p, true
	}
	p.Proto = familyICMP(ipv6)
	if s.icmp.name == "" {
		p.ICMPType = otherICMPType
		return p, s.Proto == p.Proto
	}
	p.ICMPType = s.icmp.number(ipv6)
	return p, p.ICMPType != AnyICMPType && (ipv6 || s.Proto == ICMP)
}

const (
	otherProtocol Protocol = 254 // stands for all that no policy can name
	otherICMPType int16    = 254
)

// span is some services that all rules of the rule sets treat alike.
type span struct {
	first Service
	last  uint16 // port
}

// spans divides all services of a family into spans. Each of the rule sets treats all services of
// a span alike.
func spans(ipv6 bool, sets ...*RuleSet) []span {
	cuts := map[Protocol][]int{}
	for _, rs := range sets {
		for _, c := range rs.Families()[index(ipv6)].Chains {
			for _, r := range c.Rules {
				for _, p := range r.Ports {
					cuts[r.Proto] = append(cuts[r.Proto], int(p.First), int(p.Last)+1)
				}
			}
		}
		for _, s := range rs.Families()[index(ipv6)].Sets {
			if s.Kind == Published {
				for _, m := range s.Members {
					cuts[m.Proto] = append(cuts[m.Proto], int(m.Port), int(m.Port)+1)
				}
			}
		}
	}
	var all []span
	for _, proto := range []Protocol{TCP, UDP, SCTP} {
		at := append(cuts[proto], 1, 65536)
		slices.Sort(at)
		at = slices.Compact(at)
		for i := 0; i+1 < len(at); i++ {
			all = append(all, span{Service{Proto: proto, Port: uint16(at[i])}, uint16(at[i+1] - 1)})
		}
	}
	icmp := familyICMP(ipv6)
	for _, t := range icmpTypes {
		if t.number(ipv6) != AnyICMPType {
			all = append(all, span{first: Service{Proto: icmp, icmp: t}})
		}
	}
	return append(all, span{first: Service{Proto: icmp}}, span{first: Service{Proto: otherProtocol}})
}

func index(ipv6 bool) int {
	if ipv6 {
		return 1
	}
	return 0
}

// spansText writes spans in short: "tcp/80, tcp/443-444, udp", or "everything but
// tcp/80" where that is shorter; total is all there are.
func spansText(some, total []span) string {
	if len(some) == len(total) {
		return "everything"
	}
	text := spansList(some, total)
	rest := filter(total, func(s span) bool { return !slices.Contains(some, s) })
	if other := "everything but " + spansList(rest, total); len(other) < len(text) {
		return other
	}
	return text
}

func spansList(some, total []span) string {
	var words []string
	for _, proto := range []Protocol{TCP, UDP, SCTP, ICMP, ICMPv6, otherProtocol} {
		is := func(s span) bool { return s.first.Proto == proto }
		mine, all := filter(some, is), filter(total, is)
		switch {
		case len(mine) == 0:
		case proto == otherProtocol:
			words = append(words, mine[0].first.String())
		case len(mine) == len(all):
			words = append(words, proto.String())
		case proto.HasPorts():
			for _, r := range portsOf(mine) {
				words = append(words, proto.String()+"/"+r.String())
			}
		default:
			for _, s := range mine {
				if s.first.icmp.name == "" {
					words = append(words, "other types of "+proto.String())
				} else {
					words = append(words, s.first.String())
				}
			}
		}
	}
	return strings.Join(words, ", ")
}

func portsOf(spans []span) []PortRange {
	ranges := make([]PortRange, len(spans))
	for i, s := range spans {
		ranges[i] = PortRange{s.first.Port, s.last}
	}
	slices.SortFunc(ranges, func(a, b PortRange) int { return cmp.Compare(a.First, b.First) })
	return mergeRanges(ranges)
}

func filter[T any](all []T, is func(T) bool) []T {
	var some []T
	for _, x := range all {
		if is(x) {
			some = append(some, x)
		}
	}
	return some
}
