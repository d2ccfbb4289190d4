package main

import (
	"strings"
	"unicode"

	"netguard/internal/plain"
)

// printable makes a stranger's text harmless to a terminal and to the one who
// reads it.
func printable(s string) string { return plain.Text(s) }

// wide are the ranges of characters that take two columns of a terminal.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115f, 1}, {0x2e80, 0x303e, 1}, {0x3041, 0xa4cf, 1}, {0xac00, 0xd7a3, 1},
		{0xf900, 0xfaff, 1}, {0xfe30, 0xfe6f, 1}, {0xff00, 0xff60, 1}, {0xffe0, 0xffe6, 1},
	},
	R32: []unicode.Range32{{0x1f300, 0x1faff, 1}, {0x20000, 0x3fffd, 1}},
}

// columns is how many columns of a terminal a text takes.
func columns(s string) (n int) {
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
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// fit is a way to make a text narrower. The result has at most width columns.
type fit func(s string, width int) string

// cutMiddle keeps both ends: names differ in their beginning (the project) and
// in their end (the number).
func cutMiddle(s string, width int) string {
	if columns(s) <= width {
		return s
	}
	room := width - 1
	return take(s, room-room/2) + "…" + takeEnd(s, room/2)
}

func cutEnd(s string, width int) string {
	if columns(s) <= width {
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

// wrap breaks a text between words so that its lines have at most width columns;
// a longer word has a line of its own. The lines after the first are indented.
func wrap(s string, width int, indent string) string {
	var b strings.Builder
	at := 0
	for _, word := range strings.Fields(s) {
		n := columns(word)
		switch {
		case at == 0:
		case at+1+n > width:
			b.WriteString("\n" + indent)
			at = columns(indent)
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	return b.String()
}

// hang breaks a text that starts where the indent of its other lines ends.
func hang(s string, width int, indent string) string {
	return strings.ReplaceAll(wrap(s, width-columns(indent), ""), "\n", "\n"+indent)
}
