package config

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"netguard/netpolicy"
)

// maxFaults bounds the list for a file that is not a configuration at all.
const maxFaults = 50

// word is a scalar of the file with its place. One without a place was not
// written.
type word struct {
	key  string // as the operator knows it: limits.max.egress
	text string
	at   Place
}

func (w word) set() bool { return w.at.Line != 0 }

// raw mirrors the file.
type raw struct {
	exclude     []word
	unguarded   []word
	admission   word
	storm       word
	connections word
	claims      []word
	defaults    rawRates
	max         rawRates
	allowOptOut word
	socket      word
	metrics     word
	dockerHost  word
	policyDir   word
	logLevel    word
	logFormat   word
}

type rawRates struct{ ingress, egress word }

// field is a key of a mapping and what reads its value.
type field struct {
	name string
	read func(n *yaml.Node, key string)
}

func (r *raw) fields(d *decoder) []field {
	return []field{
		{"networks", d.mapping(
			field{"exclude", d.list(&r.exclude)},
			field{"unguarded", d.list(&r.unguarded)},
		)},
		{"admission", d.scalar(&r.admission)},
		{"guard", d.mapping(
			field{"storm", d.scalar(&r.storm)},
			field{"connections", d.scalar(&r.connections)},
			field{"allow", d.list(&r.claims)},
		)},
		{"limits", d.mapping(
			field{"default", d.rates(&r.defaults)},
			field{"max", d.rates(&r.max)},
		)},
		{"allow_opt_out", d.scalar(&r.allowOptOut)},
		{"socket", d.scalar(&r.socket)},
		{"metrics", d.scalar(&r.metrics)},
		{"docker_host", d.scalar(&r.dockerHost)},
		{"policy_dir", d.scalar(&r.policyDir)},
		{"log", d.mapping(
			field{"level", d.scalar(&r.logLevel)},
			field{"format", d.scalar(&r.logFormat)},
		)},
	}
}

// decoder walks the nodes of one file and gathers its faults.
type decoder struct {
	file   string
	faults Faults
}

func (d *decoder) fault(at Place, format string, args ...any) {
	if len(d.faults) < maxFaults {
		d.faults = append(d.faults, Fault{Place: at, Text: fmt.Sprintf(format, args...)})
	}
}

func (d *decoder) place(n *yaml.Node) Place {
	return Place{File: d.file, Line: max(n.Line, 1), Column: max(n.Column, 1)}
}

// document gives the root of the only document, or nil for an empty file.
func (d *decoder) document(r io.Reader) *yaml.Node {
	loader, err := yaml.NewLoader(r)
	if err != nil {
		d.syntax(err)
		return nil
	}
	var doc, more yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		d.syntax(err)
		return nil
	}
	switch err := loader.Load(&more); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.syntax(err)
	default:
		d.fault(d.place(&more), "a second document starts here: the configuration is one document, remove the line ---")
	}
	if len(doc.Content) == 0 {
		return nil
	}
	return doc.Content[0]
}

func (d *decoder) syntax(err error) {
	at, text := Place{File: d.file, Line: 1, Column: 1}, err.Error()
	if le, ok := errors.AsType[*yaml.LoadError](err); ok {
		text = le.Message
		if le.Mark.Line > 0 {
			at.Line, at.Column = le.Mark.Line, max(le.Mark.Column, 1)
		}
	}
	d.fault(at, "this is not YAML: %s", text)
}

// mapping reads a mapping that has just these keys.
func (d *decoder) mapping(fields ...field) func(*yaml.Node, string) {
	return func(n *yaml.Node, key string) { d.fill(n, key, fields) }
}

func (d *decoder) fill(n *yaml.Node, prefix string, fields []field) {
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].name
	}
	if empty(n) {
		return // a heading whose keys are all commented out
	}
	if n.Kind != yaml.MappingNode {
		what := "the configuration"
		if prefix != "" {
			what = prefix
		}
		d.fault(d.place(n), "%s is %s: it is a mapping with the keys %s", what, describe(n), strings.Join(names, ", "))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at := d.place(k)
		if k.Kind != yaml.ScalarNode {
			d.fault(at, "a key is %s: keys are words (%s)", describe(k), strings.Join(names, ", "))
			continue
		}
		if line, ok := seen[k.Value]; ok {
			d.fault(at, "the key %q is there twice, first in line %d: keep one", join(prefix, clip(k.Value)), line)
			continue
		}
		seen[k.Value] = at.Line
		j := slices.Index(names, k.Value)
		if j < 0 {
			d.unknown(at, prefix, k.Value, names)
			continue
		}
		fields[j].read(v, join(prefix, k.Value))
	}
}

func (d *decoder) unknown(at Place, prefix, name string, names []string) {
	where := "at the top"
	if prefix != "" {
		where = "under " + prefix
	}
	if near := netpolicy.Nearest(name, names); near != "" {
		d.fault(at, "there is no key %q %s: did you mean %s?", clip(name), where, near)
		return
	}
	d.fault(at, "there is no key %q %s: the keys are %s", clip(name), where, strings.Join(names, ", "))
}

func (d *decoder) rates(r *rawRates) func(*yaml.Node, string) {
	return d.mapping(field{"ingress", d.scalar(&r.ingress)}, field{"egress", d.scalar(&r.egress)})
}

func (d *decoder) scalar(w *word) func(*yaml.Node, string) {
	return func(n *yaml.Node, key string) {
		if empty(n) {
			d.fault(d.place(n), "%s has no value: give it one, or leave the key out for the default", key)
			return
		}
		if n.Kind != yaml.ScalarNode {
			d.fault(d.place(n), "%s is %s: it takes a single value", key, describe(n))
			return
		}
		*w = word{key: key, text: n.Value, at: d.place(n)}
	}
}

func (d *decoder) list(words *[]word) func(*yaml.Node, string) {
	return func(n *yaml.Node, key string) {
		if empty(n) {
			return
		}
		if n.Kind != yaml.SequenceNode {
			d.fault(d.place(n), "%s is %s: it is a list, write [a, b]", key, describe(n))
			return
		}
		for i, item := range n.Content {
			var w word
			d.scalar(&w)(item, fmt.Sprintf("%s[%d]", key, i))
			if w.set() {
				*words = append(*words, w)
			}
		}
	}
}

// empty tells a key with nothing after it from one with "" after it.
func empty(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.ScalarNode:
		return fmt.Sprintf("%q", clip(n.Value))
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping"
	case yaml.AliasNode:
		return fmt.Sprintf("the alias %q, which is not read here", "*"+clip(n.Value))
	}
	return "something else"
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}

// clip keeps a value from filling a log line.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
