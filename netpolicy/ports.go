package netpolicy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ports is what a rule says of protocols and ports, without overlaps; nil is
// every protocol.
type ports []portSpec

// portSpec is a protocol, with the ports or ICMP types that count; none is all.
type portSpec struct {
	proto  Protocol
	ranges []PortRange
	icmp   []icmpType
}

// icmpType is a type of ICMP by name, with its number in each family. AnyICMPType stands for a
// family that lacks the type.
type icmpType struct {
	name   string
	v4, v6 int16
}

var icmpTypes = []icmpType{
	{"echo-request", 8, 128},
	{"echo-reply", 0, 129},
	{"destination-unreachable", 3, 1},
	{"time-exceeded", 11, 3},
	{"parameter-problem", 12, 4},
	{"timestamp-request", 13, AnyICMPType},
	{"timestamp-reply", 14, AnyICMPType},
	{"packet-too-big", AnyICMPType, 2},
}

// portMatch is one combination of protocol and ports that a rule of one family can have.
type portMatch struct {
	proto  Protocol
	ranges []PortRange
	icmp   int16
}

// slots is how many numbers one multiport match of iptables holds.
const slots = 15

var everyPort = []portMatch{{icmp: AnyICMPType}}

// matches gives the combinations for a family. There are none if the family lacks the ports. For
// nil there is one that matches everything.
func (p ports) matches(ipv6 bool) []portMatch {
	if p == nil {
		return everyPort
	}
	var all []portMatch
	add := func(m portMatch) {
		if !slices.ContainsFunc(all, func(o portMatch) bool {
			return o.proto == m.proto && o.icmp == m.icmp && slices.Equal(o.ranges, m.ranges)
		}) {
			all = append(all, m)
		}
	}
	for _, s := range p {
		switch {
		case s.proto.HasPorts():
			for _, chunk := range chunks(s.ranges) {
				add(portMatch{s.proto, chunk, AnyICMPType})
			}
		case s.proto == ICMPv6 && !ipv6:
		case len(s.icmp) == 0:
			add(portMatch{familyICMP(ipv6), nil, AnyICMPType})
		default:
			for _, t := range s.icmp {
				if n := t.number(ipv6); n != AnyICMPType {
					add(portMatch{familyICMP(ipv6), nil, n})
				}
			}
		}
	}
	return all
}

func familyICMP(ipv6 bool) Protocol {
	if ipv6 {
		return ICMPv6
	}
	return ICMP
}

func (t icmpType) number(ipv6 bool) int16 {
	if ipv6 {
		return t.v6
	}
	return t.v4
}

// chunks divides ranges into parts that fit one match each. Without ranges, it gives one empty
// part.
func chunks(ranges []PortRange) [][]PortRange {
	if len(ranges) == 0 {
		return [][]PortRange{nil}
	}
	var all [][]PortRange
	start, used := 0, 0
	for i, r := range ranges {
		need := 2
		if r.First == r.Last {
			need = 1
		}
		if used+need > slots {
			all = append(all, ranges[start:i])
			start, used = i, 0
		}
		used += need
	}
	return append(all, ranges[start:])
}

// contain tells whether a port of a protocol is one of them.
func (p ports) contain(proto Protocol, port uint16) bool {
	return p == nil || slices.ContainsFunc(p, func(s portSpec) bool {
		return s.proto == proto && (len(s.ranges) == 0 ||
			slices.ContainsFunc(s.ranges, func(r PortRange) bool { return r.First <= port && port <= r.Last }))
	})
}

// newPorts merges what was written one by one.
func newPorts(specs []portSpec) ports {
	var all ports
	for _, s := range specs {
		i := slices.IndexFunc(all, func(o portSpec) bool { return o.proto == s.proto })
		if i < 0 {
			all = append(all, portSpec{s.proto, slices.Clone(s.ranges), slices.Clone(s.icmp)})
			continue
		}
		old := &all[i]
		if len(old.ranges)+len(old.icmp) == 0 || len(s.ranges)+len(s.icmp) == 0 {
			old.ranges, old.icmp = nil, nil // all of the protocol
			continue
		}
		old.ranges = append(old.ranges, s.ranges...)
		old.icmp = append(old.icmp, s.icmp...)
	}
	for i := range all {
		all[i].ranges = mergeRanges(all[i].ranges)
		slices.SortFunc(all[i].icmp, func(a, b icmpType) int { return strings.Compare(a.name, b.name) })
		all[i].icmp = slices.Compact(all[i].icmp)
	}
	slices.SortFunc(all, func(a, b portSpec) int { return cmp.Compare(a.proto, b.proto) })
	return all
}

func mergeRanges(ranges []PortRange) []PortRange {
	slices.SortFunc(ranges, func(a, b PortRange) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	var all []PortRange
	for _, r := range ranges {
		if n := len(all) - 1; n >= 0 && int(r.First) <= int(all[n].Last)+1 {
			all[n].Last = max(all[n].Last, r.Last)
			continue
		}
		all = append(all, r)
	}
	return all
}

func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// String is the ports as they stand in a file, and differs for any two that are
// not the same.
func (p ports) String() string {
	if p == nil {
		return "every port"
	}
	var words []string
	for _, s := range p {
		if len(s.ranges)+len(s.icmp) == 0 {
			words = append(words, s.proto.String())
		}
		for _, r := range s.ranges {
			words = append(words, s.proto.String()+"/"+r.String())
		}
		for _, t := range s.icmp {
			words = append(words, s.proto.String()+"/"+t.name)
		}
	}
	return strings.Join(words, ", ")
}
