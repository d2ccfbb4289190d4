package term

import (
	"math"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"netguard/internal/plain"
)

func TestUnits(t *testing.T) {
	for got, want := range map[string]string{
		Rate(0): "0bit", Rate(999.4): "999bit", Rate(999.9): "1kbit", Rate(49_800_000): "49.8mbit",
		Rate(999_999): "1mbit", Rate(1_234_000_000): "1.23gbit", Rate(5e15): "5000tbit",
		Limit(0): "-", Limit(50_000_000): "50mbit", Limit(1_500_000_000): "1.5gbit", Limit(1_000_001): "1mbit", Limit(1_234_567): "1.23mbit",
		Bytes(0): "0 B", Bytes(1023): "1023 B", Bytes(1<<20 - 1): "1 MiB", Bytes(1000): "1000 B", Bytes(1_288_490_188): "1.2 GiB", Bytes(math.MaxUint64): "16 EiB",
		Count(0): "0", Count(999): "999", Count(12_345): "12.3k", Count(999_999): "1M", Count(math.MaxUint64): "18.4E",
	} {
		if got != want {
			t.Errorf("%s instead of %s", got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, test := range []struct {
		how   Fit
		text  string
		width int
		want  string
	}{
		{CutMiddle, "shop-db-1", 9, "shop-db-1"},
		{CutMiddle, "shop-database-1", 9, "shop…se-1"},
		{CutMiddle, "shop-database-1", 8, "shop…e-1"},
		{CutMiddle, "网络网络网络", 7, "网…络"}, // a half of a character has no room
		{CutEnd, "in:db out:cache", 8, "in:db o…"},
		{CutEnd, "short", 8, "short"},
		{CutEnd, "cafe\u0301s", 5, "cafe\u0301s"}, // an accent takes no column
	} {
		if got := test.how(test.text, test.width); got != test.want {
			t.Errorf("%q to %d: %q instead of %q", test.text, test.width, got, test.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2J", "\u202e", "\xff\x9b", "\u009b", "网络", "a\u0301", "\U0001f600", "\ufffd", "\u0311 0"} {
		f.Add(s, 10)
	}
	f.Fuzz(func(t *testing.T, s string, width int) {
		got := plain.Text(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q of %q", got, s)
		}
		if plain.Text(got) != got {
			t.Errorf("%q is changed again", got)
		}
		if width < 3 || width > 1000 {
			return
		}
		for _, cut := range []Fit{CutMiddle, CutEnd} {
			if n := Columns(cut(got, width)); n > width {
				t.Errorf("%q has %d columns instead of %d", cut(got, width), n, width)
			}
		}
		if joined := strings.Join(strings.Fields(Wrap(got, width, "  ")), " "); joined != strings.Join(strings.Fields(got), " ") {
			t.Errorf("%q became %q", got, joined)
		}
	})
}
