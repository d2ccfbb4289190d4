package netpolicy

import (
	"fmt"
	"slices"
	"strings"

	"netguard/internal/label"
	"netguard/internal/strictyaml"
)

const (
	labelPrefix  = label.Prefix
	labelIngress = label.Ingress
	labelEgress  = label.Egress
)

var policyLabels = [2]string{Ingress: labelIngress, Egress: labelEgress}

// knownLabels are the labels with a fixed name. A misspelt label is compared with them.
var knownLabels = label.Keys()

// claimed tells whether a label is known, or the shaper reports it. All that is about bandwidth
// is the shaper's.
func claimed(key string) bool {
	if slices.Contains(knownLabels, key) {
		return true
	}
	rest, ok := strings.CutPrefix(key, labelPrefix)
	return ok && (strings.HasPrefix(rest, "ingress.") || strings.HasPrefix(rest, "egress.") || strings.HasPrefix(rest, "network.") ||
		strings.HasSuffix(rest, ".rate") || strings.HasSuffix(rest, ".burst"))
}

// Strays finds unknown labels that were meant for netguard. They start with netguard. and are
// none of its labels, or they are a letter or two away from one. A container with such a label is
// not as safe as its owner thinks.
func Strays(labels map[string]string) Faults {
	var names []string
	for name := range labels {
		owner := ownerOf(name)
		if n := len(owner) - len("netguard"); n >= -2 && n <= 2 && len(name) <= maxLabelKey && !claimed(name) && distance(owner, "netguard") <= 2 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var faults Faults
	for _, name := range names {
		near := Nearest(name, knownLabels)
		if ownerOf(name) != "netguard" && (near == "" || distance(strings.ToLower(name), near) > 2) {
			continue
		}
		text := "there is no such label: the labels are " + strings.Join(knownLabels, ", ")
		if near != "" {
			text = fmt.Sprintf("there is no such label: did you mean %s?", near)
		}
		faults = append(faults, Fault{Place: Place{File: "label " + clip(name)}, Text: text})
		if len(faults) == strictyaml.MaxFaults {
			break
		}
	}
	return faults
}

// ownerOf gives what stands before the first dot of a label.
func ownerOf(name string) string {
	owner, _, _ := strings.Cut(name, ".")
	return strings.ToLower(owner)
}

// parseLabel reads the list of rules in a label's value.
func parseLabel(name, text string, dir Direction, project string) ([]rule, Faults) {
	at := "label " + name
	d := newDecoder(at)
	if len(text) > MaxLabelBytes {
		d.Fault(Place{File: at}, "the value is larger than %d bytes: put the policy in a file", MaxLabelBytes)
		return nil, d.Found
	}
	roots, whole := d.documents([]byte(text), 1)
	if whole && len(roots) == 0 {
		d.Fault(Place{File: at, Line: 1, Column: 1}, "it has no value: write [] to allow nothing, or remove the label")
	}
	var rules []rule
	for _, root := range roots {
		d.Items(root, name, maxRules, func(item *node, key string) {
			rules = append(rules, d.toRule(d.rule(item, strings.TrimPrefix(key, labelPrefix), dir, false), project))
		})
	}
	if n := cost(rules); n > maxLabelCost {
		d.Fault(Place{File: at, Line: 1, Column: 1}, "it becomes %d rules (peers times ports): at most %d are made of a label, put the policy in a file", n, maxLabelCost)
	}
	d.Found.Sort()
	return rules, d.Found
}
