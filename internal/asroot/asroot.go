// Package asroot marks the tests that root alone can run: they make network namespaces,
// write rules and load BPF programs.
//
// `make units` sets NETGUARD_TEST_NO_ROOT, and there they skip themselves. Everywhere else
// they run, and fail for whoever is not root: a test that was meant to run never goes missing.
package asroot

import (
	"os"
	"testing"
)

// NoRoot is the environment variable that leaves these tests out.
const NoRoot = "NETGUARD_TEST_NO_ROOT"

const (
	left = "root alone can run this: it is left out because " + NoRoot + " is set"
	must = "root alone can run this: run it as root, or leave it out with " + NoRoot + "=1"
)

// Only is called first by a test that needs root.
func Only(t testing.TB) {
	t.Helper()
	if os.Getenv(NoRoot) != "" {
		t.Skip(left)
	}
	if os.Geteuid() != 0 {
		t.Fatal(must)
	}
}
