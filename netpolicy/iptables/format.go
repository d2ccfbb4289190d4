package iptables

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Format is the number of the form in which this version lays rules and sets. It is
// raised when an older version could not recognise, or take away, what this one lays.
// A set whose type changes gets another name, so that there is room for it beside the
// old one; names of earlier formats stay in ownsChain and ownsSet.
//
// What an older format left is brought to this one as any other difference is: new
// chains beside the old, one transaction that leads packets there and has the new
// number, and then the old ones go. Tables without a number are of format 1.
const Format = 2

// formatPrefix begins the name of an empty chain that is there for its name alone. It
// comes and goes in the transaction that puts the rules in force.
const formatPrefix = "NG-FORMAT-"

// ErrNewer says that a newer netguard laid what is in the kernel.
var ErrNewer = errors.New("a newer netguard laid them: start that version, or have that one take them away (netguard cleanup)")

func formatChain(n int) string { return formatPrefix + strconv.Itoa(n) }

func formatOf(chain string) (int, bool) {
	text, ok := strings.CutPrefix(chain, formatPrefix)
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), ok && err == nil
}

// check refuses a table that is not to be touched.
func (t *table) check(i int) error {
	for _, c := range t.chains {
		if n, ok := formatOf(c); ok && n > Format {
			return fmt.Errorf("the %s rules of netguard are of format %d, and this one knows up to %d: %w", familyNames[i], n, Format, ErrNewer)
		}
	}
	return nil
}

// Check refuses a host whose rules are not to be touched: whatever else the Driver
// does would be refused too. It changes nothing.
func (d *Driver) Check(ctx context.Context) error {
	if err := d.readTables(ctx, &kernel{}); err != nil {
		return fmt.Errorf("look at rules: %w", err)
	}
	return nil
}
