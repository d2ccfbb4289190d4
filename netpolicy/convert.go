package netpolicy

import (
	"net/netip"
	"slices"
	"strings"
)

// convert makes the typed policy of a document. It is valid if no fault was
// found.
func (d *decoder) convert(r rawPolicy) Policy {
	p := Policy{at: r.at, description: r.description.Text}
	p.name = d.policyName(r)
	if len(p.description) > maxText {
		d.Fault(r.description.At, "description is %d bytes long: at most %d are read", len(p.description), maxText)
	}
	if r.sel.at.Line == 0 && !r.stray {
		d.Fault(r.at, "policy %s does not say whom it is about: add select, {} is every container", quoted(p.name))
	}
	if r.sel.project.Text == "*" {
		d.Fault(r.sel.project.At, "select.project is %q: leave it out for every project", "*")
	}
	p.sel = d.toSelector(r.sel, "")
	d.selectedEntity(r.sel, &p.sel)
	p.sel.text = p.sel.String()
	home := p.sel.project
	if r.rules[Ingress].at.Line+r.rules[Egress].at.Line+r.denyAt.Line == 0 && !r.stray {
		d.Fault(r.at, "policy %s does nothing: add ingress, egress or deny", quoted(p.name))
	}
	total := 0
	for _, dir := range Directions {
		p.isolates[dir] = r.rules[dir].at.Line != 0
		for _, raw := range r.rules[dir].list {
			p.rules[dir] = append(p.rules[dir], d.toRule(raw, home))
		}
		total += cost(p.rules[dir])
	}
	for _, raw := range r.deny {
		dn := deny{d.toRule(raw.rule, home), raw.direction, raw.index}
		p.deny = append(p.deny, dn)
		total += cost([]rule{dn.rule})
	}
	if total > maxFileCost {
		d.Fault(r.at, "policy %s becomes %d rules (peers times ports): at most %d are made of one", quoted(p.name), total, maxFileCost)
	}
	return p
}

func quoted(name string) string {
	if name == "" {
		return "without a name"
	}
	return `"` + clip(name) + `"`
}

func (d *decoder) policyName(r rawPolicy) string {
	name := r.name.Text
	switch {
	case !r.named:
		d.Fault(r.at, "the policy has no name: add name, it stands in status, logs and explanations")
	case !r.name.Set():
	case name == "" || len(name) > maxPolicyName:
		d.Fault(r.name.At, "name is %d bytes long: write from 1 to %d", len(name), maxPolicyName)
	case strings.IndexFunc(name, func(c rune) bool { return !nameRune(c) }) >= 0 || strings.ContainsAny(name[:1], "._-"):
		d.Fault(r.name.At, "name %q: write letters, digits, and . _ - between them", clip(name))
	}
	return name
}

// toSelector makes a selector. If no project is written, the project is home. "*" is any project,
// or none.
func (d *decoder) toSelector(r rawSelector, home string) Selector {
	s := Selector{project: home}
	for _, w := range []struct {
		word
		to    *string
		check func(string) error
	}{
		{r.project, &s.project, checkName}, {r.service, &s.service, checkName},
		{r.container, &s.container, checkGlob}, {r.network, &s.network, checkName},
	} {
		if !w.Set() {
			continue
		}
		if w.to == &s.project && w.Text == "*" {
			s.project = ""
			continue
		}
		if w.to == &s.container && w.Text == "" {
			d.Fault(w.At, "%s is empty: write a name or a pattern, or leave the key out", w.Key)
			continue
		}
		if err := w.check(w.Text); err != nil {
			d.Fault(w.At, "%s: %v", w.Key, err)
			continue
		}
		*w.to = w.Text
	}
	for _, l := range r.labels {
		s.labels = append(s.labels, d.toLabel(l))
	}
	slices.SortFunc(s.labels, func(a, b labelMatch) int { return strings.Compare(a.key, b.key) })
	return s
}

func (d *decoder) toLabel(l rawLabel) labelMatch {
	switch {
	case l.key.Text == "":
		d.Fault(l.key.At, "%s: a label without a name", l.key.Key)
	case len(l.key.Text) > maxLabelKey:
		d.Fault(l.key.At, "%s: the name of a label is %d bytes long: at most %d are read", l.key.Key, len(l.key.Text), maxLabelKey)
	case len(l.value.Text) > maxLabelValue:
		d.Fault(l.value.At, "%s is %d bytes long: at most %d are read", l.value.Key, len(l.value.Text), maxLabelValue)
	case l.value.Text != "*" && strings.Contains(l.value.Text, "*"):
		d.Fault(l.value.At, `%s is %q: a label's value is compared as it stands, only "*" alone means any`, l.value.Key, clip(l.value.Text))
	}
	if l.value.Text == "*" {
		return labelMatch{key: l.key.Text, present: true}
	}
	return labelMatch{key: l.key.Text, value: l.value.Text}
}

