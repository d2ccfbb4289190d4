package integration

import (
	"slices"
	"strings"
	"testing"

	. "netguard/integration/harness"
)

// BenchmarkDrift is how long doors are open that somebody else opens, each with its
// own kind of damage, and how long it takes until all is as before.
func BenchmarkDrift(b *testing.B) {
	for name, options := range map[string][]Option{"nftables": nil, "legacy": {WithLegacyIptables()}} {
		b.Run(name, func(b *testing.B) {
			d := newDoorway(b, options...)
			all := slices.Concat(ofLimits, ofSets, ofRules, ofLayer2)
			if options != nil {
				all = withLegacy(all)
			}
			for _, what := range all {
				row(b, strings.ReplaceAll(what.name, " ", "_"), func() map[string]float64 {
					o := d.proof(b, what)
					out := map[string]float64{"repaired-s": o.repaired.Seconds()}
					for door, open := range o.open {
						if open > 0 || strings.Contains(what.opens, door) {
							out[door+"-open-s"] = open.Seconds()
						}
					}
					return out
				})
			}
		})
	}
}
