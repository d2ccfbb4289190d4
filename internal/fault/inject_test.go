//go:build faultinject

package fault

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func env(of map[string]string) func(string) string {
	return func(name string) string { return of[name] }
}

// outcome is what became of a write.
type outcome struct{ made, died, failed bool }

func TestWrite(t *testing.T) {
	made, died, refused, lied := outcome{made: true}, outcome{died: true}, outcome{failed: true}, outcome{made: true, failed: true}
	for text, want := range map[string][]outcome{
		"":              {made, made, made},
		"kill:2":        {made, died, made},
		"kill-after:2":  {made, {made: true, died: true}, made},
		"error:2":       {made, refused, refused},
		"error-after:2": {made, lied, lied},
	} {
		t.Run(text, func(t *testing.T) {
			p, err := parse(env(map[string]string{Plan: text}))
			if err != nil {
				t.Fatal(err)
			}
			for i, w := range want {
				var got outcome
				func() {
					defer func() { _ = recover() }() // dead
					err := p.write("x", func() error { got.made = true; return nil }, func() { got.died = true; panic("dead") })
					got.failed = errors.Is(err, ErrInjected)
				}()
				if got != w {
					t.Errorf("write %d: %+v, want %+v", i+1, got, w)
				}
			}
		})
	}
	t.Run("some_count_only", func(t *testing.T) {
		p, err := parse(env(map[string]string{Plan: "error:two:2"}))
		if err != nil {
			t.Fatal(err)
		}
		var failed []bool
		for _, what := range []string{"two", "one", "two", "one", "two"} {
			failed = append(failed, p.write(what, func() error { return nil }, nil) != nil)
		}
		if want := []bool{false, false, true, false, true}; !slices.Equal(failed, want) {
			t.Errorf("%v, want %v", failed, want)
		}
	})
	t.Run("errors_last_as_long_as_a_file", func(t *testing.T) {
		file, log := filepath.Join(t.TempDir(), "on"), filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := parse(env(map[string]string{Plan: "error:1", While: file, Log: log}))
		if err != nil {
			t.Fatal(err)
		}
		fine := func() error { return nil }
		if err := p.write("one", fine, nil); !errors.Is(err, ErrInjected) {
			t.Errorf("with the file: %v", err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := p.write("two", fine, nil); err != nil {
			t.Errorf("without the file: %v", err)
		}
		if text, err := os.ReadFile(log); string(text) != "1 one\n2 two\n" {
			t.Errorf("the log says %q, %v", text, err)
		}
	})
	t.Run("an_odd_plan_is_refused", func(t *testing.T) {
		for _, text := range []string{"kill", "kill:0", "kill:x", "burn:1"} {
			if _, err := parse(env(map[string]string{Plan: text})); err == nil {
				t.Errorf("%q is taken", text)
			}
		}
	})
}
