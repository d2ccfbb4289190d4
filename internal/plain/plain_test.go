package plain

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"unicode"
)

// nasty has what terminals act on: ESC, the C1 form of CSI, a bell, a direction
// override, an invisible character, a broken byte.
const nasty = "ev\x1b[31mil\nfake\u009b2J\a\u202egnp\u200b\xff<&>"

func TestPlain(t *testing.T) {
	odd := func(s string) bool {
		return strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) })
	}
	t.Run("text_is_one_printed_line", func(t *testing.T) {
		if got := Text(nasty); odd(got) || strings.Contains(got, "\n") || !strings.Contains(got, `ev\x1b[31mil\nfake`) {
			t.Errorf("%q", got)
		}
		if got := Text("größe 東京"); got != "größe 東京" {
			t.Errorf("%q", got)
		}
	})
	t.Run("JSON_means_the_same", func(t *testing.T) {
		var text bytes.Buffer
		e := json.NewEncoder(Writer(&text))
		e.SetEscapeHTML(false)
		if err := e.Encode(nasty); err != nil || odd(text.String()) {
			t.Fatalf("%q, %v", text.String(), err)
		}
		var back string
		if err := json.Unmarshal(text.Bytes(), &back); err != nil || back != strings.ToValidUTF8(nasty, "\ufffd") {
			t.Errorf("%q, %v", back, err)
		}
	})
	t.Run("a_log_of_JSON_as_well", func(t *testing.T) {
		var text bytes.Buffer
		slog.New(slog.NewJSONHandler(Writer(&text), nil)).Warn("x", "network", nasty)
		if odd(text.String()) || strings.Count(text.String(), "\n") != 1 {
			t.Errorf("%q", text.String())
		}
	})
}
