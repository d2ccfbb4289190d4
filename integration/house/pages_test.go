package house

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestPages: the folders and files that the pages for contributors name are there.
func TestPages(t *testing.T) {
	named := regexp.MustCompile("`((?:agent|cmd|docs|integration|internal|netpolicy|packaging|policies|shaper)(?:/[\\w.-]+)*)`")
	for _, page := range []string{"CONTRIBUTING.md", "docs/architecture.md", "README.md"} {
		text, err := os.ReadFile(root + "/" + page)
		if err != nil {
			t.Fatal(err)
		}
		paths := named.FindAllStringSubmatch(string(text), -1)
		if len(paths) < 5 {
			t.Errorf("%s names %d places: has the notation changed?", page, len(paths))
		}
		for _, m := range paths {
			if _, err := os.Stat(root + "/" + m[1]); err != nil {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
		}
	}
	// A target that a page tells to make.
	makefile, err := os.ReadFile(root + "/Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"CONTRIBUTING.md", "README.md"} {
		text, err := os.ReadFile(root + "/" + page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?m)(?:^|`|sudo )make ([a-z ]+)").FindAllStringSubmatch(string(text), -1) {
			for target := range strings.FieldsSeq(m[1]) {
				if !strings.Contains(string(makefile), "\n"+target+":") {
					t.Errorf("%s tells to make %s, which is no target", page, target)
				}
			}
		}
	}
}
