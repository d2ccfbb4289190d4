package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is lost for a moment only, while a file is written anew or its directory
// moved, is in force throughout.
func TestReload(t *testing.T) {
	const db = "name: db\nselect: {service: db}\ningress: []\n"
	const web = "name: web\nselect: {service: web}\ningress: []\n"
	type step func(t *testing.T, dir string)
	write := func(file, text string) step {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(file string) step {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, file)); err != nil {
				t.Fatal(err)
			}
		}
	}
	away := func(t *testing.T, dir string) {
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
	}
	back := func(t *testing.T, dir string) {
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
	}
	nothing := func(*testing.T, string) {}
	for name, test := range map[string]struct {
		first, edit, meanwhile step
		want                   string
		paused                 bool
		finding                string
	}{
		"removed_and_written_anew":  {write("a.yaml", db), remove("a.yaml"), write("a.yaml", db), "db", true, ""},
		"truncated_and_written":     {write("a.yaml", db), write("a.yaml", ""), write("a.yaml", db), "db", true, ""},
		"half_written":              {write("a.yaml", db+"---\n"+web), write("a.yaml", db), write("a.yaml", db+"---\n"+web), "db web", true, ""},
		"removed":                   {write("a.yaml", db), remove("a.yaml"), nothing, "", true, ""},
		"emptied":                   {write("a.yaml", db), write("a.yaml", "# later\n"), nothing, "", true, ""},
		"edited":                    {write("a.yaml", db), write("a.yaml", strings.Replace(db, "[]", "[{}]", 1)), nothing, "db", false, ""},
		"made":                      {nothing, write("a.yaml", db), nothing, "db", false, ""},
		"the_directory_moved":       {write("a.yaml", db), away, back, "db", true, ""},
		"the_directory_gone":        {write("a.yaml", db), away, nothing, "db", true, "is gone"},
		"an_empty_directory_gone":   {nothing, away, nothing, "", false, ""},
		"a_faulty_file_made_anew":   {write("a.yaml", db+"x: 1\n"), remove("a.yaml"), write("a.yaml", "name: ["), "closed service=db", true, "isolated until"},
		"a_faulty_file_removed":     {write("a.yaml", db+"x: 1\n"), remove("a.yaml"), nothing, "", true, ""},
		"a_link_to_nothing":         {write("a.yaml", db), func(t *testing.T, dir string) { _ = os.Symlink("none", filepath.Join(dir, "b.yaml")) }, nothing, "db", false, ""},
		"what_is_no_file_beside_it": {write("a.yaml", db), func(t *testing.T, dir string) { _ = os.Mkdir(filepath.Join(dir, "b.yaml"), 0o700) }, nothing, "db", false, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "policies")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			test.first(t, dir)
			p := newPolicies(dir, false)
			if err := p.start(); err != nil {
				t.Fatal(err)
			}
			paused := false
			p.pause = func(context.Context) { paused = true; test.meanwhile(t, dir) }
			test.edit(t, dir)
			p.reload(t.Context(), slog.New(slog.DiscardHandler))
			var words []string
			for _, policy := range p.now.Load().Policies() {
				words = append(words, policy.Name())
			}
			for _, b := range p.now.Load().Broken() {
				words = append(words, "closed "+b.Select.String())
			}
			if got := strings.Join(words, " "); got != test.want || paused != test.paused {
				t.Errorf("in force is %q, want %q; paused: %v", got, test.want, paused)
			}
			findings := strings.Join(p.findings(), "\n")
			if !strings.Contains(findings, test.finding) || (test.finding == "") != (findings == "") {
				t.Errorf("findings: %s", findings)
			}
		})
	}
	t.Run("an_agent_does_not_start_with_a_file_that_is_none", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "b.yaml"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := newPolicies(dir, false).start(); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Error(err)
		}
	})
	t.Run("without_a_directory_it_does", func(t *testing.T) {
		if err := newPolicies(filepath.Join(t.TempDir(), "none"), false).start(); err != nil {
			t.Error(err)
		}
	})
}
