package docker

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// endless gives a text, and then another again and again.
type endless struct {
	first, then string
	at          int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		if e.at < len(e.first) {
			p[i] = e.first[e.at]
		} else {
			p[i] = e.then[(e.at-len(e.first))%len(e.then)]
		}
		e.at++
	}
	return len(p), nil
}

func body(r io.Reader, most int, lines bool) *costed {
	return &costed{ReadCloser: io.NopCloser(r), most: most, left: most, over: errLargeAnswer, lines: lines}
}

func TestCosted(t *testing.T) {
	t.Run("ends_what_has_no_end", func(t *testing.T) {
		for first, then := range map[string]string{
			`[{"Id":"`: "x", `[{}`: ",{}", `{"Labels":{"":""`: `,"":""`, "": " ", `["`: `\\"`, "[": "[", `["\`: `"`,
		} {
			n, err := io.Copy(io.Discard, body(&endless{first: first, then: then}, 1<<20, false))
			if !errors.Is(err, errLargeAnswer) || n > 1<<20 {
				t.Errorf("%s%s…: %d bytes, %v", first, then, n, err)
			}
		}
	})
	t.Run("what_becomes_large_costs_more_than_its_bytes", func(t *testing.T) {
		cost := func(text string) int {
			b := body(strings.NewReader(text), 1<<30, false)
			if _, err := io.Copy(io.Discard, b); err != nil {
				t.Fatal(err)
			}
			return 1<<30 - b.left
		}
		if plain, objects := cost(`"`+strings.Repeat(`{},[\"`, 100)+`"`), cost(strings.Repeat("{},", 100)); plain != 602 || objects < 50_000 {
			t.Errorf("a text costs %d, objects %d", plain, objects)
		}
	})
	t.Run("each_event_has_a_budget", func(t *testing.T) {
		event := `{"Type":"container","Actor":{"Attributes":{"a":"` + strings.Repeat("x", 1000) + `"}}}` + "\n"
		if _, err := io.Copy(io.Discard, body(strings.NewReader(strings.Repeat(event, 1000)), 5000, true)); err != nil {
			t.Error(err)
		}
		if _, err := io.Copy(io.Discard, body(strings.NewReader(strings.Repeat(event, 1000)), 900, true)); !errors.Is(err, errLargeAnswer) {
			t.Error(err)
		}
		if _, err := io.Copy(io.Discard, body(&endless{first: `{"a":"`, then: "\n"}, 5000, true)); !errors.Is(err, errLargeAnswer) {
			t.Error("line breaks inside a text buy more:", err)
		}
	})
}

func FuzzCosted(f *testing.F) {
	f.Add(`[{"a":"\\","b":[1,2]},{}]`)
	f.Add("{\"a\":1}\n{\"b\":\"\\\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		whole, single := body(strings.NewReader(text), 1<<30, true), body(iotest.OneByteReader(strings.NewReader(text)), 1<<30, true)
		got, err := io.ReadAll(whole)
		if err != nil || string(got) != text {
			t.Fatalf("%q, %v", got, err)
		}
		if _, err := io.ReadAll(single); err != nil || whole.left != single.left || whole.text != single.text {
			t.Errorf("%v: it costs %d at once and %d byte by byte", err, whole.left, single.left)
		}
	})
}
