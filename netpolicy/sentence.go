package netpolicy

import (
	"fmt"
	"slices"
	"strings"
)

// Rule is where a rule stands in its policy: "ingress[0]", "deny[1].egress".
func (o Origin) Rule() string {
	if o.Stage == Guardrail {
		return fmt.Sprintf("deny[%d].%s", o.Index, o.Direction)
	}
	return fmt.Sprintf("%s[%d]", o.Direction, o.Index)
}

// sentence tells people what became of a packet, and why.
func (e *explainer) sentence(p pair, service string, t Trace, s *Service) string {
	who := fmt.Sprintf("%s may reach %s", e.src.Name, e.dst.Name)
	if !t.Allowed {
		who = fmt.Sprintf("%s may not reach %s", e.src.Name, e.dst.Name)
	}
	if p.from != nil && p.to != nil && p.from.Network == p.to.Network {
		who += " on network " + p.from.Network
	}
	who += fmt.Sprintf(" (%s to %s) by %s", p.src, p.dst, service)
	if behind := e.behind(p, s); behind != nil {
		who += fmt.Sprintf(", which leads to %s", behind.Name)
	}
	return who + ": " + e.because(p, t, s)
}

func (e *explainer) because(p pair, t Trace, s *Service) string {
	if !t.Allowed {
		return e.denied(p, t, s)
	}
	var reasons []string
	for _, h := range t.Hits {
		reasons = append(reasons, fmt.Sprintf("%s lets it %s (%s)", policyText(h.Policy), inOut(h.Direction), h.Rule()))
	}
	to := p.to
	if b := e.behind(p, s); b != nil {
		to = b
	}
	if p.from != nil && !e.isolated(p.from, Egress) {
		reasons = append(reasons, open(p.from, Egress))
	}
	if to != nil && !e.isolated(to, Ingress) {
		reasons = append(reasons, open(to, Ingress))
	}
	if len(reasons) == 0 {
		return "no policy is about it"
	}
	return strings.Join(reasons, ", ")
}

func open(e *Endpoint, d Direction) string {
	if !e.Managed {
		return fmt.Sprintf("%s is not managed on %s, so that no policy is about it", e.Name, e.Network)
	}
	return fmt.Sprintf("no policy closes the %s of %s", d, e.Name)
}

func policyText(name string) string {
	if label, ok := strings.CutPrefix(name, "label "); ok {
		return "the container's label " + label
	}
	if why, fault := strings.CutPrefix(name, faultOf); fault {
		return fmt.Sprintf("a fault (%s)", why)
	}
	return "policy " + name
}

// faultOf begins the text that replaces the name of a policy if a fault closes the endpoint.
const faultOf = "fault: "

func inOut(d Direction) string {
	if d == Ingress {
		return "in"
	}
	return "out"
}

// denied tells why a packet was dropped.
func (e *explainer) denied(p pair, t Trace, s *Service) string {
	h := t.Hits[len(t.Hits)-1]
	if h.Policy != "" {
		return fmt.Sprintf("%s denies it (%s)", policyText(h.Policy), h.Rule())
	}
	endpoint, state := e.closed(p, h.Stage, s)
	if endpoint == nil {
		return fmt.Sprintf("no policy that closes the %s allows it", h.Direction)
	}
	label := h.Stage == labelStage(h.Direction)
	if label && len(state.Locked) > 0 {
		return fmt.Sprintf("%s is closed both ways: %s", endpoint.Name, strings.Join(state.Locked, "; "))
	}
	names := filter(state.Policies[h.Direction], func(name string) bool { return strings.HasPrefix(name, "label ") == label })
	text := fmt.Sprintf("the %s of %s is closed by %s", h.Direction, endpoint.Name, policiesText(names))
	if len(names) == 1 {
		text += ", which has no rule that allows it"
	} else {
		text += ", none of which has a rule that allows it"
	}
	if other := p.other(endpoint); other != nil && !other.Managed {
		text += fmt.Sprintf("; %s is not managed on %s, so that rules can name it by its address only", other.Name, other.Network)
	}
	return text + e.nearMiss(p, h, endpoint) + e.inherited(p, h, endpoint, s)
}

func policiesText(names []string) string {
	texts := make([]string, len(names))
	for i, n := range names {
		texts[i] = policyText(n)
	}
	if len(texts) == 0 {
		return "policy"
	}
	return strings.Join(texts, " and ")
}

func (p pair) other(e *Endpoint) *Endpoint {
	if p.from != nil && p.from.ID == e.ID && p.from.Network == e.Network {
		return p.to
	}
	return p.from
}

// closed gives the endpoint that a stage is about: the sender for egress, the receiver for
// ingress.
func (e *explainer) closed(p pair, stage Stage, s *Service) (*Endpoint, State) {
	endpoint := p.from
	if stage.direction() == Ingress {
		endpoint = p.to
		if b := e.behind(p, s); b != nil {
			endpoint = b
		}
	}
	if endpoint == nil {
		return nil, State{}
	}
	return endpoint, e.state(endpoint)
}

func (e *explainer) state(of *Endpoint) State {
	i := slices.IndexFunc(e.rs.States, func(s *State) bool { return s.ID == of.ID && s.Network == of.Network })
	if i < 0 {
		return State{}
	}
	return *e.rs.States[i]
}

func (e *explainer) isolated(of *Endpoint, d Direction) bool { return e.state(of).Isolated(d) }

// behind gives the endpoint that a published port of the host leads to.
func (e *explainer) behind(p pair, s *Service) *Endpoint {
	if p.path != Input || s == nil {
		return nil
	}
	for i := range e.endpoints {
		for _, port := range e.endpoints[i].Published {
			for _, prefix := range hostPrefixes(port.HostIP, p.dst.Is6()) {
				if port.Proto == s.Proto && port.HostPort == s.Port && prefix.Contains(p.dst) {
					return e.endpoints[i]
				}
			}
		}
	}
	return nil
}
