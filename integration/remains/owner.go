package remains

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// Owner is a process, told apart from a later one with the same id.
type Owner struct {
	PID int
	// Start is the process's start time in clock ticks since boot, as in
	// /proc/PID/stat.
	Start string
	// Boot is the kernel's boot id: after a reboot no owner lives.
	Boot string
}

// Self returns the calling process.
func Self() (Owner, error) {
	pid := os.Getpid()
	start, _, err := stat(pid)
	if err != nil {
		return Owner{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Owner{}, fmt.Errorf("read boot id: %w", err)
	}
	return Owner{PID: pid, Start: start, Boot: strings.TrimSpace(string(boot))}, nil
}

// Alive reports whether the process still runs. A zombie does not.
func (o Owner) Alive() bool {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || strings.TrimSpace(string(boot)) != o.Boot {
		return false
	}
	start, state, err := stat(o.PID)
	return err == nil && start == o.Start && state != "Z" && state != "X"
}

// stat returns fields 22 (start time) and 3 (state) of /proc/PID/stat.
func stat(pid int) (start, state string, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", "", fmt.Errorf("read process %d: %w", pid, err)
	}
	// The command's name, field 2, may hold blanks and brackets.
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 20 {
		return "", "", fmt.Errorf("read process %d: unexpected stat line %q", pid, raw)
	}
	return fields[19], fields[0], nil
}
