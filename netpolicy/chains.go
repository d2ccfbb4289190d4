package netpolicy

// The way of a packet, for a family. Every stage but the first of a path starts
// with the way past it for whom it does not close, and ends with Drop.
//
//	F   deny                                       -> FE -> FEL -> FI -> FIL -> return
//	I   deny, deny as if to the target of a port   -> IE -> IEL -> return
//	                      to a published port      -> PE -> PEL -> PI -> PIL -> return
//	O   deny                                       -> OI -> OIL -> return
//
// A container's connection to a published port that reaches the host itself is
// taken on by docker-proxy, and arrives as the host's own: P therefore asks what
// F would have asked, had it gone straight to the container.

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

// stages gives the stages of a route after the guardrails, last first.
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

func (b *builder) chains() []Chain {
	var all []Chain
	first := map[route]string{}
	for _, r := range []route{toContainer, toHost, toPublished, fromHost} {
		next := "" // return
		for _, s := range r.stages() {
			c := b.stage(r, s, next)
			all = append(all, c)
			next = c.Name
		}
		first[r] = next
	}
	forward := append(b.guardrails(toContainer), goOn(first[toContainer], Guardrail))
	input := append(b.guardrails(toHost), b.guardrails(toPublished)...)
	input = append(input,
		Rule{Sets: []SetMatch{{Set: b.publishedSet(), Side: Dst}}, ICMPType: AnyICMPType, Verdict: Goto, Goto: first[toPublished]},
		goOn(first[toHost], Guardrail))
	output := append(b.guardrails(fromHost), goOn(first[fromHost], Guardrail))
	return append(all,
		Chain{b.chain(codeForward, ""), forward},
		Chain{b.chain(codeInput, ""), input},
		Chain{b.chain(codeOutput, ""), output})
}

// goOn leads to the next stage, or back if there is none.
func goOn(next string, s Stage) Rule {
	r := Rule{ICMPType: AnyICMPType, Verdict: Return, Origin: Origin{Stage: s}}
	if next != "" {
		r.Verdict, r.Goto = Goto, next
	}
	return r
}

// stage makes the chain of a stage: past it if it does not close the endpoint,
// on to the next for what a policy allows, and nothing else.
func (b *builder) stage(r route, s Stage, next string) Chain {
	c := Chain{Name: chainName(r.code(), stageName(s), b.generation)}
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
	c.Rules = append(c.Rules, past)
	for _, p := range b.rules[s] {
		for i, rule := range p.rules {
			allow := goOn(next, s)
			allow.Origin = Origin{s, p.policy, s.direction(), i}
			c.Rules = append(c.Rules, b.expand(r, s, p.group, rule, allow)...)
		}
	}
	c.Rules = append(c.Rules, Rule{ICMPType: AnyICMPType, Verdict: Drop, Origin: Origin{Stage: s, Direction: s.direction()}})
	return c
}

func stageName(s Stage) string {
	return [...]string{"", codeEgress, codeEgressLabel, codeIngress, codeIngressLabel}[s]
}

func (b *builder) guardrails(r route) []Rule {
	var all []Rule
	for _, d := range b.denies {
		if r == toHost && d.direction == Ingress || r == fromHost && d.direction == Egress {
			continue
		}
		drop := Rule{ICMPType: AnyICMPType, Verdict: Drop, Origin: Origin{Guardrail, d.policy, d.direction, d.index}}
		all = append(all, b.expand(r, Guardrail, d.group, d.rule, drop)...)
	}
	return all
}

// expand makes the rules of a route for one rule of a policy: its peers times
// its ports, as far as the route and the family have them.
func (b *builder) expand(r route, s Stage, g group, of rule, like Rule) []Rule {
	var all []Rule
	matches := of.ports.matches(b.ipv6)
	if r == toPublished { // the sets of ports know
		matches = ports(nil).matches(b.ipv6)
	}
	if len(matches) == 0 {
		return nil
	}
	for _, p := range of.everyone() {
		sets, ok := b.ends(r, s, like.Origin.Direction, g, p, of.ports)
		if !ok {
			continue
		}
		for _, m := range matches {
			rule := like
			rule.Sets, rule.Proto, rule.Ports, rule.ICMPType = sets, m.proto, m.ranges, m.icmp
			all = append(all, rule)
		}
	}
	return all
}
