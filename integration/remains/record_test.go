package remains

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRecord(t *testing.T) {
	good := Record{Name: "ngt-1", Dir: "/tmp/ngt-1", Netns: []string{"ngt-1"}, Cgroup: "ngt-1"}
	if err := good.check(); err != nil {
		t.Fatalf("a usual record should be fine: %v", err)
	}
	for name, spoil := range map[string]func(*Record){
		"the machine's root":          func(r *Record) { r.Dir = "/" },
		"no directory":                func(r *Record) { r.Dir = "" },
		"somebody else's directory":   func(r *Record) { r.Dir = "/var/lib/docker" },
		"a way out of the directory":  func(r *Record) { r.Dir = "/tmp/ngt-1/../../var" },
		"a relative directory":        func(r *Record) { r.Dir = "ngt-1" },
		"somebody else's cgroup":      func(r *Record) { r.Cgroup = "docker" },
		"a way out of the cgroups":    func(r *Record) { r.Cgroup = "ngt-1/../../.." },
		"somebody else's namespace":   func(r *Record) { r.Netns = []string{"ngt-1", "cni-1"} },
		"a way out of the namespaces": func(r *Record) { r.Netns = []string{"ngt-/../../tmp"} },
		"a name that is a path":       func(r *Record) { r.Name = "ngt-1/../../x" },
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			r := good
			r.Netns = append([]string(nil), good.Netns...)
			spoil(&r)
			if r.Write() == nil {
				os.Remove(r.path())
				t.Error("it should not be written")
			}
			if r.Remove(false) == nil {
				t.Error("it should not be acted upon")
			}
		})
	}
}

func TestRemove(t *testing.T) {
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "ngt-removetest")
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := Record{Name: "ngt-removetest", Owner: self, Dir: dir}
	if err := r.Write(); err != nil {
		t.Fatal(err)
	}

	t.Run("is not for a living owner's sweep", func(t *testing.T) {
		if _, err := Sweep(); err != nil {
			t.Fatal(err)
		}
		if got, err := Find(r.Name); err != nil || got.Dir != dir {
			t.Fatalf("the record should be there still: %v, %v", got, err)
		}
	})
	t.Run("without a cgroup leaves strangers alone", func(t *testing.T) {
		if pids, err := r.Processes(); err != nil || len(pids) > 0 {
			t.Fatalf("no process is this record's: %v, %v", pids, err)
		}
	})
	t.Run("leaves nothing, once and twice", func(t *testing.T) {
		for range 2 {
			if err := r.Remove(false); err != nil {
				t.Fatal(err)
			}
			if left, err := r.Left(); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		}
	})
}
