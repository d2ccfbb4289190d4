// Package plain makes text of others harmless to a terminal and to a log viewer. It writes
// characters that could move a cursor, hide text or reorder it as escapes. Names of networks,
// containers and labels need this: anybody may choose them.
package plain

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text gives a text in which every character that is not printed is written as an escape, such
// as \x1b. It has no line break and is valid UTF-8.
func Text(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// Hostile tells whether a character of JSON or YAML must be written as an escape. A line break
// need not: it stands between documents.
func Hostile(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }

// simple tells whether a text is printed ASCII. Most texts are, and nothing in them is hostile.
// simple takes a tenth of the time of Hostile.
func simple[T string | []byte](text T) bool {
	for i := range len(text) {
		if c := text[i]; c != '\n' && (c < ' ' || c > '~') {
			return false
		}
	}
	return true
}

// JSON gives a JSON text that means the same and has no hostile character. It is needed because
// encoding/json and log/slog write only control characters of ASCII as escapes.
func JSON(text string) string {
	if simple(text) || !strings.ContainsFunc(text, Hostile) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if !Hostile(r) {
			b.WriteRune(r)
			continue
		}
		for _, half := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, "\\u%04x", half)
		}
	}
	return b.String()
}

// Writer gives a writer of JSON that passes each document through JSON. Each Write must be a
// whole document, as those of log/slog and encoding/json are.
func Writer(to io.Writer) io.Writer { return writer{to} }

type writer struct{ io.Writer }

func (w writer) Write(p []byte) (int, error) {
	if simple(p) || utf8.Valid(p) && !bytes.ContainsFunc(p, Hostile) {
		return w.Writer.Write(p)
	}
	if _, err := io.WriteString(w.Writer, JSON(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
