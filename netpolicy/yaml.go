package netpolicy

import (
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"netguard/internal/plain"
	"netguard/internal/strictyaml"
)

// What is read of a text, and what is wrong with it.
type (
	Place  = strictyaml.Place
	Fault  = strictyaml.Fault
	Faults = strictyaml.Faults

	node  = strictyaml.Node
	word  = strictyaml.Word
	field = strictyaml.Field
)

// decoder reads policies of one text.
type decoder struct{ strictyaml.Decoder }

func newDecoder(name string) decoder {
	return decoder{strictyaml.Decoder{Name: name, Terms: strictyaml.Terms{
		Whole: wholePolicy, Unset: "leave the key out", List: "[a, b] or lines that start with -", Clip: clip, Odd: odd,
	}}}
}

const wholePolicy = "a policy"

// documents gives the root of each document of a text, up to the first one that is not YAML. It
// leaves out empty documents. whole says that the text was read to its end.
func (d *decoder) documents(data []byte, most int) (roots []*node, whole bool) {
	whole = d.Documents(data, func(doc *node) bool {
		if len(doc.Content) == 0 || strictyaml.Empty(doc.Content[0]) {
			return true
		}
		root := doc.Content[0]
		if len(roots) == most {
			d.Fault(d.Place(root), "there are more than %d documents: only so many are read, part the file", most)
			return false
		}
		d.plain(root)
		roots = append(roots, root)
		return true
	}, yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	return roots, whole
}

// plain refuses anchors and tags: with them a text does not mean what it shows. An alias is
// refused where its value would be read.
func (d *decoder) plain(n *node) {
	if n.Anchor != "" {
		d.Fault(d.Place(n), "the anchor %q is not read here: write the value out where it is needed", "&"+clip(n.Anchor))
	}
	if n.Style&yaml.TaggedStyle != 0 {
		d.Fault(d.Place(n), "the tag %q is not read here: leave it out", clip(n.Tag))
	}
	for _, c := range n.Content {
		d.plain(c)
	}
}

// odd reports a key that is not a word, that is there twice, or that is unknown.
func odd(d *strictyaml.Decoder, k *node, key string, names []string, first int) {
	switch {
	case k.Kind != yaml.ScalarNode:
		d.Fault(d.Place(k), "a key of %s is %s: keys are words", key, d.Describe(k))
	case first > 0:
		d.Fault(d.Place(k), "the key %q is there twice, first in line %d: keep one", clip(k.Value), first)
	default:
		unknown(d, d.Place(k), key, k.Value, names)
	}
}

// clip shortens a value for a log line. It replaces unprintable characters, which could control a
// terminal.
func clip(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(plain.Clip(s, 64), ""))
}
