package term

import (
	"math"
	"strconv"

	"netguard/shaper"
)

// scaled writes a number with three digits at most and a unit.
func scaled(n float64, base float64, units []string, space string) string {
	i := 0
	// What would be rounded up to the base belongs to the next unit.
	for i < len(units)-1 && round3(n) >= base {
		n /= base
		i++
	}
	return strconv.FormatFloat(round3(n), 'f', -1, 64) + space + units[i]
}

// round3 rounds to three digits, and to whole numbers above.
func round3(n float64) float64 {
	switch {
	case n < 10:
		return math.Round(n*100) / 100
	case n < 100:
		return math.Round(n*10) / 10
	}
	return math.Round(n)
}

var (
	rateUnits  = []string{"bit", "kbit", "mbit", "gbit", "tbit"}
	byteUnits  = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	countUnits = []string{"", "k", "M", "G", "T", "P", "E"}
)

// Rate writes bits a second in the units of the labels, rounded.
func Rate(bps float64) string {
	if bps < 1000 {
		bps = math.Round(bps)
	}
	return scaled(bps, 1000, rateUnits, "")
}

// Limit writes a limit as a label would if that is short, else rounded.
func Limit(bps uint64) string {
	if bps == 0 {
		return "-"
	}
	if exact := shaper.Rate(bps).String(); len(exact) <= len("999.9mbit") {
		return exact
	}
	return Rate(float64(bps))
}

// Bytes writes an amount of data.
func Bytes(n uint64) string { return scaled(float64(n), 1024, byteUnits, " ") }

// Count writes how many.
func Count(n uint64) string { return scaled(float64(n), 1000, countUnits, "") }
