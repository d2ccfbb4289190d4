package label

import (
	"os"
	"strings"
	"testing"
)

// TestDocs: docs/labels.md has the table of the registry, word for word.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/labels.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), Markdown()) {
		t.Errorf("docs/labels.md has another table of labels than:\n%s", Markdown())
	}
	for _, l := range All {
		page, anchor, _ := strings.Cut(l.Page, "#")
		about, err := os.ReadFile("../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		if anchor == "" {
			continue
		}
		found := false
		for line := range strings.Lines(string(about)) {
			if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
				found = found || strings.ReplaceAll(strings.ToLower(strings.TrimSpace(title)), " ", "-") == anchor
			}
		}
		if !found {
			t.Errorf("%s: %s has no heading %q", l.Key, page, anchor)
		}
	}
}

func TestKeys(t *testing.T) {
	seen := map[string]bool{}
	for _, key := range Keys() {
		if _, ok := Find(key); !ok || seen[key] || !strings.HasPrefix(key, Prefix) {
			t.Errorf("key %q", key)
		}
		seen[key] = true
	}
	if len(seen) != len(All) {
		t.Errorf("%d keys of %d labels", len(seen), len(All))
	}
	if got := (Label{Key: EgressRate}).ForNetwork("shop_backend"); got != "netguard.network.shop_backend.egress.rate" {
		t.Errorf("for one network: %s", got)
	}
}
