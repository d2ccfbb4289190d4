package strictyaml

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Place is where something stands in a text. Line and Column count from 1. A Line of 0 is the
// whole text. If the text is no file, such as a label or a flag, File is its name.
type Place struct {
	File         string
	Line, Column int
}

func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Fault is one thing that is wrong, and what was meant.
type Fault struct {
	Place
	Text string
}

func (f Fault) Error() string { return f.Place.String() + ": " + f.Text }

// Faults are all that is wrong with a text, in its order.
type Faults []Fault

// Error lists the faults, one a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Sort brings them into the order of the text.
func (f Faults) Sort() {
	slices.SortStableFunc(f, func(a, b Fault) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
