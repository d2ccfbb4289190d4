package scale

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRun checks that a run can be written and read again, and checks its table.
func TestRun(t *testing.T) {
	want := Run{Label: "a", Compile: 40, Sizes: []Size{
		{Kind: "stub", Endpoints: 1000, StartCPU: 15.25, Restart: -1, Idle: 0.213, Note: "not in sync within 2m0s"},
		{Kind: "docker", Endpoints: 10, StartCPU: 121},
	}}
	file := filepath.Join(t.TempDir(), "run.json")
	if err := want.Write(file); err != nil {
		t.Fatal(err)
	}
	got, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("read back:\n%s", diff)
	}
	var table strings.Builder
	if err := got.Table(&table); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(table.String()), " ")
	for _, line := range []string{
		"endpoints stub 1000 docker 10 ", "start, CPU ms 15.2 121 ", "idle, % of a core 0.21 0.00 ", "restart, ms - 0.00 ",
		"containers: 40.0 ms ", "stub 1000: not in sync within 2m0s",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the table lacks %q:\n%s", line, table.String())
		}
	}
}
