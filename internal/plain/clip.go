package plain

import "strings"

// Clip keeps a value from filling a line: it cuts what is longer than most bytes, and says so.
func Clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
