package netpolicy

import (
	"bytes"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// The reference says what policies mean, as simply as it can be said: it looks
// at every policy for every connection. It shares no code with the compiler, and
// reads the text of policies without the decoder.

type refPolicy struct {
	Name    string      `yaml:"name"`
	Select  refSelector `yaml:"select"`
	Ingress *[]refRule  `yaml:"ingress,omitempty"`
	Egress  *[]refRule  `yaml:"egress,omitempty"`
	Deny    []refDeny   `yaml:"deny,omitempty"`
}

type refSelector struct {
	Project   string            `yaml:"project,omitempty"`
	Service   string            `yaml:"service,omitempty"`
	Container string            `yaml:"container,omitempty"`
	Network   string            `yaml:"network,omitempty"`
	Labels    map[string]string `yaml:"labels,omitempty"`
}

type refRule struct {
	From  []refPeer `yaml:"from,omitempty"`
	To    []refPeer `yaml:"to,omitempty"`
	Ports []string  `yaml:"ports,omitempty"`
	// Except is what a deny leaves out.
	Except []string `yaml:"except_ports,omitempty"`
}

type refPeer struct {
	refSelector `yaml:",inline"`
	CIDR        string   `yaml:"cidr,omitempty"`
	Except      []string `yaml:"except,omitempty"`
	Entity      string   `yaml:"entity,omitempty"`
}

type refDeny struct {
	Ingress *refRule `yaml:"ingress,omitempty"`
	Egress  *refRule `yaml:"egress,omitempty"`
}

func readRef(t testing.TB, text string) []refPolicy {
	t.Helper()
	loader, err := yaml.NewLoader(bytes.NewReader([]byte(text)))
	if err != nil {
		t.Fatal(err)
	}
	var all []refPolicy
	for {
		var p refPolicy
		if err := loader.Load(&p); err != nil {
			return all
		}
		all = append(all, p)
	}
}

// refEnd is an end of a connection: a container's endpoint, or else the host or
// an address outside.
type refEnd struct {
	endpoint *Endpoint
	host     bool
	addr     netip.Addr // none for a container behind a port that lacks the family
	all      []netip.Addr
}

type refConn struct {
	src, dst refEnd
	ipv6     bool
	proto    string // tcp, udp, sctp, icmp with a type, or other
	port     int
	icmp     string
}

type reference struct {
	policies []refPolicy
	locked   []refSelector
}

// allows tells whether a connection may be: nothing denies it, the sender's
// egress allows it and the receiver's ingress does.
func (r reference) allows(c refConn) bool {
	return !r.denied(c) && r.side(c, Egress) && r.side(c, Ingress)
}

func (r reference) denied(c refConn) bool {
	for _, p := range r.policies {
		for _, d := range p.Deny {
			if d.Egress != nil && selected(p.Select, c.src) && refMatch(p.Select.Project, *d.Egress, d.Egress.To, c.dst, c, true) {
				return true
			}
			if d.Ingress != nil && selected(p.Select, c.dst) && refMatch(p.Select.Project, *d.Ingress, d.Ingress.From, c.src, c, true) {
				return true
			}
		}
	}
	return false
}

// side tells whether the egress of the source, or the ingress of the destination,
// lets a connection pass.
func (r reference) side(c refConn, dir Direction) bool {
	mine, theirs := c.src, c.dst
	if dir == Ingress {
		mine, theirs = c.dst, c.src
	}
	if mine.endpoint == nil || !mine.endpoint.Managed {
		return true
	}
	for _, s := range r.locked {
		if selected(s, mine) {
			return false
		}
	}
	proven := slices.ContainsFunc(r.policies, func(p refPolicy) bool { return refRules(p, dir) != nil && selectedByOwn(p.Select, mine) })
	closed, open := false, false
	for _, p := range r.policies {
		rules := refRules(p, dir)
		if rules == nil || !selected(p.Select, mine) {
			continue
		}
		closed = true
		if proven && !selectedByOwn(p.Select, mine) {
			continue // with the labels of its image it gets no more than without
		}
		open = open || slices.ContainsFunc(*rules, func(rule refRule) bool {
			return refMatch(p.Select.Project, rule, append(rule.From, rule.To...), theirs, c, false)
		})
	}
	return (!closed || open) && refLabels(mine, theirs, c, dir)
}

// refLabels tells the same of the labels of the containers of an endpoint. Those
// that share one must not say different things.
func refLabels(mine, theirs refEnd, c refConn, dir Direction) bool {
	said := [2]map[string]bool{{}, {}}
	for _, w := range append([]Workload{mine.endpoint.Workload}, mine.endpoint.Shared...) {
		if len(labelFaults(w)) > 0 || w.Unread != "" {
			return false
		}
		for _, d := range Directions {
			if text, ok := w.Labels[policyLabels[d]]; ok {
				rules, _ := parseLabel(policyLabels[d], text, d, w.Project)
				said[d][canonical(rules)] = true
				if len(said[d]) > 1 {
					return false
				}
			}
		}
	}
	for _, w := range append([]Workload{mine.endpoint.Workload}, mine.endpoint.Shared...) {
		text, ok := w.Labels["netguard."+dir.String()]
		if !ok {
			continue
		}
		var rules []refRule
		if err := yaml.Unmarshal([]byte(text), &rules); err != nil {
			panic(err)
		}
		if !slices.ContainsFunc(rules, func(rule refRule) bool {
			return refMatch(w.Project, rule, append(rule.From, rule.To...), theirs, c, false)
		}) {
			return false
		}
	}
	return true
}

func refRules(p refPolicy, dir Direction) *[]refRule {
	if dir == Ingress {
		return p.Ingress
	}
	return p.Egress
}

func refMatch(home string, rule refRule, peers []refPeer, other refEnd, c refConn, denies bool) bool {
	if peers != nil && !slices.ContainsFunc(peers, func(p refPeer) bool { return refPeerIs(home, p, other, denies) }) {
		return false
	}
	if slices.ContainsFunc(rule.Except, func(p string) bool { return refPort(p, c) }) {
		return false
	}
	return rule.Ports == nil || slices.ContainsFunc(rule.Ports, func(p string) bool { return refPort(p, c) })
}

func refPeerIs(home string, p refPeer, other refEnd, denies bool) bool {
	switch {
	case p.Entity != "":
		return p.Entity == "any" || p.Entity == "host" && other.host ||
			p.Entity == "external" && !other.host && other.endpoint == nil
	case p.CIDR != "":
		if denies && other.all != nil {
			return slices.ContainsFunc(other.all, func(a netip.Addr) bool { return refInside(p, a) })
		}
		return refInside(p, other.addr)
	}
	if p.Project == "" {
		p.Project = home
	} else if p.Project == "*" {
		p.Project = ""
	}
	if !denies {
		return selectedByOwn(p.refSelector, other)
	}
	return selected(p.refSelector, other)
}

func refInside(p refPeer, a netip.Addr) bool {
	return netip.MustParsePrefix(p.CIDR).Contains(a) &&
		!slices.ContainsFunc(p.Except, func(e string) bool { return netip.MustParsePrefix(e).Contains(a) })
}

// selectedByOwn is selected without the labels of images.
func selectedByOwn(s refSelector, end refEnd) bool {
	if end.endpoint == nil {
		return false
	}
	e := *end.endpoint
	e.Workload, e.Shared = refOwn(e.Workload), slices.Clone(e.Shared)
	for i := range e.Shared {
		e.Shared[i] = refOwn(e.Shared[i])
	}
	end.endpoint = &e
	return selected(s, end)
}

func refOwn(w Workload) Workload {
	own := map[string]string{}
	for key, value := range w.Labels {
		if w.Unproven == "" && !w.Inherited[key] {
			own[key] = value
		}
	}
	w.Labels = own
	if w.Unproven != "" || w.Inherited[LabelProject] {
		w.Project = ""
	}
	if w.Unproven != "" || w.Inherited[LabelService] {
		w.Service = ""
	}
	return w
}

func selected(s refSelector, end refEnd) bool {
	if end.endpoint == nil || !end.endpoint.Managed || s.Network != "" && s.Network != end.endpoint.Network {
		return false
	}
	for _, w := range append([]Workload{end.endpoint.Workload}, end.endpoint.Shared...) {
		named, _ := path.Match(s.Container, w.Name)
		fits := (s.Project == "" || s.Project == w.Project) && (s.Service == "" || s.Service == w.Service) && (s.Container == "" || named)
		for k, v := range s.Labels {
			have, ok := w.Labels[k]
			fits = fits && ok && (v == "*" || v == have)
		}
		if fits {
			return true
		}
	}
	return false
}

func refPort(text string, c refConn) bool {
	proto, what, some := strings.Cut(text, "/")
	if proto == "icmpv6" {
		if !c.ipv6 {
			return false
		}
		proto = "icmp"
	}
	switch {
	case proto != c.proto:
		return false
	case !some:
		return true
	case proto == "icmp":
		return what == c.icmp
	}
	low, high, ranged := strings.Cut(what, "-")
	first, _ := strconv.Atoi(low)
	last := first
	if ranged {
		last, _ = strconv.Atoi(high)
	}
	return first <= c.port && c.port <= last
}
