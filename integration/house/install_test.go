package house

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestInstall: what docs/install.md tells to do is what the unit expects.
func TestInstall(t *testing.T) {
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(root + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	found := func(text, pattern string) string {
		t.Helper()
		m := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("nothing is like %s", pattern)
		}
		return m[1]
	}
	docs, unit := read("docs/install.md"), read("packaging/netguard.service")
	to, from := found(docs, `install -m 755 bin/netguard (\S+)`), found(unit, `(?m)^ExecStart=(\S+) agent$`)
	if to != from {
		t.Errorf("docs/install.md puts the binary at %s, the unit runs %s", to, from)
	}
	capability := regexp.MustCompile("CAP_[A-Z_]+")
	granted := capability.FindAllString(found(unit, `(?m)^CapabilityBoundingSet=(.*)$`), -1)
	var told []string
	for line := range strings.Lines(docs) {
		if cell, ok := strings.CutPrefix(line, "| `CAP_"); ok {
			told = append(told, capability.FindAllString("CAP_"+cell, -1)...)
		}
	}
	slices.Sort(granted)
	slices.Sort(told)
	if !slices.Equal(told, granted) {
		t.Errorf("docs/install.md lists %v, the unit grants %v", told, granted)
	}
	// The doctor judges the kernel, and its page says by what.
	oldest, judged := found(docs, `needs Linux (\S+) or later`), found(read("docs/doctor.md"), "`host.kernel` \\| (\\S+) or newer")
	if oldest != judged {
		t.Errorf("docs/install.md asks for Linux %s, docs/doctor.md for %s", oldest, judged)
	}
}
