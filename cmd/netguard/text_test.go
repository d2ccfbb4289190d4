package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"netguard/internal/plain"
)

func TestUnits(t *testing.T) {
	for got, want := range map[string]string{
		humanRate(0): "0bit", humanRate(999.4): "999bit", humanRate(999.9): "1kbit", humanRate(49_800_000): "49.8mbit",
		humanRate(999_999): "1mbit", humanRate(1_234_000_000): "1.23gbit", humanRate(5e15): "5000tbit",
		humanLimit(0): "-", humanLimit(50_000_000): "50mbit", humanLimit(1_500_000_000): "1.5gbit", humanLimit(1_000_001): "1mbit", humanLimit(1_234_567): "1.23mbit",
		humanBytes(0): "0 B", humanBytes(1023): "1023 B", humanBytes(1<<20 - 1): "1 MiB", humanBytes(1000): "1000 B", humanBytes(1_288_490_188): "1.2 GiB", humanBytes(math.MaxUint64): "16 EiB",
		humanCount(0): "0", humanCount(999): "999", humanCount(12_345): "12.3k", humanCount(999_999): "1M", humanCount(math.MaxUint64): "18.4E",
	} {
		if got != want {
			t.Errorf("%s instead of %s", got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, test := range []struct {
		how   fit
		text  string
		width int
		want  string
	}{
		{cutMiddle, "shop-db-1", 9, "shop-db-1"},
		{cutMiddle, "shop-database-1", 9, "shop…se-1"},
		{cutMiddle, "shop-database-1", 8, "shop…e-1"},
		{cutMiddle, "网络网络网络", 7, "网…络"}, // a half of a character has no room
		{cutEnd, "in:db out:cache", 8, "in:db o…"},
		{cutEnd, "short", 8, "short"},
		{cutEnd, "cafe\u0301s", 5, "cafe\u0301s"}, // an accent takes no column
	} {
		if got := test.how(test.text, test.width); got != test.want {
			t.Errorf("%q to %d: %q instead of %q", test.text, test.width, got, test.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2J", "\u202e", "\xff\x9b", "\u009b", "网络", "a\u0301", "\U0001f600", "\ufffd"} {
		f.Add(s, 10)
	}
	f.Fuzz(func(t *testing.T, s string, width int) {
		got := printable(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q of %q", got, s)
		}
		if printable(got) != got {
			t.Errorf("%q is changed again", got)
		}
		if width < 3 || width > 1000 {
			return
		}
		for _, cut := range []fit{cutMiddle, cutEnd} {
			if n := columns(cut(got, width)); n > width {
				t.Errorf("%q has %d columns instead of %d", cut(got, width), n, width)
			}
		}
		if joined := strings.Join(strings.Fields(wrap(got, width, "  ")), " "); joined != strings.Join(strings.Fields(got), " ") {
			t.Errorf("%q became %q", got, joined)
		}
	})
}

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
	lines := strings.Split(statusText(s, view{wide: true, width: 100, now: noon}), "\n")
	for _, line := range lines {
		if n := columns(line); n > 1000 && !strings.Contains(line, "xxx") {
			t.Errorf("a line of %d columns for another's name: %.200s", n, line)
		}
	}
	if !strings.Contains(strings.Join(lines, "\n"), s.Endpoints[0].Container) {
		t.Error("the name is cut")
	}
}
