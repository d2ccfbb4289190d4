package guard

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Format is the number of the form in which this version writes the table and its
// records. It is raised when an older version could not read or remove what this one
// writes; a table of an older one is read, and replaced in one transaction. Tables
// without a number are of format 1.
const Format = 4

// formatPrefix begins the name of an empty chain that is there for its name alone.
const formatPrefix = "format-"

// ErrNewer says that a newer netguard wrote what is in the kernel.
var ErrNewer = errors.New("a newer netguard wrote it: start that version, or have that one take it away (netguard cleanup)")

func formatOf(chain string) (int, bool) {
	text, ok := strings.CutPrefix(chain, formatPrefix)
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), ok && err == nil
}

// Check returns an error if a newer netguard wrote the table. It changes nothing.
func (d *Driver) Check() error {
	if !d.features.Filter {
		return nil
	}
	if _, _, err := d.filter.read(); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

func (s *tableState) check() error {
	if s.format > Format {
		return fmt.Errorf("table bridge %s is of format %d, and this netguard knows up to %d: %w", TableName, s.format, Format, ErrNewer)
	}
	return nil
}
