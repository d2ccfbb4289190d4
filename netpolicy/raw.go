package netpolicy

import (
	"slices"

	"go.yaml.in/yaml/v4"
)

// rawPolicy mirrors one document of a file. What has no place was not written.
type rawPolicy struct {
	at                Place
	name, description word
	sel               rawSelector
	rules             [2]rawRules // by Direction
	deny              []rawDeny
	denyAt            Place
	mapping           bool // else nothing of it was read
	named             bool
	stray             bool // a key is not one of a policy's, and may have been meant for one
	// selectRead says that sel is all that select says, without a fault.
	selectRead bool
}

type rawSelector struct {
	at                                   Place
	project, service, container, network word
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
}

type rawPeer struct {
	rawSelector
	key      string
	cidr     word
	exceptAt Place
	except   []word
	entity   word
}

type rawDeny struct {
	direction Direction
	index     int
	rule      rawRule
}

var policyKeys = []string{"name", "description", "select", "ingress", "egress", "deny"}

func (d *decoder) policy(n *node) rawPolicy {
	p := rawPolicy{at: d.place(n), named: times(n, "name") > 0}
	p.mapping = d.mapping(n, wholePolicy,
		field{"name", d.scalar(&p.name)},
		field{"description", d.scalar(&p.description)},
		field{"select", func(n *node, key string) {
			before := d.total
			p.sel.at = d.place(n)
			if empty(n) {
				d.fault(d.place(n), "select has no value: write select: {} for every container")
			} else {
				d.mapping(n, key, d.selector(n, &p.sel)...)
			}
			p.selectRead = d.total == before
		}},
		field{"ingress", d.rules(&p.rules[Ingress], Ingress)},
		field{"egress", d.rules(&p.rules[Egress], Egress)},
		field{"deny", func(n *node, key string) { p.denyAt = d.place(n); d.denies(n, key, &p.deny) }},
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
	s.at = d.place(n)
	return []field{
		{"project", d.scalar(&s.project)},
		{"service", d.scalar(&s.service)},
		{"container", d.scalar(&s.container)},
		{"network", d.scalar(&s.network)},
		{"labels", d.labels(&s.labels)},
	}
}

func (d *decoder) labels(labels *[]rawLabel) func(*node, string) {
	return func(n *node, key string) {
		switch {
		case n.Kind != yaml.MappingNode:
			d.fault(d.place(n), "%s is %s: it is a mapping of labels to values, such as {tier: data}", key, describe(n))
			return
		case len(n.Content) == 0:
			d.fault(d.place(n), "%s names no label: name one, or leave the key out", key)
			return
		case len(n.Content)/2 > maxLabels:
			d.fault(d.place(n), "%s has %d keys: at most %d are read", key, len(n.Content)/2, maxLabels)
			return
		}
		seen := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			if !d.once(k, key, seen) {
				continue
			}
			l := rawLabel{key: word{key, k.Value, d.place(k)}}
			if empty(v) {
				d.fault(d.place(v), `%s has no value for %q: write one, or "*" for any`, key, clip(k.Value))
				continue
			}
			d.scalar(&l.value)(v, key+"."+clip(k.Value))
			*labels = append(*labels, l)
		}
	}
}

func (d *decoder) rules(rules *rawRules, direction Direction) func(*node, string) {
	return func(n *node, key string) {
		rules.at = d.place(n)
		if empty(n) {
			d.fault(rules.at, "%s has no value: write [] to allow nothing, or leave the key out", key)
			return
		}
		d.items(n, key, maxRules, func(n *node, key string) {
			rules.list = append(rules.list, d.rule(n, key, direction))
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

func (d *decoder) rule(n *node, key string, direction Direction) rawRule {
	r := rawRule{key: key, at: d.place(n)}
	who := peersKey(direction)
	d.mapping(n, key,
		field{who, func(n *node, key string) {
			r.peersAt = d.place(n)
			if d.filled(n, key, "leave it out for everyone") {
				d.items(n, key, maxPeers, func(n *node, key string) { r.peers = append(r.peers, d.peer(n, key)) })
			}
		}},
		field{"ports", func(n *node, key string) {
			r.portsAt = d.place(n)
			if d.filled(n, key, "leave it out for every port") {
				d.items(n, key, maxPorts, func(n *node, key string) {
					var w word
					d.scalar(&w)(n, key)
					if w.set() {
						r.ports = append(r.ports, w)
					}
				})
			}
		}},
	)
	return r
}

// filled refuses a list without items where having none would be read as all by
// some and as nothing by others.
func (d *decoder) filled(n *node, key, remedy string) bool {
	if empty(n) || n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.fault(d.place(n), "%s is empty: %s", key, remedy)
		return false
	}
	return true
}

func (d *decoder) peer(n *node, key string) rawPeer {
	p := rawPeer{key: key}
	d.mapping(n, key, append(d.selector(n, &p.rawSelector),
		field{"cidr", d.scalar(&p.cidr)},
		field{"except", func(n *node, key string) {
			p.exceptAt = d.place(n)
			if d.filled(n, key, "leave it out") {
				d.items(n, key, maxExcept, func(n *node, key string) {
					var w word
					d.scalar(&w)(n, key)
					if w.set() {
						p.except = append(p.except, w)
					}
				})
			}
		}},
		field{"entity", d.scalar(&p.entity)},
	)...)
	return p
}

func (d *decoder) denies(n *node, key string, list *[]rawDeny) {
	index := -1
	d.items(n, key, maxRules, func(n *node, key string) {
		index++
		item := func(direction Direction) func(*node, string) {
			return func(n *node, key string) {
				*list = append(*list, rawDeny{direction, index, d.rule(n, key, direction)})
			}
		}
		if d.mapping(n, key, field{"ingress", item(Ingress)}, field{"egress", item(Egress)}) && len(n.Content) == 0 {
			d.fault(d.place(n), "%s denies nothing: write egress or ingress under it", key)
		}
	})
}
