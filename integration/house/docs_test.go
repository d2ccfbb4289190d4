package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// root is the module's folder.
const root = "../.."

var (
	testFunc = regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(`)
	testName = regexp.MustCompile("`(\\w+)\\.(Test[A-Z]\\w*)`")
)

// TestDocs: a test that documentation names as a proof exists.
func TestDocs(t *testing.T) {
	tests := map[string]bool{} // "package.TestName", by the last word of the folder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !regexp.MustCompile(`_test\.go$`).MatchString(path) {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllSubmatch(text, -1) {
			tests[filepath.Base(filepath.Dir(path))+"."+string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	docs, err := filepath.Glob(root + "/docs/*.md")
	if err != nil || len(docs) < 5 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	named := 0
	for _, doc := range append(docs, root+"/README.md") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testName.FindAllSubmatch(text, -1) {
			named++
			if name := string(m[1]) + "." + string(m[2]); !tests[name] {
				t.Errorf("%s names %s, which does not exist", filepath.Base(doc), name)
			}
		}
	}
	if named < 20 {
		t.Errorf("only %d tests are named: has the notation changed?", named)
	}
}
