package shaper

import (
	"fmt"
	"slices"
	"strings"

	"netguard/internal/label"
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
	labelPrefix   = label.Prefix
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
	burstText  [2]string // its value
	Faults     []Fault   // in the order in which the labels were read
	Notes      []string  // labels that have no effect
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

// maxStrays is how many labels about a network that the container is not on are named.
const maxStrays = 20

// Decode reads the bandwidth labels of a container for its endpoint on one network. on names
// all networks of the container, sorted. A label for this network wins over a label for all
// networks. A label for another network of the container is skipped: it counts for the endpoint
// there. A label for a network that the container is not on becomes a note, or a fault if its
// value cannot be read. If there are too many labels, none is read.
func Decode(labels map[string]string, network string, on []string) Declaration {
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
	strays := 0
	for _, name := range names {
		of, stray := d.read(name, labels[name], network, on)
		if !stray {
			continue
		}
		if strays++; strays <= maxStrays {
			d.Notes = append(d.Notes, fmt.Sprintf("label %s has no effect: the container is on no network %q (%s)", clip(name), clip(of), whichOf(of, on)))
		}
	}
	if more := strays - maxStrays; more > 0 {
		d.Notes = append(d.Notes, fmt.Sprintf("%d more labels of networks that the container is not on have no effect", more))
	}
	return d
}

// read reads one label. stray tells that the label can be read, but is about a network that the
// container is not on. Then of is that network.
func (d *Declaration) read(name, value, network string, on []string) (of string, stray bool) {
	of, key, particular := cutNetwork(name)
	dir, what, err := parseKey(key)
	if particular && of == "" {
		err = fmt.Errorf("it names no network: write %s<name>.%s for one network, or %s%s for all", networkPrefix, keyOr(key, err), labelPrefix, keyOr(key, err))
	}
	if err != nil {
		d.Faults = append(d.Faults, Fault{Label: name, Value: value, Err: err, Rates: [2]bool{true, true}})
		return "", false
	}
	here := !particular || of == network
	if _, elsewhere := slices.BinarySearch(on, of); elsewhere && !here {
		return "", false
	}
	fault := Fault{Label: name, Value: value}
	switch what {
	case "rate":
		var rate Rate
		if rate, fault.Err = ParseRate(value); here {
			d.forget(dir, particular)
			if fault.Rates[dir] = fault.Err != nil; fault.Err == nil {
				d.Rate[dir], d.Label[dir] = rate, name
			}
		}
	case "burst":
		var size Size
		if size, fault.Err = ParseSize(value); here && fault.Err == nil {
			d.Burst[dir], d.BurstLabel[dir], d.burstText[dir] = size, name, value
		}
	}
	if fault.Err != nil {
		d.Faults = append(d.Faults, fault)
	}
	return of, !here && fault.Err == nil
}

// keyOr gives the key of a label, or an example of a key if err says that there is none.
func keyOr(key string, err error) string {
	if err != nil {
		return "egress.rate"
	}
	return key
}

// whichOf guesses which network a name means, or says on which networks the container is.
func whichOf(name string, on []string) string {
	for _, n := range on {
		// Docker Compose puts the project's name before those of its networks.
		if strings.HasSuffix(n, "_"+name) || strings.EqualFold(n, name) {
			return fmt.Sprintf("did you mean %s?", clip(n))
		}
	}
	const most = 5
	if len(on) > most {
		return fmt.Sprintf("it is on %d others", len(on))
	}
	names := make([]string, len(on))
	for i, n := range on {
		names[i] = clip(n)
	}
	return "it is on " + strings.Join(names, ", ")
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
		if _, key, particular := cutNetwork(d.Faults[i].Label); !particular && key == dir.String()+".rate" {
			d.Faults[i].Rates[dir] = false
		}
	}
}

func (d *Declaration) faulty(dir Direction) bool {
	return slices.ContainsFunc(d.Faults, func(f Fault) bool { return f.Rates[dir] })
}

// Network is the name of the network that a bandwidth label is about, "" for a label
// about all of them.
func Network(label string) string {
	name, _, _ := cutNetwork(label)
	return name
}

// cutNetwork parts "netguard.network.<name>.egress.rate" into the name and
// "egress.rate". Names may have dots in them, so the key is the last two words.
// particular says that it is a label for one network, if it names one or not.
func cutNetwork(label string) (network, key string, particular bool) {
	rest, particular := strings.CutPrefix(label, networkPrefix)
	if !particular {
		return "", strings.TrimPrefix(label, labelPrefix), false
	}
	last := strings.LastIndexByte(rest, '.')
	if last < 0 {
		return rest, "", true
	}
	middle := strings.LastIndexByte(rest[:last], '.')
	if middle < 0 {
		return "", rest, true
	}
	return rest[:middle], rest[middle+1:], true
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
