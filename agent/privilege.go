package agent

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// needed are the capabilities without which the agent cannot work, and what each is for. The
// agent uses three more if it has them: CAP_BPF and CAP_PERFMON (see guard.Probe), and
// CAP_NET_BROADCAST (see package link). It needs no other: docker.sock belongs to root, and the
// agent asks about containers' namespaces over netlink and never enters them.
var needed = []struct {
	bit  int
	name string
	why  string
}{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "to change bridge ports, queues, rules and sets"},
	{unix.CAP_NET_RAW, "CAP_NET_RAW", "for the sockets by which iptables finds its sets"},
}

// privileged gives an error if this process lacks a needed capability. The agent calls it
// before it writes anything. The programs that the agent runs inherit its capabilities.
func privileged() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("ask for the capabilities of this process: %w", err)
	}
	return lacking(uint64(data[1].Effective)<<32|uint64(data[0].Effective), os.Geteuid())
}

// lacking names the capabilities that are missing, and the remedy.
func lacking(have uint64, uid int) error {
	var lacks []string
	for _, n := range needed {
		if have&(1<<n.bit) == 0 {
			lacks = append(lacks, n.name+" ("+n.why+")")
		}
	}
	switch {
	case len(lacks) == 0:
		return nil
	case uid != 0:
		return fmt.Errorf("netguard lacks %s: run it as root; this is user %d", strings.Join(lacks, " and "), uid)
	}
	return fmt.Errorf("netguard lacks %s: give it back what was taken from root (CapabilityBoundingSet= of the unit, or --cap-add of its container)",
		strings.Join(lacks, " and "))
}
