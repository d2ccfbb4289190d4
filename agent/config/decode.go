package config

import (
	"strings"

	"go.yaml.in/yaml/v4"

	"netguard/internal/plain"
	"netguard/internal/strictyaml"
	"netguard/netpolicy"
)

type (
	node  = strictyaml.Node
	word  = strictyaml.Word
	field = strictyaml.Field
)

// raw mirrors the file.
type raw struct {
	exclude      []word
	unguarded    []word
	uplinks      []word
	admission    word
	storm        word
	connections  word
	claims       []word
	dhcpServers  []word
	fragments    word
	fragmentRate word
	defaults     rawRates
	max          rawRates
	allowOptOut  word
	admitUnknown word
	swarmPorts   word
	trustImages  []word
	socket       word
	metrics      word
	dockerHost   word
	policyDir    word
	logLevel     word
	logFormat    word
}

type rawRates struct{ ingress, egress word }

func (r *raw) fields(d *decoder) []field {
	return []field{
		d.Field("networks", d.mapping(
			d.Field("exclude", d.list(&r.exclude)),
			d.Field("unguarded", d.list(&r.unguarded)),
			d.Field("uplinks", d.list(&r.uplinks)),
		)),
		d.Field("admission", d.Scalar(&r.admission)),
		d.Field("guard", d.mapping(
			d.Field("storm", d.Scalar(&r.storm)),
			d.Field("connections", d.Scalar(&r.connections)),
			d.Field("allow", d.list(&r.claims)),
			d.Field("dhcp_servers", d.list(&r.dhcpServers)),
			d.Field("fragments", d.Scalar(&r.fragments)),
			d.Field("fragment_rate", d.Scalar(&r.fragmentRate)),
		)),
		d.Field("limits", d.mapping(
			d.Field("default", d.rates(&r.defaults)),
			d.Field("max", d.rates(&r.max)),
		)),
		d.Field("allow_opt_out", d.Scalar(&r.allowOptOut)),
		d.Field("admit_unknown", d.Scalar(&r.admitUnknown)),
		d.Field("swarm_ports", d.Scalar(&r.swarmPorts)),
		d.Field("trust_image_labels", d.list(&r.trustImages)),
		d.Field("socket", d.Scalar(&r.socket)),
		d.Field("metrics", d.Scalar(&r.metrics)),
		d.Field("docker_host", d.Scalar(&r.dockerHost)),
		d.Field("policy_dir", d.Scalar(&r.policyDir)),
		d.Field("log", d.mapping(
			d.Field("level", d.Scalar(&r.logLevel)),
			d.Field("format", d.Scalar(&r.logFormat)),
		)),
	}
}

// decoder reads the configuration of one file.
type decoder struct{ strictyaml.Decoder }

func newDecoder(name string) decoder {
	return decoder{strictyaml.Decoder{Name: name, Terms: strictyaml.Terms{
		Whole: whole, Unset: "leave the key out for the default", List: "[a, b]", Clip: clip, Odd: odd,
	}}}
}

const whole = "the configuration"

// document gives the root of the only document, or nil for an empty file.
func (d *decoder) document(data []byte) (root *node) {
	documents := 0
	d.Documents(data, func(doc *node) bool {
		if documents++; documents > 1 {
			d.Fault(d.Place(doc), "a second document starts here: the configuration is one document, remove the line ---")
			return false
		}
		if len(doc.Content) > 0 {
			root = doc.Content[0]
		}
		return true
	})
	return root
}

// mapping reads a mapping that may have only these keys. It accepts a key without a value: that
// is a heading whose keys are all commented out.
func (d *decoder) mapping(fields ...field) func(*node, string) {
	return func(n *node, key string) {
		if !strictyaml.Empty(n) {
			d.Mapping(n, key, fields...)
		}
	}
}

func (d *decoder) rates(r *rawRates) func(*node, string) {
	return d.mapping(d.Field("ingress", d.Scalar(&r.ingress)), d.Field("egress", d.Scalar(&r.egress)))
}

func (d *decoder) list(words *[]word) func(*node, string) {
	return func(n *node, key string) {
		if !strictyaml.Empty(n) {
			d.Words(n, key, MaxBytes, words)
		}
	}
}

// odd reports a key that is no word, is there twice, or is unknown.
func odd(d *strictyaml.Decoder, k *node, key string, names []string, first int) {
	where := "under " + key
	if key == whole {
		where = "at the top"
	}
	near, all := netpolicy.Nearest(k.Value, names), strings.Join(names, ", ")
	switch {
	case k.Kind != yaml.ScalarNode:
		d.Fault(d.Place(k), "a key is %s: keys are words (%s)", d.Describe(k), all)
	case first > 0:
		d.Fault(d.Place(k), "the key %q is there twice, first in line %d: keep one", d.Join(key, clip(k.Value)), first)
	case near != "":
		d.Fault(d.Place(k), "there is no key %q %s: did you mean %s?", clip(k.Value), where, near)
	default:
		d.Fault(d.Place(k), "there is no key %q %s: the keys are %s", clip(k.Value), where, all)
	}
}

// clip keeps a value from filling a log line.
func clip(s string) string { return plain.Clip(s, 64) }
