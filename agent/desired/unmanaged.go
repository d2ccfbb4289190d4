package desired

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"netguard/agent/endpoint"
	"netguard/internal/label"
	"netguard/shaper"
)

// inVain notes the labels that have no effect on an endpoint, because netguard cannot manage
// its network. Their author may think otherwise. It leaves out labels that name another network
// of the container: they belong to the endpoint there.
func (d *Endpoint) inVain(on []string) {
	names := map[string]bool{}
	for _, c := range d.containers() {
		for name, value := range c.Labels {
			if !strings.HasPrefix(name, label.Prefix) || name == endpoint.Label && value == "false" {
				continue
			}
			of := shaper.Network(name)
			if _, elsewhere := slices.BinarySearch(on, of); elsewhere && of != d.Network.Name {
				continue
			}
			names[fmt.Sprintf("%.80s", name)] = true
		}
	}
	told := slices.Sorted(maps.Keys(names))
	switch n := len(told); {
	case n == 0:
		return
	case n == 1:
		d.notes = append(slices.Clip(d.notes), fmt.Sprintf("label %s has no effect: %s", told[0], d.Unmanaged))
		return
	case n > maxTold:
		told = append(told[:maxTold:maxTold], fmt.Sprintf("and %d more", n-maxTold))
	}
	d.notes = append(slices.Clip(d.notes), fmt.Sprintf("labels %s have no effect: %s", strings.Join(told, ", "), d.Unmanaged))
}
