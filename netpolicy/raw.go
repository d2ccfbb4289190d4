package netpolicy

import (
	"slices"

	"go.yaml.in/yaml/v4"

	"netguard/internal/strictyaml"
)

// rawPolicy mirrors one document of a file. A part with a zero Place was not written.
type rawPolicy struct {
	at                Place
	name, description word
	sel               rawSelector
	rules             [2]rawRules // by Direction
	deny              []rawDeny
	denyAt            Place
	mapping           bool // the document is a mapping; if not, nothing of it was read
	named             bool
	stray             bool // a key is unknown, and may be a misspelt key of a policy
	// selectRead says that select was read without a fault, so that sel is complete.
	selectRead bool
}

type rawSelector struct {
	at                                   Place
	project, service, container, network word
	entity                               word
	labels                               []rawLabel
}

type rawLabel struct{ key, value word }

type rawRules struct {
	at   Place // of the list, empty or not
	list []rawRule
}

type rawRule struct {
	key     string
	at      Place
	peersAt Place
	peers   []rawPeer
	portsAt Place
	ports   []word
	// exceptAt is where ports are left out of a deny, zero for nowhere.
	exceptAt Place
	except   []word
}

type rawPeer struct {
	rawSelector
	key      string
	cidr     word
	exceptAt Place
	except   []word
}

type rawDeny struct {
	direction Direction
	index     int
	rule      rawRule
}

var policyKeys = []string{"name", "description", "select", "ingress", "egress", "deny"}

func (d *decoder) policy(n *node) rawPolicy {
	p := rawPolicy{at: d.Place(n), named: times(n, "name") > 0}
	p.mapping = d.Mapping(n, wholePolicy,
		d.Field("name", d.Scalar(&p.name)),
		d.Field("description", d.Scalar(&p.description)),
		d.Field("select", func(n *node, key string) {
			before := d.Total
			p.sel.at = d.Place(n)
			if strictyaml.Empty(n) {
				d.Fault(d.Place(n), "select has no value: write select: {} for every container")
			} else {
				d.Mapping(n, key, d.selector(n, &p.sel)...)
			}
			p.selectRead = d.Total == before
		}),
		d.Field("ingress", d.rules(&p.rules[Ingress], Ingress)),
		d.Field("egress", d.rules(&p.rules[Egress], Egress)),
		d.Field("deny", func(n *node, key string) { p.denyAt = d.Place(n); d.denies(n, key, &p.deny) }),
	)
	for i := 0; i+1 < len(n.Content) && p.mapping; i += 2 {
		p.stray = p.stray || !slices.Contains(policyKeys, n.Content[i].Value)
	}
	if times(n, "select") != 1 {
		p.selectRead = false
	}
	return p
}

func times(n *node, key string) int {
	count := 0
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			count++
		}
	}
	return count
}

func (d *decoder) selector(n *node, s *rawSelector) []field {
	s.at = d.Place(n)
	return []field{
		d.Field("project", d.Scalar(&s.project)),
		d.Field("service", d.Scalar(&s.service)),
		d.Field("container", d.Scalar(&s.container)),
		d.Field("network", d.Scalar(&s.network)),
		d.Field("entity", d.Scalar(&s.entity)),
		d.Field("labels", d.labels(&s.labels)),
	}
}

func (d *decoder) labels(labels *[]rawLabel) func(*node, string) {
	return func(n *node, key string) {
		switch {
		case n.Kind != yaml.MappingNode:
			d.Fault(d.Place(n), "%s is %s: it is a mapping of labels to values, such as {tier: data}", key, d.Describe(n))
			return
		case len(n.Content) == 0:
			d.Fault(d.Place(n), "%s names no label: name one, or leave the key out", key)
			return
		case len(n.Content)/2 > maxLabels:
			d.Fault(d.Place(n), "%s has %d keys: at most %d are read", key, len(n.Content)/2, maxLabels)
			return
		}
		for k, v := range d.Keys(n, key, nil) {
			l := rawLabel{key: word{Key: key, Text: k.Value, At: d.Place(k)}}
			if strictyaml.Empty(v) {
				d.Fault(d.Place(v), `%s has no value for %q: write one, or "*" for any`, key, clip(k.Value))
				continue
			}
			d.Scalar(&l.value)(v, key+"."+clip(k.Value))
			*labels = append(*labels, l)
		}
	}
}

func (d *decoder) rules(rules *rawRules, direction Direction) func(*node, string) {
	return func(n *node, key string) {
		rules.at = d.Place(n)
		if strictyaml.Empty(n) {
			d.Fault(rules.at, "%s has no value: write [] to allow nothing, or leave the key out", key)
			return
		}
		d.Items(n, key, maxRules, func(n *node, key string) {
			rules.list = append(rules.list, d.rule(n, key, direction, false))
		})
	}
}

// peersKey is what a rule of a direction calls its peers.
func peersKey(direction Direction) string {
	if direction == Ingress {
		return "from"
	}
	return "to"
}

func (d *decoder) rule(n *node, key string, direction Direction, denies bool) rawRule {
	r := rawRule{key: key, at: d.Place(n)}
	who := peersKey(direction)
	fields := []field{
		d.Field(who, func(n *node, key string) {
			r.peersAt = d.Place(n)
			if d.filled(n, key, "leave it out for everyone") {
				d.Items(n, key, maxPeers, func(n *node, key string) { r.peers = append(r.peers, d.peer(n, key)) })
			}
		}),
		d.Field("ports", func(n *node, key string) {
			r.portsAt = d.Place(n)
			if d.filled(n, key, "leave it out for every port") {
				d.Words(n, key, maxPorts, &r.ports)
			}
		}),
	}
	if denies && direction == Egress {
		fields = append(fields, d.Field("except_ports", func(n *node, key string) {
			r.exceptAt = d.Place(n)
			if d.filled(n, key, "leave it out") {
				d.Words(n, key, maxPorts, &r.except)
			}
		}))
	}
	d.Mapping(n, key, fields...)
	return r
}

// filled refuses an empty list. Some people would read it as everything, others as nothing.
func (d *decoder) filled(n *node, key, remedy string) bool {
	if strictyaml.Empty(n) || n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.Fault(d.Place(n), "%s is empty: %s", key, remedy)
		return false
	}
	return true
}

func (d *decoder) peer(n *node, key string) rawPeer {
	p := rawPeer{key: key}
	d.Mapping(n, key, append(d.selector(n, &p.rawSelector),
		d.Field("cidr", d.Scalar(&p.cidr)),
		d.Field("except", func(n *node, key string) {
			p.exceptAt = d.Place(n)
			if d.filled(n, key, "leave it out") {
				d.Words(n, key, maxExcept, &p.except)
			}
		}),
	)...)
	return p
}

func (d *decoder) denies(n *node, key string, list *[]rawDeny) {
	index := -1
	d.Items(n, key, maxRules, func(n *node, key string) {
		index++
		item := func(direction Direction) func(*node, string) {
			return func(n *node, key string) {
				*list = append(*list, rawDeny{direction, index, d.rule(n, key, direction, true)})
			}
		}
		if d.Mapping(n, key, d.Field("ingress", item(Ingress)), d.Field("egress", item(Egress))) && len(n.Content) == 0 {
			d.Fault(d.Place(n), "%s denies nothing: write egress or ingress under it", key)
		}
	})
}
