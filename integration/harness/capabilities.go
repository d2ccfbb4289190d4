package harness

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// capabilities in the kernel's order (linux/capability.h, as of Linux 5.9).
var capabilities = strings.Fields(`
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
PERFMON BPF CHECKPOINT_RESTORE`)

var boundingSet = regexp.MustCompile(`(?m)^CapBnd:\s*([0-9a-f]+)$`)

// missingCapabilities names the capabilities that this process cannot pass to a child.
func missingCapabilities() ([]string, error) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	m := boundingSet.FindSubmatch(raw)
	if m == nil {
		return nil, fmt.Errorf("read own capabilities: no CapBnd in /proc/self/status")
	}
	have, err := strconv.ParseUint(string(m[1]), 16, 64)
	if err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	var missing []string
	for number, name := range capabilities {
		if have&(1<<number) == 0 {
			missing = append(missing, name)
		}
	}
	return missing, nil
}
