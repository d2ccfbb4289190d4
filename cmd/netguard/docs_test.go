package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"netguard/netpolicy"
	"netguard/netpolicy/guard"
)

// blocks gives the examples of one language in a page of the documentation.
func blocks(t *testing.T, page, language string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for i, part := range strings.Split("\n"+string(text), "\n```") {
		// Every other part is an example; its first line is the language.
		if first, rest, _ := strings.Cut(part, "\n"); i%2 == 1 && first == language {
			all = append(all, rest+"\n")
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s has no examples in %s", page, language)
	}
	return all
}

// What people copy has to work.
func TestDocs(t *testing.T) {
	t.Run("policies_are_valid", func(t *testing.T) {
		for i, text := range blocks(t, "policies.md", "yaml") {
			dir := policyDir(t, map[string]string{"policy.yaml": text})
			if code, out, faults := netguard(t, "policy", "validate", dir); code != 0 || out != "1 policy in 1 file\n" {
				t.Errorf("example %d: %s%s", i, out, faults)
			}
		}
	})
	t.Run("violations_have_a_row_each", func(t *testing.T) {
		for _, page := range []string{"troubleshooting.md", "guard.md"} {
			text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
			if err != nil {
				t.Fatal(err)
			}
			for _, kind := range guard.Kinds {
				if !regexp.MustCompile("(?m)^\\|[^|]*`" + kind + "`").Match(text) {
					t.Errorf("%s has no row about %s", page, kind)
				}
			}
		}
	})
	t.Run("labels_are_valid", func(t *testing.T) {
		w := netpolicy.Workload{Labels: map[string]string{}}
		for _, text := range blocks(t, "labels.md", "yaml") {
			var compose struct {
				Services map[string]struct{ Labels map[string]string }
			}
			if err := yaml.Unmarshal([]byte(text), &compose); err != nil {
				t.Fatal(err)
			}
			for _, s := range compose.Services {
				for k, v := range s.Labels {
					w.Labels[k] = v
				}
			}
		}
		if faults := labelFaults(w.Labels); len(faults) > 0 || w.Labels["netguard.ingress"] == "" {
			t.Error(faults, w.Labels)
		}
		given := regexp.MustCompile(`--label '(netguard\.\w+)=([^']*)'`).FindAllStringSubmatch(strings.Join(blocks(t, "labels.md", ""), ""), -1)
		if len(given) < 2 {
			t.Error("no labels on a command line")
		}
		for _, g := range given {
			if faults := labelFaults(map[string]string{g[1]: g[2]}); len(faults) > 0 {
				t.Error(faults)
			}
		}
	})
	t.Run("faults_are_as_shown", func(t *testing.T) {
		dir := policyDir(t, map[string]string{"api.yaml": badPolicy})
		_, _, faults := netguard(t, "policy", "validate", dir)
		shown := strings.Join(blocks(t, "policies.md", ""), "")
		if !strings.Contains(shown, strings.ReplaceAll(faults, dir+"/", "")) {
			t.Errorf("validate says %s", faults)
		}
	})
}
