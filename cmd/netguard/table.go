package main

import "strings"

// style is how a terminal shows a text. It takes no room, so it is put on after
// everything is aligned.
type style string

const (
	none   style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "1;31"
	green  style = "32"
	yellow style = "33"
)

func (s style) on(text string, colour bool) string {
	if s == none || !colour || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// column is one column of a table.
type column struct {
	head  string
	right bool // aligned to the right
	// least is the width down to which cut may make it narrower; without a cut
	// it stays as wide as its widest cell.
	least int
	cut   fit
	tight bool // one space stands after it, not two
}

// markColumn is for the marks of rows, and there without any as well, so that
// rows are where the notes below them are.
var markColumn = column{head: " ", tight: true}

func (c column) gap() int {
	if c.tight {
		return 1
	}
	return 2
}

type cell struct {
	text  string
	style style
	short string // stands for text where that would be cut; "" is none
}

// row has a cell for each column, or fewer: then tail, if any, takes the place
// of the others.
type row struct {
	cells []cell
	tail  cell
}

// table is text in columns.
type table struct {
	columns []column
	rows    []row
	floor   []int // widths to begin with, so that tables below each other align
}

// add adds a row of printable text.
func (t *table) add(r row) {
	for i := range r.cells {
		r.cells[i].text, r.cells[i].short = printable(r.cells[i].text), printable(r.cells[i].short)
	}
	r.tail.text = printable(r.tail.text)
	t.rows = append(t.rows, r)
}

// mostPad is how wide a column becomes for the sake of its widest cell where
// nothing is cut: one name of a thousand letters must not move all others.
const mostPad = 80

// widths gives each column what it needs, or less so that all fit into width;
// zero is no bound.
func (t *table) widths(width int) []int {
	widths := make([]int, len(t.columns))
	total := 0
	for i, c := range t.columns {
		widths[i] = columns(c.head)
		if i < len(t.floor) {
			widths[i] = max(widths[i], t.floor[i])
		}
		for _, r := range t.rows {
			if i < len(r.cells) {
				need := columns(r.cells[i].text)
				if width == 0 {
					need = min(need, mostPad)
				}
				widths[i] = max(widths[i], need)
			}
		}
		total += widths[i]
		if i > 0 {
			total += t.columns[i-1].gap()
		}
	}
	for width > 0 && total > width {
		widest := -1
		for i, c := range t.columns {
			if c.cut != nil && widths[i] > c.least && (widest < 0 || widths[i]-c.least > widths[widest]-t.columns[widest].least) {
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

// format writes the table; without a head, only the rows.
func (t *table) format(width int, head, colour bool) string {
	widths := t.widths(width)
	var b strings.Builder
	if head {
		cells := make([]cell, len(t.columns))
		for i, c := range t.columns {
			cells[i] = cell{text: c.head, style: bold}
		}
		t.line(&b, row{cells: cells}, widths, width, colour)
	}
	for _, r := range t.rows {
		t.line(&b, r, widths, width, colour)
	}
	return b.String()
}

func (t *table) line(b *strings.Builder, r row, widths []int, width int, colour bool) {
	at := 0    // columns that are taken
	blank := 0 // spaces that are owed, written only before more text
	put := func(c cell, text string) {
		if strings.TrimSpace(text) == "" {
			blank += columns(text)
			return
		}
		b.WriteString(strings.Repeat(" ", blank))
		b.WriteString(c.style.on(text, colour))
		blank = 0
	}
	for i, c := range r.cells {
		text := c.text
		if cut := t.columns[i].cut; cut != nil && width > 0 {
			if c.short != "" && columns(text) > widths[i] {
				text = c.short
			}
			text = cut(text, widths[i])
		}
		pad := max(widths[i]-columns(text), 0)
		if t.columns[i].right {
			blank += pad
			pad = 0
		}
		put(c, text)
		blank += pad + t.columns[i].gap()
		at += widths[i] + t.columns[i].gap()
	}
	text := r.tail.text
	if width > 0 {
		text = cutEnd(text, max(width-at, 10))
	}
	put(r.tail, text)
	b.WriteByte('\n')
}
