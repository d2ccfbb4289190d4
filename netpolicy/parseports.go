package netpolicy

import (
	"fmt"
	"strconv"
	"strings"
)

// protocols that a policy can name.
var protocols = []Protocol{TCP, UDP, SCTP, ICMP, ICMPv6}

func protocolNames() []string {
	names := make([]string, len(protocols))
	for i, p := range protocols {
		names[i] = p.String()
	}
	return names
}

// parsePort reads one item of ports: tcp, tcp/80, tcp/8000-8100, icmp,
// icmp/echo-request.
func parsePort(text string) (portSpec, error) {
	if len(text) > maxName {
		return portSpec{}, fmt.Errorf("%d bytes: at most %d are read", len(text), maxName)
	}
	name, rest, slash := strings.Cut(text, "/")
	proto, ok := protocolOf(name)
	if !ok {
		return portSpec{}, noProtocol(text, name, rest, slash)
	}
	s := portSpec{proto: proto}
	switch {
	case !slash:
	case proto.HasPorts():
		r, err := parseRange(proto, rest)
		if err != nil {
			return portSpec{}, fmt.Errorf("%q: %w", clip(text), err)
		}
		s.ranges = mergeRanges([]PortRange{r})
	default:
		t, err := parseICMP(proto, rest)
		if err != nil {
			return portSpec{}, fmt.Errorf("%q: %w", clip(text), err)
		}
		s.icmp = []icmpType{t}
	}
	return s, nil
}

func protocolOf(name string) (Protocol, bool) {
	for _, p := range protocols {
		if p.String() == name {
			return p, true
		}
	}
	return 0, false
}

func noProtocol(text, name, rest string, slash bool) error {
	if _, ok := protocolOf(strings.ToLower(rest)); ok && slash { // as Docker writes it: 80/tcp
		return fmt.Errorf("%q: the protocol comes first: write %s/%s", clip(text), strings.ToLower(rest), clip(name))
	}
	if !slash && strings.Trim(text, "0123456789-") == "" && text != "" {
		return fmt.Errorf("%q has no protocol: write tcp/%s or udp/%s", clip(text), clip(text), clip(text))
	}
	if near := Nearest(name, protocolNames()); near != "" {
		if slash {
			near += "/" + clip(rest)
		}
		return fmt.Errorf("%q: there is no protocol %q: did you mean %s?", clip(text), clip(name), near)
	}
	return fmt.Errorf("%q: write a protocol (%s), or one and a port, such as tcp/80, udp/53, tcp/8000-8100, icmp/echo-request",
		clip(text), strings.Join(protocolNames(), ", "))
}

func parseRange(proto Protocol, text string) (PortRange, error) {
	low, high, isRange := strings.Cut(text, "-")
	first, err := parsePortNumber(low)
	if err != nil {
		return PortRange{}, err
	}
	if !isRange {
		return PortRange{first, first}, nil
	}
	last, err := parsePortNumber(high)
	if err != nil {
		return PortRange{}, err
	}
	if first > last {
		return PortRange{}, fmt.Errorf("the range ends before it starts: write %s/%d-%d", proto, last, first)
	}
	return PortRange{first, last}, nil
}

func parsePortNumber(text string) (uint16, error) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, fmt.Errorf("%q is no port: write its number, from 1 to 65535", clip(text))
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("there is no port %s: ports go from 1 to 65535", clip(text))
	}
	return uint16(n), nil
}

func parseICMP(proto Protocol, text string) (icmpType, error) {
	var names []string
	for _, t := range icmpTypes {
		if proto == ICMPv6 && t.v6 == AnyICMPType {
			continue
		}
		if t.name == text {
			return t, nil
		}
		names = append(names, t.name)
	}
	near := Nearest(text, names)
	if text == "ping" {
		near = "echo-request"
	}
	if near != "" {
		return icmpType{}, fmt.Errorf("there is no type %q of %s: did you mean %s/%s?", clip(text), proto, proto, near)
	}
	return icmpType{}, fmt.Errorf("there is no type %q of %s: the types are %s", clip(text), proto, strings.Join(names, ", "))
}
