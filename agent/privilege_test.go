package agent

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"netguard/internal/asroot"
)

func TestLacking(t *testing.T) {
	const admin, raw = 1 << unix.CAP_NET_ADMIN, 1 << unix.CAP_NET_RAW
	for name, test := range map[string]struct {
		have  uint64
		uid   int
		words []string // none: it may run
		not   string
	}{
		"root":                      {1<<41 - 1, 0, nil, ""},
		"root_with_just_these":      {admin | raw, 0, nil, ""},
		"a_user_who_was_given_both": {admin | raw, 1000, nil, ""},
		"a_user":                    {0, 1000, []string{"CAP_NET_ADMIN (", " and CAP_NET_RAW (", "run it as root", "user 1000"}, "unit"},
		"without_NET_ADMIN":         {1<<41 - 1 - admin, 0, []string{"lacks CAP_NET_ADMIN (", "CapabilityBoundingSet="}, "CAP_NET_RAW"},
		"without_NET_RAW":           {1<<41 - 1 - raw, 0, []string{"lacks CAP_NET_RAW (", "--cap-add"}, "CAP_NET_ADMIN"},
	} {
		t.Run(name, func(t *testing.T) {
			err := lacking(test.have, test.uid)
			if (err == nil) != (test.words == nil) {
				t.Fatalf("error = %v", err)
			}
			for _, w := range test.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in %q", w, err)
				}
			}
			if err != nil && test.not != "" && strings.Contains(err.Error(), test.not) {
				t.Errorf("%q in %q", test.not, err)
			}
		})
	}
}

func TestPrivileged(t *testing.T) {
	asroot.Only(t)
	if err := privileged(); err != nil {
		t.Errorf("root: %v", err)
	}
}
