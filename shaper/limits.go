package shaper

import (
	"fmt"
	"strings"
)

// FallbackRate is what a container gets in a direction whose rate label cannot
// be read, where the operator has set no default for that direction.
const FallbackRate = Mbit

// Operator is what the configuration says of bandwidth. Zero means unset.
type Operator struct {
	Default [2]Rate // for containers that declare nothing
	Max     [2]Rate // no container gets more, whatever it declares
}

// Limit is the bandwidth of one endpoint in one direction.
type Limit struct {
	Rate   Rate   // zero: unlimited
	Burst  Size   // zero: derived from the rate
	Source string // the label, "default", "max" or "fallback" that gave the rate
}

// Limits are both directions of one endpoint.
type Limits struct {
	Limit  [2]Limit
	Faults []Fault  // labels that could not be read
	Notes  []string // labels that were read, but do not apply as they are written
}

// burstWindow is how long a container may exceed the operator's cap by a burst label. Without
// this bound, a label could ask for a burst that lasts minutes. (CNI's bandwidth plugin has no
// such bound.)
const burstWindow = 10 // a tenth of a second

// Resolve gives the limits of an endpoint from the operator's words and the
// declarations of every container that shares it: the lowest rate wins.
func (op Operator) Resolve(declared ...Declaration) Limits {
	var out Limits
	for _, d := range declared {
		out.Faults = append(out.Faults, d.Faults...)
		out.Notes = append(out.Notes, d.Notes...)
	}
	for _, dir := range Directions {
		out.Limit[dir] = op.resolve(dir, declared, &out)
	}
	return out
}

func (op Operator) resolve(dir Direction, declared []Declaration, out *Limits) Limit {
	var lim Limit
	var alone []Declaration // those that declare a burst but no rate
	lower := func(rate Rate, burst Size, source string) {
		if rate != 0 && (lim.Rate == 0 || rate < lim.Rate) {
			lim = Limit{Rate: rate, Burst: burst, Source: source}
		}
	}
	for _, d := range declared {
		switch {
		case d.faulty(dir) && op.Default[dir] != 0:
			lower(op.Default[dir], 0, "default")
		case d.faulty(dir):
			lower(FallbackRate, 0, "fallback")
		case d.Rate[dir] == 0 && d.Burst[dir] != 0:
			alone = append(alone, d)
		default:
			lower(d.Rate[dir], d.Burst[dir], d.Label[dir])
		}
	}
	if lim.Rate == 0 {
		lower(op.Default[dir], 0, "default")
	}
	max := op.Max[dir]
	for _, d := range alone {
		switch {
		case lim.Rate == 0 && max == 0:
			out.Faults = append(out.Faults, Fault{Label: d.BurstLabel[dir], Value: d.burstText[dir],
				Err: fmt.Errorf("there is no rate for it: add %s.rate", strings.TrimSuffix(d.BurstLabel[dir], ".burst"))})
		case lim.Burst == 0 || d.Burst[dir] < lim.Burst:
			lim.Burst = d.Burst[dir]
		}
	}
	if max == 0 {
		return lim
	}
	if lim.Rate > max && lim.Source != "default" {
		out.Notes = append(out.Notes, fmt.Sprintf("%s asks for %v, the operator's cap for %s is %v: the cap applies", lim.Source, lim.Rate, dir, max))
	}
	if lim.Rate == 0 || lim.Rate > max {
		lim = Limit{Rate: max, Burst: lim.Burst, Source: "max"}
	}
	if most := Size(max.bytesPerSecond() / burstWindow); lim.Burst > most {
		out.Notes = append(out.Notes, fmt.Sprintf("the %s burst of %d bytes is more than a tenth of a second of the operator's cap %v: a derived burst applies", dir, lim.Burst, max))
		lim.Burst = 0
	}
	return lim
}
