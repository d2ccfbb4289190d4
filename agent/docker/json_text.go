package docker

import "bytes"

// jsonText follows a text of JSON byte by byte. The zero value is at its start.
type jsonText struct{ quoted, escaped bool }

// plain tells how much at the start of p is inside a string, and needs no look at each byte.
func (t *jsonText) plain(p []byte) int {
	if !t.quoted || t.escaped {
		return 0
	}
	if n := bytes.IndexAny(p, `"\`); n >= 0 {
		return n
	}
	return len(p)
}

// next takes a byte, and tells whether it is outside of all strings and their quotes.
func (t *jsonText) next(b byte) bool {
	switch {
	case t.escaped:
		t.escaped = false
	case t.quoted:
		t.escaped, t.quoted = b == '\\', b != '"'
	case b == '"':
		t.quoted = true
	default:
		return true
	}
	return false
}
