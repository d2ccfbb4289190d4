package term

import (
	"strings"
	"unicode"
)

// doubleWidth are the ranges of characters that take two columns of a terminal.
var doubleWidth = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115f, 1}, {0x2e80, 0x303e, 1}, {0x3041, 0xa4cf, 1}, {0xac00, 0xd7a3, 1},
		{0xf900, 0xfaff, 1}, {0xfe30, 0xfe6f, 1}, {0xff00, 0xff60, 1}, {0xffe0, 0xffe6, 1},
	},
	R32: []unicode.Range32{{0x1f300, 0x1faff, 1}, {0x20000, 0x3fffd, 1}},
}

// Columns is how many columns of a terminal a text takes.
func Columns(s string) (n int) {
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.Is(doubleWidth, r):
		return 2
	}
	return 1
}

// Fit is a way to make a text narrower. The result has at most width columns.
type Fit func(s string, width int) string

// CutMiddle keeps both ends: names differ in their beginning (the project) and
// in their end (the number).
func CutMiddle(s string, width int) string {
	if Columns(s) <= width {
		return s
	}
	room := width - 1
	return take(s, room-room/2) + "…" + takeEnd(s, room/2)
}

// CutEnd keeps the beginning.
func CutEnd(s string, width int) string {
	if Columns(s) <= width {
		return s
	}
	return take(s, width-1) + "…"
}

func take(s string, width int) string {
	for i, r := range s {
		if width -= runeColumns(r); width < 0 {
			return s[:i]
		}
	}
	return s
}

func takeEnd(s string, width int) string {
	runes := []rune(s)
	for i := len(runes) - 1; i >= 0; i-- {
		if width -= runeColumns(runes[i]); width < 0 {
			return string(runes[i+1:])
		}
	}
	return s
}

// Wrap breaks a text between words so that its lines have at most width columns;
// a longer word has a line of its own. The lines after the first are indented.
func Wrap(s string, width int, indent string) string {
	var b strings.Builder
	at := 0
	for i, word := range strings.Fields(s) {
		n := Columns(word)
		switch {
		case i == 0:
		case at+1+n > width:
			b.WriteString("\n" + indent)
			at = Columns(indent)
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	return b.String()
}

// Hang breaks a text that starts where the indent of its other lines ends.
func Hang(s string, width int, indent string) string {
	return strings.ReplaceAll(Wrap(s, width-Columns(indent), ""), "\n", "\n"+indent)
}
