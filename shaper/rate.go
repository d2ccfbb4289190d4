package shaper

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"netguard/internal/plain"
)

// Rate is a bandwidth in bits a second, counted as the kernel's shapers count
// it: whole Ethernet frames. Zero means that no limit is set.
type Rate uint64

// Size is a number of bytes.
type Size uint64

// The units that tests and defaults are written in.
const (
	Bit  Rate = 1
	Kbit      = 1000 * Bit
	Mbit      = 1000 * Kbit
	Gbit      = 1000 * Mbit
	Tbit      = 1000 * Gbit

	KiB Size = 1 << 10
	MiB Size = 1 << 20
)

// MinRate and MaxRate bound what ParseRate takes. Below a kilobit a second not
// even one full packet passes in ten seconds.
const (
	MinRate = Kbit
	MaxRate = 100 * Tbit
)

// MaxSize bounds what ParseSize takes: the kernel counts bursts in 32 bits.
const MaxSize Size = 1<<32 - 1

// unit is one spelling of a unit, worth so many bits or bytes.
type unit struct {
	name  string
	worth uint64
}

// bitUnits are read in any case; byteUnits only as they are written here, since
// "KB/s" and "kb/s" mean different things to different people.
var (
	bitUnits = []unit{
		{"bit", 1}, {"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"tbit", 1e12},
	}
	byteUnits = []unit{
		{"kB/s", 8e3}, {"MB/s", 8e6}, {"GB/s", 8e9},
		{"KiB/s", 8 << 10}, {"MiB/s", 8 << 20}, {"GiB/s", 8 << 30},
	}
	sizeUnits = []unit{{"kB", 1e3}, {"MB", 1e6}, {"KiB", 1 << 10}, {"MiB", 1 << 20}}
)

// perSecond are units that mean bits to some people and bytes to others. worth is the unit in
// bits, if it means bits. bits and bytes are the clear units to write instead; bytes is empty
// if there is none.
var perSecond = map[string]struct {
	worth       uint64
	bits, bytes string
}{
	"bps": {1, "bit", ""}, "kbps": {1e3, "kbit", "kB/s"}, "mbps": {1e6, "mbit", "MB/s"}, "gbps": {1e9, "gbit", "GB/s"}, "tbps": {1e12, "tbit", ""},
}

// readings says, for an error message, which rates a number with such a unit may mean. It leaves
// out rates that are not allowed.
func readings(number, unit string) string {
	u := perSecond[unit]
	var texts []string
	for _, r := range []struct {
		of    string
		worth uint64
		unit  string
	}{{"bits", u.worth, u.bits}, {"bytes", 8 * u.worth, u.bytes}} {
		n, err := scale(number, r.worth)
		if err != nil || !n.IsUint64() || Rate(n.Uint64()) < MinRate || Rate(n.Uint64()) > MaxRate {
			continue
		}
		text := number + r.unit
		if r.unit == "" {
			text = Rate(n.Uint64()).String()
		}
		texts = append(texts, text+" for "+r.of)
	}
	if len(texts) == 0 {
		return fmt.Sprintf("either way it is not between %v and %v", MinRate, MaxRate)
	}
	return "write " + strings.Join(texts, ", or ")
}

const (
	rateUnits   = "bit, kbit, mbit, gbit, tbit (bits a second), or kB/s, MB/s, GB/s, KiB/s, MiB/s, GiB/s (bytes a second)"
	sizeUnitsIn = "kB, MB (powers of 1000), KiB, MiB (powers of 1024)"
)

// ParseRate reads a rate: a decimal number and a unit. Its errors quote what was
// given and the readings that it could have had.
func ParseRate(s string) (Rate, error) {
	number, name, err := split(s, "rate", rateUnits)
	if err != nil {
		return 0, err
	}
	u, err := rateUnit(s, number, name)
	if err != nil {
		return 0, err
	}
	bits, err := scale(number, u.worth)
	if err != nil {
		return 0, fmt.Errorf("rate %q: %w", clip(s), err)
	}
	switch max := new(big.Int).SetUint64(uint64(MaxRate)); {
	case bits.Sign() == 0 && zero(number):
		return 0, fmt.Errorf("rate %q is zero: leave the label out for no limit; the least is %v", clip(s), MinRate)
	case bits.Cmp(max) > 0:
		return 0, fmt.Errorf("rate %q is above the greatest, %v", clip(s), MaxRate)
	case Rate(bits.Uint64()) < MinRate:
		return 0, fmt.Errorf("rate %q is below the least, %v", clip(s), MinRate)
	}
	return Rate(bits.Uint64()), nil
}

func rateUnit(s, number, name string) (unit, error) {
	for _, u := range bitUnits {
		if strings.EqualFold(u.name, name) {
			return u, nil
		}
	}
	for _, u := range byteUnits {
		if u.name == name {
			return u, nil
		}
	}
	switch lower := strings.ToLower(name); {
	case name == "":
		return unit{}, fmt.Errorf("rate %q has no unit: write %smbit (%s megabits a second), %skbit, or %sMB/s (%s megabytes a second)",
			clip(s), number, number, number, number, number)
	case perSecond[lower].worth != 0:
		return unit{}, fmt.Errorf("rate %q: %q means bytes a second to tc and bits a second to everybody else: %s", clip(s), clip(name), readings(number, lower))
	}
	for _, u := range byteUnits {
		if strings.EqualFold(u.name, name) || strings.EqualFold(strings.TrimSuffix(u.name, "/s"), name) {
			return unit{}, fmt.Errorf("rate %q: write the unit as %s for bytes a second, or as %sbit for bits a second",
				clip(s), u.name, strings.ToLower(name[:1]))
		}
	}
	return unit{}, fmt.Errorf("rate %q has an unknown unit %q: use %s", clip(s), clip(name), rateUnits)
}

// ParseSize reads a size: a decimal number and kB, MB, KiB or MiB.
func ParseSize(s string) (Size, error) {
	number, name, err := split(s, "size", sizeUnitsIn)
	if err != nil {
		return 0, err
	}
	for _, u := range sizeUnits {
		if u.name != name {
			continue
		}
		bytes, err := scale(number, u.worth)
		if err != nil {
			return 0, fmt.Errorf("size %q: %w", clip(s), err)
		}
		switch {
		case bytes.Sign() == 0:
			return 0, fmt.Errorf("size %q is zero: leave the label out for a burst that is derived from the rate", clip(s))
		case bytes.Cmp(new(big.Int).SetUint64(uint64(MaxSize))) > 0:
			return 0, fmt.Errorf("size %q is above the greatest, 4095MiB", clip(s))
		}
		return Size(bytes.Uint64()), nil
	}
	if name == "" {
		return 0, fmt.Errorf("size %q has no unit: write %skB (thousands of bytes) or %sKiB (1024 bytes each)", clip(s), number, number)
	}
	for _, u := range sizeUnits {
		if strings.EqualFold(u.name, name) || strings.EqualFold(u.name[:1], name) {
			thousands, binary := strings.ToUpper(name[:1])+"B", strings.ToUpper(name[:1])+"iB"
			if thousands == "KB" {
				thousands = "kB"
			}
			return 0, fmt.Errorf("size %q: write %s%s for powers of 1000 or %s%s for powers of 1024", clip(s), number, thousands, number, binary)
		}
	}
	return 0, fmt.Errorf("size %q has an unknown unit %q: use %s", clip(s), clip(name), sizeUnitsIn)
}

// split parts a quantity into its decimal number and its unit.
func split(s, what, units string) (number, name string, err error) {
	if len(s) > 64 {
		return "", "", fmt.Errorf("%s %q is %d bytes long: a %s is a decimal number and a unit of %s", what, clip(s), len(s), what, units)
	}
	t := strings.TrimSpace(s)
	if t == "" {
		return "", "", fmt.Errorf("%s is empty: a %s is a decimal number and a unit of %s", what, what, units)
	}
	if t[0] == '-' {
		return "", "", fmt.Errorf("%s %q is negative: write a number above zero", what, clip(s))
	}
	end := strings.IndexFunc(t, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end < 0 {
		end = len(t)
	}
	number, name = t[:end], strings.TrimSpace(t[end:])
	whole, fraction, point := strings.Cut(number, ".")
	if whole == "" || point && (fraction == "" || strings.Contains(fraction, ".")) {
		return "", "", fmt.Errorf("%s %q is not a decimal number and a unit (such as 10 or 1.5, and %s)", what, clip(s), units)
	}
	return number, name, nil
}

// scale multiplies a decimal number exactly and rounds down.
func scale(number string, worth uint64) (*big.Int, error) {
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return nil, fmt.Errorf("%q is not a decimal number", number)
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).SetUint64(worth)))
	return new(big.Int).Quo(r.Num(), r.Denom()), nil
}

func zero(number string) bool { return strings.Trim(number, "0.") == "" }

// clip keeps a value from filling a log line.
func clip(s string) string { return plain.Clip(s, 48) }

// String writes a rate so that ParseRate reads the same rate back.
func (r Rate) String() string {
	for i := len(bitUnits) - 1; i >= 0; i-- {
		u := bitUnits[i]
		// Three decimals at most: 1.5gbit, but 1000001bit in full.
		if uint64(r) >= u.worth && (u.worth < 1000 || uint64(r)%(u.worth/1000) == 0) {
			return decimal(uint64(r), u.worth) + u.name
		}
	}
	return "0bit"
}

func decimal(n, worth uint64) string {
	whole, rest := n/worth, n%worth
	if rest == 0 {
		return strconv.FormatUint(whole, 10)
	}
	digits := strings.TrimRight(fmt.Sprintf("%03d", rest/(worth/1000)), "0")
	return fmt.Sprintf("%d.%s", whole, digits)
}

// bytesPerSecond is the unit of the kernel's shapers.
func (r Rate) bytesPerSecond() uint64 { return uint64(r) / 8 }
