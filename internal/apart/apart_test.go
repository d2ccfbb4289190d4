package apart

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"netguard/internal/asroot"
)

func TestRun(t *testing.T) {
	asroot.Only(t)
	namespace := func() string {
		var s unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/net", &s); err != nil {
			t.Error(err)
		}
		return fmt.Sprint(s.Ino)
	}
	here, there, fault := namespace(), "", errors.New("x")
	if err := Run(func() error { there = namespace(); return fault }); !errors.Is(err, fault) {
		t.Errorf("%v, want the error of what ran", err)
	}
	if there == "" || there == here || namespace() != here {
		t.Errorf("it ran in namespace %q; the test is in %q, and was in %q", there, namespace(), here)
	}
}
