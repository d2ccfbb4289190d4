package iptables

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Format is the number of the form in which this version writes rules and sets. Raise it when
// an older version could not recognise or remove what this one writes. Give a set whose type
// changes another name, so that both have room beside each other. Names of earlier formats
// stay in ownsChain and ownsSet.
//
// What an older format left is a difference like any other: new chains beside the old ones, one
// transaction with the new number that leads packets there, and then the old chains go. A
// table without a number has format 1.
const Format = 3

// formatPrefix begins the name of an empty chain, which is there for its name alone. It comes
// and goes in the transaction that puts the rules in force.
const formatPrefix = "NG-FORMAT-"

// ErrNewer says that a newer netguard wrote what is in the kernel.
var ErrNewer = errors.New("a newer netguard laid them: start that version, or have that one take them away (netguard cleanup)")

func formatChain(n int) string { return formatPrefix + strconv.Itoa(n) }

func formatOf(chain string) (int, bool) {
	text, ok := strings.CutPrefix(chain, formatPrefix)
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), ok && err == nil
}

// check refuses a table of a newer format.
func (t *table) check(i int) error {
	for _, c := range t.chains {
		if n, ok := formatOf(c); ok && n > Format {
			return fmt.Errorf("the %s rules of netguard are of format %d, and this one knows up to %d: %w", familyNames[i], n, Format, ErrNewer)
		}
	}
	return nil
}

// Check refuses a host with rules of a newer format. All other methods would refuse it, too.
// Check changes nothing.
func (d *Driver) Check(ctx context.Context) error {
	if err := d.readTables(ctx, &kernel{}); err != nil {
		return fmt.Errorf("look at rules: %w", err)
	}
	return nil
}
