package netpolicy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Party is one end of a connection that is asked about: a container with all of
// its endpoints, the host, or an address that is neither.
type Party struct {
	Name      string // as it is to stand in sentences
	Endpoints []Endpoint
	Host      bool
	// Addrs are the one address of a party outside, or the known addresses of the host.
	Addrs []netip.Addr
}

// Explanation is what the rules say of one party's connections to another.
type Explanation struct {
	// Allowed says that every answer is yes.
	Allowed bool     `json:"allowed" yaml:"allowed"`
	Answers []Answer `json:"answers" yaml:"answers"`
	// Note says what no rule decides.
	Note string `json:"note,omitempty" yaml:"note,omitempty"`
}

// Answer is about one pair of addresses, and some services.
type Answer struct {
	Path    string `json:"path" yaml:"path"` // forward, input or output
	Network string `json:"network,omitempty" yaml:"network,omitempty"`
	Src     string `json:"src" yaml:"src"`
	Dst     string `json:"dst" yaml:"dst"`
	Service string `json:"service" yaml:"service"`
	Allowed bool   `json:"allowed" yaml:"allowed"`
	// Policies are the policies that decide. They allow the connection, deny it, or close an
	// endpoint without a rule that allows it.
	Policies []string `json:"policies" yaml:"policies"`
	// Rules are the rules that decide, such as "db ingress[0]".
	Rules    []string `json:"rules" yaml:"rules"`
	Sentence string   `json:"sentence" yaml:"sentence"`
}

// pair is two addresses, and how a connection would go between them.
type pair struct {
	path     Path
	from, to *Endpoint // nil for the host and for the world
	src, dst netip.Addr
}

func (e *explainer) explain(service *Service) Explanation {
	pairs, note := e.pairs()
	out := Explanation{Allowed: true, Answers: []Answer{}, Note: note}
	for _, p := range pairs {
		var answers []Answer
		if service != nil {
			answers = e.one(p, *service)
		} else {
			answers = e.all(p)
		}
		for _, a := range answers {
			out.Allowed = out.Allowed && a.Allowed
			out.Answers = append(out.Answers, a)
		}
	}
	if len(out.Answers) == 0 && out.Note == "" {
		out.Allowed = false
		out.Note = fmt.Sprintf("%s and %s have no addresses of one family between which %s could go", e.src.Name, e.dst.Name, serviceText(service))
	}
	return out
}

func serviceText(s *Service) string {
	if s == nil {
		return "a connection"
	}
	return s.String()
}

type explainer struct {
	rs        *RuleSet
	judge     *Judge
	endpoints []*Endpoint
	src, dst  Party
	host      *Host // nil if nothing is known of it
}

// pairs gives the pairs of addresses that would be used, or why there are none.
func (e *explainer) pairs() ([]pair, string) {
	src, dst := e.src, e.dst
	if len(src.Endpoints) == 0 && len(dst.Endpoints) == 0 && !dst.Host {
		return nil, fmt.Sprintf("no container is part of a connection from %s to %s: netguard has nothing against it", src.Name, dst.Name)
	}
	if src.Host && dst.Host {
		return nil, "the host's connections to itself are none of netguard's"
	}
	path := Forward
	switch {
	case dst.Host:
		path = Input
	case src.Host:
		path = Output
	}
	common := e.common()
	var pairs []pair
	for _, from := range ends(src, dst) {
		for _, to := range ends(dst, src) {
			if from.endpoint != nil && to.endpoint != nil {
				if len(common) > 0 && (from.endpoint.Network != to.endpoint.Network || !slices.Contains(common, from.endpoint.Network)) {
					continue
				}
				if from.endpoint.ID == to.endpoint.ID {
					return nil, fmt.Sprintf("what %s sends to itself does not leave it: netguard has nothing against it", src.Name)
				}
			}
			if from.scope() == to.scope() {
				pairs = append(pairs, pair{path, from.endpoint, to.endpoint, from.addr, to.addr})
			}
		}
	}
	note := ""
	if len(src.Endpoints) > 0 && len(dst.Endpoints) > 0 && len(common) == 0 && len(pairs) > 0 {
		note = "they have no network in common: Docker keeps its networks apart, whatever policy allows"
	}
	return pairs, note
}

// common gives the networks that both parties are on.
func (e *explainer) common() []string {
	var names []string
	for _, from := range e.src.Endpoints {
		for _, to := range e.dst.Endpoints {
			if from.Network == to.Network {
				names = append(names, from.Network)
			}
		}
	}
	return names
}

type end struct {
	endpoint *Endpoint
	addr     netip.Addr
}

// scope numbers the kinds of addresses that cannot reach each other: IPv4, IPv6, and link-local
// IPv6.
func (e end) scope() int { return scopeOf(e.addr) }

func scopeOf(a netip.Addr) int {
	switch {
	case a.Is6() && a.IsLinkLocalUnicast():
		return 2
	case a.Is6():
		return 1
	}
	return 0
}

