package term

import (
	"strings"

	"netguard/internal/plain"
)

// Style is how a terminal shows a text. It takes no room, so it is put on after everything
// is aligned.
type Style string

const (
	none   Style = ""
	Bold   Style = "1"
	Dim    Style = "2"
	Red    Style = "1;31"
	Green  Style = "32"
	Yellow Style = "33"
)

// On puts the style on a text.
func (s Style) On(text string, colour bool) string {
	if s == none || !colour || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// Column is one column of a table.
type Column struct {
	Head  string
	Right bool // aligned to the right
	// Cut may make it narrower, down to Least. Without Cut it stays as wide as its widest
	// cell.
	Least int
	Cut   Fit
	Tight bool // one space stands after it, not two
}

// MarkColumn is for the marks of rows. A table without marks has it too: its rows then begin
// where the notes below them begin.
var MarkColumn = Column{Head: " ", Tight: true}

func (c Column) gap() int {
	if c.Tight {
		return 1
	}
	return 2
}

// Cell is one cell of a table.
type Cell struct {
	Text  string
	Style Style
	Short string // stands for text where that would be cut; "" is none
}

// Row has a cell for each column, or fewer: then Tail takes the place of the others.
type Row struct {
	Cells []Cell
	Tail  Cell
}

// Table is text in columns.
type Table struct {
	Columns []Column
	Rows    []Row
	Floor   []int // widths to begin with, so that tables below each other align
}

// Add adds a row, and makes its text harmless.
func (t *Table) Add(r Row) {
	for i := range r.Cells {
		r.Cells[i].Text, r.Cells[i].Short = plain.Text(r.Cells[i].Text), plain.Text(r.Cells[i].Short)
	}
	r.Tail.Text = plain.Text(r.Tail.Text)
	t.Rows = append(t.Rows, r)
}

// mostPad is how wide a column may become for its widest cell if nothing is cut. One name of a
// thousand letters must not move all others.
const mostPad = 80

// Widths gives each column what it needs, or less so that all fit into width. Zero is no
// bound.
func (t *Table) Widths(width int) []int {
	widths := make([]int, len(t.Columns))
	total := 0
	for i, c := range t.Columns {
		widths[i] = Columns(c.Head)
		if i < len(t.Floor) {
			widths[i] = max(widths[i], t.Floor[i])
		}
		for _, r := range t.Rows {
			if i < len(r.Cells) {
				need := Columns(r.Cells[i].Text)
				if width == 0 {
					need = min(need, mostPad)
				}
				widths[i] = max(widths[i], need)
			}
		}
		total += widths[i]
		if i > 0 {
			total += t.Columns[i-1].gap()
		}
	}
	for width > 0 && total > width {
		widest := -1
		for i, c := range t.Columns {
			if c.Cut != nil && widths[i] > c.Least && (widest < 0 || widths[i]-c.Least > widths[widest]-t.Columns[widest].Least) {
				widest = i // above its least
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
		total--
	}
	return widths
}

// Format writes the table. Without head it writes only the rows.
func (t *Table) Format(width int, head, colour bool) string {
	widths := t.Widths(width)
	var b strings.Builder
	if head {
		cells := make([]Cell, len(t.Columns))
		for i, c := range t.Columns {
			cells[i] = Cell{Text: c.Head, Style: Bold}
		}
		t.line(&b, Row{Cells: cells}, widths, width, colour)
	}
	for _, r := range t.Rows {
		t.line(&b, r, widths, width, colour)
	}
	return b.String()
}

func (t *Table) line(b *strings.Builder, r Row, widths []int, width int, colour bool) {
	at := 0    // columns that are taken
	blank := 0 // spaces that are owed, written only before more text
	put := func(c Cell, text string) {
		if strings.TrimSpace(text) == "" {
			blank += Columns(text)
			return
		}
		b.WriteString(strings.Repeat(" ", blank))
		b.WriteString(c.Style.On(text, colour))
		blank = 0
	}
	for i, c := range r.Cells {
		text := c.Text
		if cut := t.Columns[i].Cut; cut != nil && width > 0 {
			if c.Short != "" && Columns(text) > widths[i] {
				text = c.Short
			}
			text = cut(text, widths[i])
		}
		pad := max(widths[i]-Columns(text), 0)
		if t.Columns[i].Right {
			blank += pad
			pad = 0
		}
		put(c, text)
		blank += pad + t.Columns[i].gap()
		at += widths[i] + t.Columns[i].gap()
	}
	text := r.Tail.Text
	if width > 0 {
		text = CutEnd(text, max(width-at, 10))
	}
	put(r.Tail, text)
	b.WriteByte('\n')
}
