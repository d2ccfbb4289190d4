package iptables

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The programs that write the two families of a generation run at the same time.
func TestFamiliesAreBuiltAtOnce(t *testing.T) {
	alone(t)
	strangers(t)
	docker(t, NFT)
	dir := t.TempDir()
	fifo := filepath.Join(dir, "meet")
	run(t, "mkfifo", fifo)
	// Opening a FIFO waits for whoever opens the other end.
	for name, meet := range map[string]string{"iptables-restore": "echo >", "ip6tables-restore": "cat <"} {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		script := fmt.Sprintf("#!/bin/sh\nif mkdir %[1]s/%[2]s.first 2>/dev/null; then timeout 20 sh -c '%[3]s %[4]s' >&2 || exit 1; fi\nexec %[5]s \"$@\"\n",
			dir, name, meet, fifo, real)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	d := open(t)
	apply(t, d, states()[0].wish())
	for _, name := range []string{"iptables-restore", "ip6tables-restore"} {
		if _, err := os.Stat(filepath.Join(dir, name+".first")); err != nil {
			t.Errorf("%s did not run: %v", name, err)
		}
	}
	inSync(t, d)
}
