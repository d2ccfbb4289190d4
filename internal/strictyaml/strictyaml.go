// Package strictyaml walks YAML that people write. It promises that it passes over no key, and
// that it tells all faults at once. Each fault has its place, what was written and what was
// meant. It is pure.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// MaxFaults bounds the list, for a text that is something else altogether.
const MaxFaults = 50

// Node is what is walked.
type Node = yaml.Node

// Word is a scalar of the text with its place. One without a place was not written.
type Word struct {
	Key  string // as people know it: ingress[0].from[1].cidr
	Text string
	At   Place
}

// Set tells whether the word was written.
func (w Word) Set() bool { return w.At.Line != 0 }

// Field is a key of a mapping and what reads its value. Field of a Decoder makes one.
type Field struct {
	name string
	read func(n *Node, key string)
}

// Terms are the words that differ between the faults of one kind of text and of another.
type Terms struct {
	Whole string // a document, which is no part of the names of its keys
	Unset string // how to go without a value
	List  string // how a list is written
	Clip  func(string) string
	// Odd reports a key that is no word, that was there before (in line first), or that is none
	// of the names.
	Odd func(d *Decoder, k *Node, key string, names []string, first int)
}

// Decoder walks the nodes of one text and gathers its faults.
type Decoder struct {
	Terms
	Name  string // of the text, as it stands in faults
	Found Faults
	Total int // faults, those beyond the bound included
}

// Fault adds one.
func (d *Decoder) Fault(at Place, format string, args ...any) {
	d.Total++
	if len(d.Found) < MaxFaults {
		d.Found = append(d.Found, Fault{Place: at, Text: fmt.Sprintf(format, args...)})
	}
}

// Place is that of a node.
func (d *Decoder) Place(n *Node) Place {
	return Place{File: d.Name, Line: max(n.Line, 1), Column: max(n.Column, 1)}
}

// Documents calls read for each document, up to the first that is not YAML, or for
// which it gives false. It tells whether the text was read to its end.
func (d *Decoder) Documents(data []byte, read func(doc *Node) bool, options ...yaml.Option) bool {
	loader, err := yaml.NewLoader(bytes.NewReader(data), options...)
	for err == nil {
		var doc Node
		if err = loader.Load(&doc); err == nil && !read(&doc) {
			return false
		}
	}
	if errors.Is(err, io.EOF) {
		return true
	}
	at, text := Place{File: d.Name, Line: 1, Column: 1}, err.Error()
	if le, ok := errors.AsType[*yaml.LoadError](err); ok {
		text = le.Message
		if le.Mark.Line > 0 {
			at.Line, at.Column = le.Mark.Line, max(le.Mark.Column, 1)
		}
	}
	d.Fault(at, "this is not YAML: %s", d.Clip(text))
	return false
}

// Field is one for Mapping.
func (d *Decoder) Field(name string, read func(n *Node, key string)) Field {
	return Field{name, read}
}

// Mapping reads a mapping that may have only these keys. key is the mapping's own name. It
// tells whether n is a mapping.
func (d *Decoder) Mapping(n *Node, key string, fields ...Field) bool {
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].name
	}
	if n.Kind != yaml.MappingNode {
		d.Fault(d.Place(n), "%s is %s: it is a mapping with the keys %s", key, d.Describe(n), strings.Join(names, ", "))
		return false
	}
	for k, v := range d.Keys(n, key, names) {
		if i := slices.Index(names, k.Value); i < 0 {
			d.Odd(d, k, key, names, 0)
		} else {
			fields[i].read(v, d.Join(key, k.Value))
		}
	}
	return true
}

// Keys are the keys of a mapping that are words, each once, with their values.
func (d *Decoder) Keys(n *Node, key string, names []string) iter.Seq2[*Node, *Node] {
	return func(yield func(k, v *Node) bool) {
		seen := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if first, again := seen[k.Value]; again || k.Kind != yaml.ScalarNode {
				d.Odd(d, k, key, names, first)
				continue
			}
			seen[k.Value] = d.Place(k).Line
			if !yield(k, n.Content[i+1]) {
				return
			}
		}
	}
}

// Scalar reads a single value.
func (d *Decoder) Scalar(w *Word) func(*Node, string) {
	return func(n *Node, key string) {
		switch {
		case Empty(n):
			d.Fault(d.Place(n), "%s has no value: give it one, or %s", key, d.Unset)
		case n.Kind != yaml.ScalarNode:
			d.Fault(d.Place(n), "%s is %s: it takes a single value", key, d.Describe(n))
		default:
			*w = Word{Key: key, Text: n.Value, At: d.Place(n)}
		}
	}
}

// Items calls read for each item of a list.
func (d *Decoder) Items(n *Node, key string, most int, read func(*Node, string)) {
	switch {
	case n.Kind != yaml.SequenceNode:
		d.Fault(d.Place(n), "%s is %s: it is a list, write %s", key, d.Describe(n), d.List)
		return
	case len(n.Content) > most:
		d.Fault(d.Place(n), "%s has %d items: at most %d are read", key, len(n.Content), most)
		return
	}
	for i, item := range n.Content {
		read(item, fmt.Sprintf("%s[%d]", key, i))
	}
}

// Words reads a list of single values.
func (d *Decoder) Words(n *Node, key string, most int, words *[]Word) {
	d.Items(n, key, most, func(n *Node, key string) {
		var w Word
		if d.Scalar(&w)(n, key); w.Set() {
			*words = append(*words, w)
		}
	})
}

// Empty tells whether a key has nothing after it. A key with "" after it is not empty.
func Empty(n *Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// Describe says what stands there.
func (t *Terms) Describe(n *Node) string {
	switch n.Kind {
	case yaml.ScalarNode:
		if Empty(n) {
			return "without a value"
		}
		return fmt.Sprintf("%q", t.Clip(n.Value))
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping"
	case yaml.AliasNode:
		return fmt.Sprintf("the alias %q, which is not read here", "*"+t.Clip(n.Value))
	}
	return "something else"
}

// Join makes the name of a key from that of its mapping.
func (t *Terms) Join(mapping, key string) string {
	if mapping == t.Whole {
		return key
	}
	return mapping + "." + key
}
