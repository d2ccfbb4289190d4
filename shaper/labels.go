package shaper

import (
	"fmt"
	"slices"
	"strings"
)

// Direction is a direction of traffic as the container sees it.
type Direction uint8

const (
	Ingress Direction = iota // what the container receives
	Egress                   // what the container sends
)

// Directions lists both, in the order in which they are shown.
var Directions = [2]Direction{Ingress, Egress}

func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

const (
	labelPrefix   = "netguard."
	networkPrefix = labelPrefix + "network."
)

// Fault is a label that cannot be read. Its text quotes the label, its value and
// what was meant.
type Fault struct {
	Label, Value string
	Err          error
	// Rates tells for which directions the fault leaves the rate unknown.
	Rates [2]bool
}

func (f Fault) Error() string {
	return fmt.Sprintf("label %s=%q: %v", clip(f.Label), clip(f.Value), f.Err)
}

func (f Fault) Unwrap() error { return f.Err }

// Declaration is what one container's labels say of one of its endpoints.
type Declaration struct {
	Rate       [2]Rate   // zero: nothing declared
	Burst      [2]Size   // zero: derived from the rate
	Label      [2]string // the label that gave the rate
	BurstLabel [2]string // the label that gave the burst
	Faults     []Fault   // in the order in which the labels were read
}

// Claims tells whether a label is about bandwidth, so that it is Decode's to
// read or to refuse.
func Claims(label string) bool {
	rest, ok := strings.CutPrefix(label, labelPrefix)
	if !ok {
		return false
	}
	return strings.HasPrefix(rest, "ingress.") || strings.HasPrefix(rest, "egress.") ||
		strings.HasPrefix(rest, "network.") || strings.HasSuffix(rest, ".rate") || strings.HasSuffix(rest, ".burst")
}

// maxLabels is how many bandwidth labels of a container are read: ten for each of
// a hundred networks.
const maxLabels = 1000

// Decode reads the bandwidth labels of a container for its endpoint on the
// network of that name. A label for one network wins over the one for all of
// them; a label for another network is not looked at beyond its form. Of a
// container with too many of them none is.
func Decode(labels map[string]string, network string) Declaration {
	var d Declaration
	names := make([]string, 0, len(labels))
	for name := range labels {
		if Claims(name) {
			names = append(names, name)
		}
	}
	if len(names) > maxLabels {
		d.Faults = []Fault{{Label: labelPrefix + "…", Rates: [2]bool{true, true},
			Err: fmt.Errorf("there are %d labels about bandwidth, at most %d are read: remove those of networks that the container is not on", len(names), maxLabels)}}
		return d
	}
	// The general labels first, so that the particular ones overwrite them.
	slices.SortFunc(names, func(a, b string) int {
		pa, pb := strings.HasPrefix(a, networkPrefix), strings.HasPrefix(b, networkPrefix)
		if pa != pb {
			if pb {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		d.read(name, labels[name], network)
	}
	d.orphans(labels)
	return d
}

func (d *Declaration) read(name, value, network string) {
	of, key := cutNetwork(name)
	if of != "" && of != network {
		return
	}
	dir, what, err := parseKey(key)
	if err != nil {
		d.Faults = append(d.Faults, Fault{Label: name, Value: value, Err: err, Rates: [2]bool{true, true}})
		return
	}
	fault := Fault{Label: name, Value: value}
	switch what {
	case "rate":
		rate, err := ParseRate(value)
		d.forget(dir, of != "")
		if err != nil {
			fault.Err, fault.Rates[dir] = err, true
			break
		}
		d.Rate[dir], d.Label[dir] = rate, name
	case "burst":
		size, err := ParseSize(value)
		if err != nil {
			fault.Err = err
			break
		}
		d.Burst[dir], d.BurstLabel[dir] = size, name
	}
	if fault.Err != nil {
		d.Faults = append(d.Faults, fault)
	}
}

// forget drops what a general label said of a rate when one for this network
// takes its place. The general label's fault, if it has one, stays reported but
// no longer decides the rate.
func (d *Declaration) forget(dir Direction, particular bool) {
	if !particular {
		return
	}
	d.Rate[dir], d.Label[dir] = 0, ""
	for i := range d.Faults {
		if _, key := cutNetwork(d.Faults[i].Label); key == dir.String()+".rate" {
			d.Faults[i].Rates[dir] = false
		}
	}
}

// orphans reports bursts that no rate goes with.
func (d *Declaration) orphans(labels map[string]string) {
	for _, dir := range Directions {
		if d.Burst[dir] == 0 || d.Rate[dir] != 0 || d.faulty(dir) {
			continue
		}
		name := d.BurstLabel[dir]
		d.Faults = append(d.Faults, Fault{Label: name, Value: labels[name],
			Err: fmt.Errorf("there is no rate for it: add %s.rate", strings.TrimSuffix(name, ".burst"))})
	}
}

func (d *Declaration) faulty(dir Direction) bool {
	return slices.ContainsFunc(d.Faults, func(f Fault) bool { return f.Rates[dir] })
}

// cutNetwork parts "netguard.network.<name>.egress.rate" into the name and
// "egress.rate". Names may have dots in them, so the key is the last two words.
func cutNetwork(label string) (network, key string) {
	rest, ok := strings.CutPrefix(label, networkPrefix)
	if !ok {
		return "", strings.TrimPrefix(label, labelPrefix)
	}
	last := strings.LastIndexByte(rest, '.')
	if last < 0 {
		return rest, ""
	}
	middle := strings.LastIndexByte(rest[:last], '.')
	if middle < 0 {
		return "", rest
	}
	return rest[:middle], rest[middle+1:]
}

func parseKey(key string) (Direction, string, error) {
	for _, dir := range Directions {
		for _, what := range []string{"rate", "burst"} {
			if key == dir.String()+"."+what {
				return dir, what, nil
			}
		}
	}
	return 0, "", fmt.Errorf("there is no such label: the bandwidth labels are netguard.ingress.rate, netguard.egress.rate, "+
		"netguard.ingress.burst, netguard.egress.burst, and netguard.network.<name>. before the same words (read %q)", clip(key))
}