func (d *decoder) toRule(r rawRule, home string) rule {
	var out rule
	for _, p := range r.peers {
		out.peers = append(out.peers, d.toPeer(p, home))
	}
	out.peers = gathered(out.peers)
	var specs []portSpec
	for _, w := range r.ports {
		s, err := parsePort(w.Text)
		if err != nil {
			d.Fault(w.At, "%s is %v", w.Key, err)
			continue
		}
		specs = append(specs, s)
	}
	out.ports = newPorts(specs)
	out.text, out.matches = out.ports.String(), [2][]portMatch{out.ports.matches(false), out.ports.matches(true)}
	d.toExcept(r, &out)
	return out
}

// toExcept reads the ports that a deny leaves out: what a container may ask of the host.
func (d *decoder) toExcept(r rawRule, out *rule) {
	if r.exceptAt.Line == 0 {
		return
	}
	if len(out.peers) != 1 || out.peers[0].kind != peerHost || r.portsAt.Line != 0 {
		d.Fault(r.exceptAt, "%s.except_ports leaves ports out of all that a container may send to the host: write it beside to: [{entity: host}], without ports", r.key)
	}
	var specs []portSpec
	for _, w := range r.except {
		s, err := parsePort(w.Text)
		switch {
		case err != nil:
			d.Fault(w.At, "%s is %v", w.Key, err)
		case len(s.ranges) != 1 || s.ranges[0].First != s.ranges[0].Last:
			d.Fault(w.At, "%s is %q: name one port, such as udp/53", w.Key, clip(w.Text))
		default:
			specs = append(specs, s)
		}
	}
	out.except = newPorts(specs)
}

func (d *decoder) toPeer(r rawPeer, home string) peer {
	containers := r.project.Set() || r.service.Set() || r.container.Set() || r.network.Set() || len(r.labels) > 0
	kinds := 0
	for _, is := range []bool{containers, r.cidr.Set(), r.entity.Set()} {
		if is {
			kinds++
		}
	}
	if kinds > 1 {
		d.Fault(r.at, "%s names containers, a cidr or an entity, one of them: make each an item of its own", r.key)
	}
	if r.exceptAt.Line != 0 && !r.cidr.Set() {
		d.Fault(r.exceptAt, "%s has except without cidr: say what it is an exception from", r.key)
	}
	switch {
	case r.entity.Set():
		return d.toEntity(r.entity)
	case r.cidr.Set():
		return d.toCIDR(r)
	}
	s := d.toSelector(r.rawSelector, home)
	s.text = s.String()
	return peer{kind: peerContainers, sel: s}
}

// entityBuild names the steps of builds.
const entityBuild = "build"

// selectedEntity reads the entity that a policy is about. A policy can tell a build by its
// network, and by nothing else.
func (d *decoder) selectedEntity(r rawSelector, s *Selector) {
	if !r.entity.Set() {
		return
	}
	if r.entity.Text != entityBuild {
		d.Fault(r.entity.At, "%s is %q: build, the steps of image builds, is all that a policy can select by it", r.entity.Key, clip(r.entity.Text))
	}
	for _, w := range []word{r.project, r.service, r.container} {
		if w.Set() {
			d.Fault(w.At, "%s: a build has no project, service, name or label: leave it out", w.Key)
		}
	}
	if len(r.labels) > 0 {
		d.Fault(r.labels[0].key.At, "%s: a build has no project, service, name or label: leave it out", r.labels[0].key.Key)
	}
	s.build = true
}

func (d *decoder) toEntity(w word) peer {
	if w.Text == entityBuild {
		return peer{kind: peerContainers, sel: Selector{build: true}}
	}
	names := []string{entityBuild}
	for _, e := range entities {
		if e.name == w.Text {
			return peer{kind: e.kind}
		}
		names = append(names, e.name)
	}
	if near := Nearest(w.Text, names); near != "" {
		d.Fault(w.At, "%s is %q: did you mean %s?", w.Key, clip(w.Text), near)
	} else {
		d.Fault(w.At, "%s is %q: it is host, external (neither a container nor the host), build (steps of image builds) or any", w.Key, clip(w.Text))
	}
	return peer{}
}

func (d *decoder) toCIDR(r rawPeer) peer {
	prefix, err := parsePrefix(r.cidr.Text)
	if err != nil {
		d.Fault(r.cidr.At, "%s is %v", r.cidr.Key, err)
	}
	var except []netip.Prefix
	for _, w := range r.except {
		e, err2 := parsePrefix(w.Text)
		switch {
		case err2 != nil:
			d.Fault(w.At, "%s is %v", w.Key, err2)
		case err != nil:
		case e == prefix:
			d.Fault(w.At, "%s is all of %s: nothing would be left", w.Key, prefix)
		case e.Bits() < prefix.Bits() || !prefix.Overlaps(e):
			d.Fault(w.At, "%s is %s, which is not inside of %s", w.Key, e, prefix)
		default:
			except = append(except, e)
		}
	}
	if err != nil {
		return peer{}
	}
	c := newCIDR(prefix, except)
	if len(c.prefixes) == 0 {
		d.Fault(r.exceptAt, "%s: the exceptions leave nothing of %s", r.key, prefix)
	}
	return peer{kind: peerNet, nets: newNets([]cidr{c})}
}
