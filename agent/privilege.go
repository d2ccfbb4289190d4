package agent

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// needed are the capabilities without which the agent can do nothing, and what they
// are for. CAP_BPF and CAP_PERFMON (guard.Probe says) and CAP_NET_BROADCAST (package link) it
// only uses where it has them. It needs no other: docker.sock is root's, containers' namespaces are asked
// for over netlink and never entered.
var needed = []struct {
	bit  int
	name string
	why  string
}{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "to change bridge ports, queues, rules and sets"},
	{unix.CAP_NET_RAW, "CAP_NET_RAW", "for the sockets by which iptables finds its sets"},
}

// privileged says which capabilities this process lacks, before anything is written.
// What it has is passed on to the programs that it runs.
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
