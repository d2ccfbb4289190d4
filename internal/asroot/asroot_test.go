package asroot_test

import (
	"os"
	"testing"

	"netguard/internal/asroot"
)

// spy notes how a test would have ended.
type spy struct {
	testing.TB
	ended string
}

func (*spy) Helper()        {}
func (s *spy) Skip(...any)  { s.end("skipped") }
func (s *spy) Fatal(...any) { s.end("failed") }

// end keeps the first: a real test goes no further.
func (s *spy) end(how string) {
	if s.ended == "" {
		s.ended = how
	}
}

func TestOnly(t *testing.T) {
	without := "failed"
	if os.Geteuid() == 0 {
		without = ""
	}
	for _, c := range []struct{ noRoot, want string }{{"1", "skipped"}, {"", without}} {
		t.Setenv(asroot.NoRoot, c.noRoot)
		s := &spy{TB: t}
		if asroot.Only(s); s.ended != c.want {
			t.Errorf("%s=%q, user %d: %q, want %q", asroot.NoRoot, c.noRoot, os.Geteuid(), s.ended, c.want)
		}
	}
}
