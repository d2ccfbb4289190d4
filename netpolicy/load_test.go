package netpolicy

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares what people read with the file that holds it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

// Each testdata/faults/*.yaml holds faults; what the operator reads stands
// beside it, and what is known of whom the file is about.
func TestFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c := Load([]Source{{filepath.Base(file), data}})
			if len(c.Faults()) == 0 {
				t.Fatal("no fault was found")
			}
			if len(c.Policies()) > 0 {
				t.Error("policies of a file with faults are in force")
			}
			var b strings.Builder
			b.WriteString(c.Faults().Error() + "\n\n")
			for _, s := range c.Broken() {
				b.WriteString("closed: " + s.Select.String() + " (" + s.String() + ")\n")
			}
			if len(c.Unclear()) > 0 {
				b.WriteString("unclear\n")
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", b.String())
		})
	}
}
