package netpolicy

import (
	"strings"

	"netguard/internal/strictyaml"
)

// elsewhere are keys of other tools, and what is meant by them here.
var elsewhere = map[string]string{
	"podselector":       "select",
	"selector":          "select",
	"matchlabels":       "labels",
	"namespaceselector": "project",
	"namespace":         "project",
	"stack":             "project",
	"ipblock":           "cidr",
	"ip":                "cidr",
	"subnet":            "cidr",
	"port":              "ports",
	"protocol":          "ports",
	"container_name":    "container",
	"networks":          "network",
	"label":             "labels",
	"inbound":           "ingress",
	"outbound":          "egress",
	"allow":             "ingress or egress",
	"source":            "from",
	"destination":       "to",
}

func unknown(d *strictyaml.Decoder, at Place, key, name string, names []string) {
	where := "under " + key
	if key == wholePolicy {
		where = "in a policy"
	}
	folded := strings.ToLower(name)
	switch {
	case name == "<<":
		d.Fault(at, "merging mappings with << is not read here: write the keys out")
	case (name == "from" || name == "to") && len(names) == 2: // a rule of the other direction
		d.Fault(at, "there is no key %q %s: rules of ingress say from, rules of egress say to", name, where)
	case elsewhere[folded] != "" && mentions(names, elsewhere[folded]):
		d.Fault(at, "there is no key %q %s: here it is %s", clip(name), where, elsewhere[folded])
	case Nearest(name, names) != "":
		d.Fault(at, "there is no key %q %s: did you mean %s?", clip(name), where, Nearest(name, names))
	default:
		d.Fault(at, "there is no key %q %s: the keys are %s", clip(name), where, strings.Join(names, ", "))
	}
}

func mentions(names []string, text string) bool {
	for _, n := range names {
		for w := range strings.FieldsSeq(text) {
			if w == n {
				return true
			}
		}
	}
	return false
}
