package iptables

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"netguard/netpolicy"
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

// An edit writes the chains that it changes, and leaves the others as they are. So it does
// where iptables lists rules in words that netguard does not know.
func TestEditWritesWhatChanged(t *testing.T) {
	for name, words := range map[string]string{"known_words": "s/x/x/", "unknown_words": "s/--dports/--destination-ports/"} {
		t.Run(name, func(t *testing.T) {
			alone(t)
			strangers(t)
			docker(t, NFT)
			dir := t.TempDir()
			log := filepath.Join(dir, "log")
			for program, command := range map[string]string{
				"iptables-save": "%s \"$@\" | sed '" + words + "'", "ip6tables-save": "%s \"$@\" | sed '" + words + "'",
				"iptables-restore": "tee -a " + log + " | %s \"$@\"",
			} {
				real, err := exec.LookPath(program)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"+fmt.Sprintf(command, real)+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			d := open(t)
			before, after := wishOf(shopOf(10)), wishOf(shopOf(10, "tcp/5433"))
			apply(t, d, before)
			if err := os.Truncate(log, 0); err != nil {
				t.Fatal(err)
			}
			apply(t, d, after)
			wrote, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			kept := 0
			for _, c := range after.Rules.V4.Chains {
				same := slices.ContainsFunc(before.Rules.V4.Chains, func(o netpolicy.Chain) bool { return o.Name == c.Name })
				if same {
					kept++
				}
				if written := strings.Contains(string(wrote), ":"+c.Name+" "); written == same {
					t.Errorf("%s was there: %t, and was written: %t", c.Name, same, written)
				}
			}
			if kept == 0 {
				t.Error("no chain is in both generations")
			}
			inSync(t, d)
		})
	}
}
