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
			c := Load(texts(filepath.Base(file), string(data)))
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

const (
	goodDB  = "name: db\ndescription: only the api\nselect: {project: shop, service: db}\ningress: [{from: [{service: api}], ports: [tcp/5432]}]\n"
	goodWeb = "name: web\nselect: {project: shop, service: web}\negress: []\n"
	badDB   = "name: db\nselect: {project: shop, service: db}\ningres: []\n"
	badAll  = "name: db\nselekt: {}\ningress: []\n"
)

func names(policies []Policy) string {
	var all []string
	for _, p := range policies {
		all = append(all, p.Name())
	}
	return strings.Join(all, " ")
}

func TestLoad(t *testing.T) {
	t.Run("gives_what_the_file_says", func(t *testing.T) {
		p := mustLoad(t, goodDB)[0]
		want := []string{"db", "only the api", "project=shop service=db", "test.yaml:1:1", "project=shop service=api"}
		got := []string{p.Name(), p.Description(), p.Select().String(), p.At().String(), p.Peers()[0].String()}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if !p.Isolates(Ingress) || p.Isolates(Egress) {
			t.Error("isolates the wrong directions")
		}
	})
	t.Run("several_files_and_documents_in_order_of_names", func(t *testing.T) {
		c := Load(texts("b.yaml", goodWeb, "a.yaml", "---\n# nothing\n---\n"+goodDB+"---\nname: more\nselect: {}\negress: []\n...\n"))
		if got := names(c.Policies()); got != "db more web" || len(c.Faults()) > 0 {
			t.Error(got, c.Faults())
		}
	})
	t.Run("an_empty_file_is_none", func(t *testing.T) {
		for _, text := range []string{"", "# only words\n", "---\n---\n", "\ufeff", "null\n"} {
			if c := Load(texts("a.yaml", text)); len(c.Faults())+len(c.Policies()) > 0 {
				t.Errorf("%q: %v", text, c.Faults())
			}
		}
	})
	t.Run("a_name_is_unique_across_files", func(t *testing.T) {
		c := Load(texts("z.yaml", goodDB, "a.yaml", goodDB))
		if got := c.Faults().Error(); !strings.HasPrefix(got, "z.yaml:1:7: the name \"db\" is taken by the policy at a.yaml:1:7") {
			t.Error(got)
		}
		if got := names(c.Policies()); got != "db" {
			t.Errorf("in force: %q", got)
		}
	})
	t.Run("a_file_too_large_is_not_read", func(t *testing.T) {
		c := Load(texts("a.yaml", string(make([]byte, MaxFileBytes+1))))
		if len(c.Faults()) != 1 || len(c.Unclear()) != 1 {
			t.Error(c.Faults())
		}
	})
	t.Run("windows_line_ends", func(t *testing.T) {
		c := Load(texts("a.yaml", strings.ReplaceAll(goodDB, "\n", "\r\n")))
		if got := names(c.Policies()); got != "db" {
			t.Error(got, c.Faults())
		}
	})
}

// Whom a file with faults is about is told only if it is sure.
func TestBroken(t *testing.T) {
	for text, want := range map[string]string{
		"select: {service: db}\ningres: []":                           "service=db",
		"select: {service: db, project: 'sh*p'}\ningress: []":         "",
		"select: {service: db, projet: shop}\ningress: []":            "",
		"select: {service: db}\nselect: {service: api}\ningress: []":  "",
		"select: {service: [db]}\ningress: []":                        "",
		"select: {service: db}\ningress: [{ports: [tcp/x]}]":          "service=db",
		"select: {}\ningress: [{from: [{cidr: x}]}]":                  "every container",
		"select: {labels: {tier: data, tier: x}}\ningress: []":        "",
		"Select: {service: db}\ningress: []":                          "",
		"select: {entity: build}\negress: [{to: [{cidr: x}]}]":        "entity=build",
		"select: {entity: bild}\negress: []":                          "",
		"select: {entity: build, service: db}\negress: []":            "",
		"select: &a {service: db}\ningress: []":                       "service=db",
		"select: {service: db}\ningress: [{from: [{service: 'a*'}]}]": "service=db",
	} {
		c := Load(texts("x.yaml", "name: x\n"+text+"\n"))
		got := ""
		if b := c.Broken(); len(b) > 0 {
			got = b[0].Select.String()
		}
		if len(c.Faults()) == 0 || got != want || (len(c.Unclear()) == 0) != (want != "") {
			t.Errorf("%q is about %q, want %q; unclear %v, faults %v", text, got, want, c.Unclear(), c.Faults())
		}
	}
}
