package netpolicy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

type node = yaml.Node

// word is a scalar of the text with its place. One without a place was not
// written.
type word struct {
	key  string // as people know it: ingress[0].from[1].cidr
	text string
	at   Place
}

func (w word) set() bool { return w.at.Line != 0 }

// field is a key of a mapping and what reads its value.
type field struct {
	name string
	read func(n *node, key string)
}

// decoder walks the nodes of one text and gathers its faults.
type decoder struct {
	file   string
	faults Faults
	total  int // faults, those beyond the bound included
}

func (d *decoder) fault(at Place, format string, args ...any) {
	d.total++
	if len(d.faults) < maxFaults {
		d.faults = append(d.faults, Fault{Place: at, Text: fmt.Sprintf(format, args...)})
	}
}

func (d *decoder) place(n *node) Place {
	return Place{File: d.file, Line: max(n.Line, 1), Column: max(n.Column, 1)}
}

// documents gives the roots of a text, up to the first that is not YAML.
// Documents without anything in them are left out. whole says that the text was
// read to its end.
func (d *decoder) documents(data []byte, most int) (roots []*node, whole bool) {
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		d.syntax(err)
		return nil, false
	}
	for {
		var doc yaml.Node
		switch err := loader.Load(&doc); {
		case errors.Is(err, io.EOF):
			return roots, true
		case err != nil:
			d.syntax(err)
			return roots, false
		}
		if len(doc.Content) == 0 || empty(doc.Content[0]) {
			continue
		}
		if len(roots) == most {
			d.fault(d.place(doc.Content[0]), "there are more than %d documents: only so many are read, part the file", most)
			return roots, false
		}
		d.plain(doc.Content[0])
		roots = append(roots, doc.Content[0])
	}
}

func (d *decoder) syntax(err error) {
	at, text := Place{File: d.file, Line: 1, Column: 1}, err.Error()
	if le, ok := errors.AsType[*yaml.LoadError](err); ok {
		text = le.Message
		if le.Mark.Line > 0 {
			at.Line, at.Column = le.Mark.Line, max(le.Mark.Column, 1)
		}
	}
	d.fault(at, "this is not YAML: %s", clip(text))
}

// plain refuses the parts of YAML with which a text says other than what it
// shows. An alias is refused where it stands for a value.
func (d *decoder) plain(n *node) {
	if n.Anchor != "" {
		d.fault(d.place(n), "the anchor %q is not read here: write the value out where it is needed", "&"+clip(n.Anchor))
	}
	if n.Style&yaml.TaggedStyle != 0 {
		d.fault(d.place(n), "the tag %q is not read here: leave it out", clip(n.Tag))
	}
	for _, c := range n.Content {
		d.plain(c)
	}
}

// mapping reads a mapping that has just these keys. It tells whether n is one.
func (d *decoder) mapping(n *node, key string, fields ...field) bool {
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].name
	}
	if n.Kind != yaml.MappingNode {
		d.fault(d.place(n), "%s is %s: it is a mapping with the keys %s", key, describe(n), strings.Join(names, ", "))
		return false
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if !d.once(k, key, seen) {
			continue
		}
		if j := slices.Index(names, k.Value); j >= 0 {
			fields[j].read(v, join(key, k.Value))
			continue
		}
		d.unknown(d.place(k), key, k.Value, names)
	}
	return true
}

// once refuses a key that is no word, or that was there before.
func (d *decoder) once(k *node, key string, seen map[string]int) bool {
	if k.Kind != yaml.ScalarNode {
		d.fault(d.place(k), "a key of %s is %s: keys are words", key, describe(k))
		return false
	}
	if line, ok := seen[k.Value]; ok {
		d.fault(d.place(k), "the key %q is there twice, first in line %d: keep one", clip(k.Value), line)
		return false
	}
	seen[k.Value] = d.place(k).Line
	return true
}

func (d *decoder) scalar(w *word) func(*node, string) {
	return func(n *node, key string) {
		switch {
		case empty(n):
			d.fault(d.place(n), "%s has no value: give it one, or leave the key out", key)
		case n.Kind != yaml.ScalarNode:
			d.fault(d.place(n), "%s is %s: it takes a single value", key, describe(n))
		default:
			*w = word{key: key, text: n.Value, at: d.place(n)}
		}
	}
}

// items calls read for each item of a list. It tells whether n is one.
func (d *decoder) items(n *node, key string, most int, read func(*node, string)) bool {
	switch {
	case n.Kind != yaml.SequenceNode:
		d.fault(d.place(n), "%s is %s: it is a list, write [a, b] or lines that start with -", key, describe(n))
		return false
	case len(n.Content) > most:
		d.fault(d.place(n), "%s has %d items: at most %d are read", key, len(n.Content), most)
		return true
	}
	for i, item := range n.Content {
		read(item, fmt.Sprintf("%s[%d]", key, i))
	}
	return true
}

// empty tells a key with nothing after it from one with "" after it.
func empty(n *node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func describe(n *node) string {
	switch n.Kind {
	case yaml.ScalarNode:
		if empty(n) {
			return "without a value"
		}
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

// join makes the name of a key from that of its mapping. A policy as a whole is
// not part of the name.
func join(prefix, key string) string {
	if prefix == wholePolicy {
		return key
	}
	return prefix + "." + key
}

const wholePolicy = "a policy"
