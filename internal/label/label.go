// Package label is the registry of the labels that netguard reads on containers: their keys,
// their values, and what they mean to people. The package that uses a label parses it, and
// takes the key from here. A label of netguard's that is not in All is an unknown label. A
// container that has one is closed.
package label

import (
	"fmt"
	"slices"
	"strings"
)

// Prefix begins each key.
const Prefix = "netguard."

// The keys.
const (
	IngressRate  = Prefix + "ingress.rate"
	EgressRate   = Prefix + "egress.rate"
	IngressBurst = Prefix + "ingress.burst"
	EgressBurst  = Prefix + "egress.burst"
	Ingress      = Prefix + "ingress"
	Egress       = Prefix + "egress"
	Connections  = Prefix + "guard.connections"
	Allow        = Prefix + "guard.allow"
	DHCP         = Prefix + "guard.dhcp"
	Enabled      = Prefix + "enabled"
)

// Label is a label that netguard reads.
type Label struct {
	Key string `json:"label"`
	// Value is an example.
	Value string `json:"example"`
	// Form says what may stand there.
	Form string `json:"form"`
	// Meaning says what it does, for people: a part of a sentence.
	Meaning string `json:"meaning"`
	// PerNetwork says that the label also exists for one network: its key is then
	// netguard.network.<name>. and the rest of this key.
	PerNetwork bool `json:"per_network"`
	// Opens says that the label gives the container something. Such a label of an image does
	// not count.
	Opens bool `json:"opens"`
	// Page is where docs/ tells more.
	Page string `json:"page"`
}

const (
	rates = "a rate: a number and bit, kbit, mbit, gbit, tbit, kB/s, MB/s, GB/s, KiB/s, MiB/s or GiB/s"
	sizes = "a size: a number and kB, MB, KiB or MiB"
	rules = "a list of rules as in a policy file, in YAML"
)

// All are the labels, in the order in which people are told of them.
var All = []Label{
	{Key: IngressRate, Value: "50mbit", Form: rates, PerNetwork: true,
		Meaning: "the most that it may receive", Page: "labels.md#rates-and-sizes"},
	{Key: EgressRate, Value: "10mbit", Form: rates, PerNetwork: true,
		Meaning: "the most that it may send", Page: "labels.md#rates-and-sizes"},
	{Key: IngressBurst, Value: "256KiB", Form: sizes, PerNetwork: true,
		Meaning: "how much it may receive at once beyond the rate, the label's or else the operator's; a good one is derived from the rate, so leave it out", Page: "labels.md#rates-and-sizes"},
	{Key: EgressBurst, Value: "256KiB", Form: sizes, PerNetwork: true,
		Meaning: "how much it may send at once beyond the rate; leave it out as well", Page: "labels.md#rates-and-sizes"},
	{Key: Ingress, Value: "[{from: [{service: api}], ports: [tcp/5432]}]", Form: rules,
		Meaning: "who may talk to it; [] is nobody", Page: "labels.md#who-may-talk-to-it"},
	{Key: Egress, Value: "[]", Form: rules,
		Meaning: "to whom it may talk; [] is to nobody", Page: "labels.md#who-may-talk-to-it"},
	{Key: Connections, Value: "1000", Form: "a number",
		Meaning: "how many connections it may have open at a time", Page: "guard.md#how-many-connections-a-container-may-have"},
	{Key: Allow, Value: "192.0.2.10", Form: "addresses, prefixes and MACs, with commas between them", Opens: true,
		Meaning: "more addresses of its own", Page: "guard.md#more-addresses-for-a-container"},
	{Key: DHCP, Value: "server", Form: "server", Opens: true,
		Meaning: "it may answer DHCP clients of its network, where the operator's `guard.dhcp_servers` permits it", Page: "guard.md#dhcp-servers"},
	{Key: Enabled, Value: "false", Form: "true or false", Opens: true,
		Meaning: "netguard leaves the container alone, where the operator's `allow_opt_out` permits it", Page: "configuration.md"},
}

// Keys are the keys of all labels. Those that narrow whom a container talks to come first.
func Keys() []string {
	keys := []string{Ingress, Egress}
	for _, l := range All {
		if !slices.Contains(keys, l.Key) {
			keys = append(keys, l.Key)
		}
	}
	return keys
}

// Find gives the label of a key.
func Find(key string) (Label, bool) {
	i := slices.IndexFunc(All, func(l Label) bool { return l.Key == key })
	if i < 0 {
		return Label{}, false
	}
	return All[i], true
}

// ForNetwork is the key for one network alone.
func (l Label) ForNetwork(name string) string {
	return Prefix + "network." + name + "." + strings.TrimPrefix(l.Key, Prefix)
}

// Markdown is the table of labels for docs/labels.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| label | meaning |\n| --- | --- |\n")
	for _, l := range All {
		fmt.Fprintf(&b, "| `%s=%s` | %s: %s", l.Key, l.Value, l.Meaning, l.link())
		if l.Opens {
			b.WriteString(". An image's does not count: see [below](#labels-of-images)")
		}
		b.WriteString(" |\n")
	}
	return b.String()
}

// link is the link from docs/labels.md to the page that tells more.
func (l Label) link() string {
	page, anchor, _ := strings.Cut(l.Page, "#")
	if page == "labels.md" {
		return "see [below](#" + anchor + ")"
	}
	return "see [" + strings.TrimSuffix(page, ".md") + "](" + l.Page + ")"
}