// ends gives the addresses of a party. A container has one of each family on each of its
// networks. If the other party has only link-local addresses, that is the link-local one. The
// host and a party outside have all their addresses. If none of the host's is known in a family,
// it has the unspecified one, which only rules for every address fit.
func ends(p, other Party) []end {
	link := len(other.Addrs) > 0 && !slices.ContainsFunc(other.Addrs, func(a netip.Addr) bool { return scopeOf(a) != 2 })
	var all []end
	for i := range p.Endpoints {
		for _, ipv6 := range []bool{false, true} {
			addrs := cleaned(p.Endpoints[i]).Addrs
			if j := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is6() == ipv6 && (!link || scopeOf(a) == 2) }); j >= 0 {
				all = append(all, end{&p.Endpoints[i], addrs[j]})
			}
		}
	}
	var has [2]bool
	for _, a := range p.Addrs {
		if a = a.Unmap().WithZone(""); a.IsValid() {
			all = append(all, end{nil, a})
			has[index(a.Is6())] = true
		}
	}
	one := len(p.Addrs) == 1 && p.Addrs[0].String() == p.Name // asked about by itself
	if p.Host && !one {
		for i, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			if !has[i] {
				all = append(all, end{nil, a})
			}
		}
	}
	return all
}

// one answers for a service.
func (e *explainer) one(p pair, s Service) []Answer {
	if a, ok := e.published(p, s); ok {
		return []Answer{a}
	}
	packet, ok := s.packet(Packet{Path: p.path, Src: p.src, Dst: p.dst, From: p.from.bridge(), To: p.to.bridge()}, p.src.Is6())
	if !ok {
		return nil
	}
	return []Answer{e.answer(p, s.String(), e.judge.Walk(packet), &s)}
}

// all answers for every service. Services with the same verdict from the same rules share an
// answer.
func (e *explainer) all(p pair) []Answer {
	total := spans(p.src.Is6(), e.rs)
	type lot struct {
		trace Trace
		spans []span
	}
	var lots []*lot
	var ports []Answer // published ones, each by itself
	var apart []span
	for _, s := range total {
		packet, ok := s.first.packet(Packet{Path: p.path, Src: p.src, Dst: p.dst, From: p.from.bridge(), To: p.to.bridge()}, p.src.Is6())
		if !ok {
			continue
		}
		if s.first.Port == s.last {
			if a, ok := e.published(p, s.first); ok {
				ports = append(ports, a)
				apart = append(apart, s)
				continue
			}
		}
		t := e.judge.Walk(packet)
		i := slices.IndexFunc(lots, func(l *lot) bool { return sameTrace(l.trace, t) })
		if i < 0 {
			lots = append(lots, &lot{trace: t})
			i = len(lots) - 1
		}
		lots[i].spans = append(lots[i].spans, s)
	}
	answers := ports
	total = filter(total, func(s span) bool { return len(apart) == 0 || !slices.Contains(apart, s) })
	for _, allowed := range []bool{true, false} {
		for _, l := range lots {
			if l.trace.Allowed == allowed {
				var one *Service // a port, which may be a published one
				if len(l.spans) == 1 && l.spans[0].first.Port == l.spans[0].last {
					one = &l.spans[0].first
				}
				answers = append(answers, e.answer(p, spansText(l.spans, total), l.trace, one))
			}
		}
	}
	return answers
}

// sameTrace tells whether the same rules of policies decided. Two ranges of ports in one rule are
// one rule.
func sameTrace(a, b Trace) bool {
	return a.Allowed == b.Allowed && slices.EqualFunc(a.Hits, b.Hits, func(x, y Hit) bool { return x.Origin == y.Origin && x.Verdict == y.Verdict })
}

func (e *explainer) answer(p pair, service string, t Trace, s *Service) Answer {
	a := Answer{
		Path: p.path.String(), Src: p.src.String(), Dst: p.dst.String(), Service: service, Allowed: t.Allowed,
		Policies: []string{}, Rules: []string{},
	}
	if p.from != nil && p.to != nil && p.from.Network == p.to.Network {
		a.Network = p.from.Network
	}
	for _, h := range t.Hits {
		if h.Policy == "" { // the end of a stage
			_, state := e.closed(p, h.Stage, s)
			for _, name := range state.Policies[h.Direction] {
				// The stage is that of the files, or that of the label.
				if (h.Stage == fileStage(h.Direction)) != strings.HasPrefix(name, "label ") && !slices.Contains(a.Policies, name) {
					a.Policies = append(a.Policies, name)
				}
			}
			continue
		}
		if !t.Allowed && h.Verdict != Drop {
			continue // it was allowed so far, which does not matter any more
		}
		if !slices.Contains(a.Policies, h.Policy) {
			a.Policies = append(a.Policies, h.Policy)
		}
		a.Rules = append(a.Rules, h.Policy+" "+h.Rule())
	}
	a.Sentence = e.sentence(p, service, t, s)
	return a
}
