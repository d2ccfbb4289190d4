package main

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"netguard/cmd/netguard/term"
	"netguard/internal/plain"
)

func FuzzEscaped(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2J", "\u202e", "\u009b", "网络", "\U000e0001", "\u2028", "\x7f", "\\u009b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		type said struct{ Text string }
		var out strings.Builder
		if err := writeJSON(&out, said{s}, "  "); err != nil {
			t.Fatal(err)
		}
		var got said
		if err := json.Unmarshal([]byte(out.String()), &got); err != nil || got.Text != strings.ToValidUTF8(s, "\ufffd") && utf8.ValidString(s) {
			t.Errorf("%q became %q: %v", s, got.Text, err)
		}
		var document strings.Builder
		if err := writeYAML(&document, said{strings.ToValidUTF8(s, "?")}); err != nil {
			t.Fatal(err)
		}
		got = said{}
		if err := yaml.Load([]byte(document.String()), &got); err != nil || got.Text != strings.ToValidUTF8(s, "?") {
			t.Errorf("%q became %q: %v\n%s", s, got.Text, err, document.String())
		}
		for _, text := range []string{out.String(), document.String()} {
			if strings.ContainsFunc(text, plain.Hostile) {
				t.Errorf("%q has what is not to be printed", text)
			}
		}
	})
}

func TestTableWithALongName(t *testing.T) {
	s := healthy()
	s.Endpoints[0].Container = strings.Repeat("x", 5000)
	lines := strings.Split(statusText(s, term.View{Wide: true, Width: 100, Now: noon}), "\n")
	for _, line := range lines {
		if n := term.Columns(line); n > 1000 && !strings.Contains(line, "xxx") {
			t.Errorf("a line of %d columns for another's name: %.200s", n, line)
		}
	}
	if !strings.Contains(strings.Join(lines, "\n"), s.Endpoints[0].Container) {
		t.Error("the name is cut")
	}
}
