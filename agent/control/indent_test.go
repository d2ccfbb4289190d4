package control

import (
	"bytes"
	"encoding/json"
	"testing"

	"pgregory.net/rapid"
)

// TestIndent: what indent gives of a status is what json.Indent gives.
func TestIndent(t *testing.T) {
	text := rapid.SliceOf(rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		s := Status{Findings: text.Draw(t, "findings"), Mode: rapid.String().Draw(t, "mode")}
		for range rapid.IntRange(0, 3).Draw(t, "endpoints") {
			s.Endpoints = append(s.Endpoints, Endpoint{Container: rapid.String().Draw(t, "name"), Policy: Policies{Ingress: text.Draw(t, "policies")}})
		}
		s.fill()
		var answer, want bytes.Buffer
		if err := write(&answer, s); err != nil {
			t.Fatal(err)
		}
		if err := json.Indent(&want, answer.Bytes(), "", "  "); err != nil {
			t.Fatal(err)
		}
		got, err := indent(answer.Bytes())
		if err != nil || string(got) != want.String() {
			t.Errorf("%v\n%s\nwant\n%s", err, got, want.String())
		}
		whole := bytes.TrimSpace(answer.Bytes())
		if part := whole[:rapid.IntRange(0, len(whole)-1).Draw(t, "part")]; len(part) < len(whole) {
			if _, err := indent(part); err == nil {
				t.Errorf("%q is taken for a whole status", part)
			}
		}
	})
}

// BenchmarkIndent is about 1,000 endpoints.
func BenchmarkIndent(b *testing.B) {
	s := Status{Endpoints: make([]Endpoint, 1000)}
	s.fill()
	var answer bytes.Buffer
	if err := write(&answer, s); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := indent(answer.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}
