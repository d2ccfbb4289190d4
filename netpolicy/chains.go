package netpolicy

// The way of a packet, for a family. Every stage but the guardrails (deny) starts with a rule
// that leads past it for endpoints that it does not close, and ends with Drop.
//
//	F   deny                                       -> FE -> FEL -> FI -> FIL -> return
//	I   deny, deny as if to the target of a port   -> IE -> IEL -> return
//	                      to a published port      -> PE -> PEL -> PI -> PIL -> return
//	O   deny                                       -> OI -> OIL -> return
//
// If a container's connection to a published port reaches the host itself, docker-proxy takes it
// on. It reaches the other container as a connection of the host. So P asks what F would ask if
// the connection went straight to that container. Without published ports there is no P
// (World.Unpublished).
//
// A stage or guardrails with many rules have more chains: see parted.

// route is a path as the builder sees it: Input has two.
type route uint8

const (
	toContainer route = iota // Forward
	toHost                   // Input
	toPublished              // Input, to a published port
	fromHost                 // Output
)

func (r route) code() string {
	return [...]string{codeForward, codeInput, codePublished, codeOutput}[r]
}

// stages gives the stages of a route after the guardrails, the last one first.
func (r route) stages() []Stage {
	switch r {
	case toHost:
		return []Stage{LabelEgress, FileEgress}
	case fromHost:
		return []Stage{LabelIngress, FileIngress}
	}
	return []Stage{LabelIngress, FileIngress, LabelEgress, FileEgress}
}

func (s Stage) direction() Direction {
	if s == FileIngress || s == LabelIngress {
		return Ingress
	}
	return Egress
}

// chains gives all chains, and the entry of each path.
func (b *builder) chains() (all []Chain, entry [3]string) {
	first := map[route]string{}
	for _, r := range []route{toContainer, toHost, toPublished, fromHost} {
		if r == toPublished && b.unpublished {
			continue
		}
		next := "" // return
		for _, s := range r.stages() {
			all = append(all, b.stage(r, s, next)...)
			next = all[len(all)-1].Name
		}
		first[r] = next
	}
	input, onward := b.guardrails(toHost), []Rule{goOn(first[toHost], Guardrail)}
	if !b.unpublished {
		published := goOn(first[toPublished], Guardrail)
		published.Sets = []SetMatch{{Set: b.publishedSet(), Side: Dst}}
		input, onward = append(input, b.guardrails(toPublished)...), []Rule{published, onward[0]}
	}
	enter := func(path Path, code string, rules []Rule, last ...Rule) {
		all = append(all, b.parted(code, Guardrail, nil, rules, last)...)
		entry[path] = all[len(all)-1].Name
	}
	enter(Forward, codeForward, b.guardrails(toContainer), goOn(first[toContainer], Guardrail))
	enter(Input, codeInput, input, onward...)
	enter(Output, codeOutput, b.guardrails(fromHost), goOn(first[fromHost], Guardrail))
	return all, entry
}

// goOn leads to the next stage, or back if there is none.
func goOn(next string, s Stage) Rule {
	r := Rule{ICMPType: AnyICMPType, Verdict: Return, Origin: Origin{Stage: s}}
	if next != "" {
		r.Verdict, r.Goto = Goto, next
	}
	return r
}

// stage makes the chains of a stage. The last one is the chain to enter. It leads past the stage
// if the stage does not close the endpoint, and on to the next stage for what a policy allows. It
// drops all else.
func (b *builder) stage(r route, s Stage, next string) []Chain {
	past := goOn(next, s)
	side := Src
	if s.direction() == Ingress {
		side = Dst
	}
	isolated := b.isolatedSet
	if r == toPublished && side == Dst {
		isolated = b.isolatedPorts
	}
	past.Sets = []SetMatch{{Set: isolated(s), Side: side, Not: true}}
	count := 0
	for _, p := range b.rules[s] {
		for i := range p.rules {
			count += len(p.rules[i].peers) * max(1, len(p.rules[i].matches[b.family]))
		}
	}
	rules := make([]Rule, 0, count)
	for _, p := range b.rules[s] {
		for i := range p.rules {
			allow := goOn(next, s)
			allow.Origin = Origin{s, p.policy, s.direction(), i}
			rules = b.expand(rules, r, s, p.group, &p.rules[i], allow)
		}
	}
	drop := Rule{ICMPType: AnyICMPType, Verdict: Drop, Origin: Origin{Stage: s, Direction: s.direction()}}
	return b.parted(r.code()+stageName(s), s, []Rule{past}, rules, []Rule{drop})
}

func stageName(s Stage) string {
	return [...]string{"", codeEgress, codeEgressLabel, codeIngress, codeIngressLabel}[s]
}

func (b *builder) guardrails(r route) []Rule {
	var all []Rule
	for i := range b.denies {
		d := &b.denies[i]
		if r == toHost && d.direction == Ingress || r == fromHost && d.direction == Egress {
			continue
		}
		drop := Rule{ICMPType: AnyICMPType, Verdict: Drop, Origin: Origin{Guardrail, d.policy, d.direction, d.index}}
		all = b.expand(all, r, Guardrail, d.group, &d.rule, drop)
	}
	return all
}

// expand adds the rules of a route for one rule of a policy: its peers times
// its ports, as far as the route and the family have them.
func (b *builder) expand(all []Rule, r route, s Stage, g *group, of *readyRule, like Rule) []Rule {
	matches := of.matches[b.family]
	if r == toPublished { // the sets of published ports cover the ports
		matches = everyPort
	}
	if len(matches) == 0 {
		return all
	}
	for i := range of.peers {
		sets, ok := b.ends(r, s, like.Origin.Direction, g, &of.peers[i], of)
		if !ok {
			continue
		}
		if of.except != nil {
			sets = append(sets, SetMatch{Set: b.exceptSet(of.except), Side: Dst, Not: true})
		}
		for _, m := range matches {
			rule := like
			rule.Sets, rule.Proto, rule.Ports, rule.ICMPType = sets, m.proto, m.ranges, m.icmp
			all = append(all, rule)
		}
	}
	return all
}
