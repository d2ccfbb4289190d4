package reconcile

import (
	"net/netip"
	"testing"

	"netguard/netpolicy"
	"netguard/netpolicy/iptables"
)

// TestPacket: the host's connections are judged as the host's, whichever of its addresses
// they come from, and by what they are led to.
func TestPacket(t *testing.T) {
	at := netip.MustParseAddrPort
	local := map[netip.Addr]bool{netip.MustParseAddr("198.51.100.1"): true, netip.MustParseAddr("127.0.0.1"): true}
	for name, c := range map[string]struct {
		src, dst, dialled string
		path              netpolicy.Path
	}{
		"between_containers":                 {"172.18.0.2:40000", "172.18.0.3:80", "172.18.0.3:80", netpolicy.Forward},
		"to_the_host":                        {"172.18.0.2:40000", "198.51.100.1:80", "198.51.100.1:80", netpolicy.Input},
		"by_the_hosts_own_address":           {"198.51.100.1:40000", "172.18.0.3:80", "198.51.100.1:8080", netpolicy.Output},
		"by_loopback":                        {"127.0.0.1:40000", "172.18.0.3:80", "127.0.0.1:8080", netpolicy.Output},
		"by_another_address_of_loopback":     {"127.0.0.9:40000", "172.18.0.3:80", "127.0.0.9:8080", netpolicy.Output},
		"to_the_host_by_loopback_of_ours":    {"172.18.0.2:40000", "127.0.0.9:80", "198.51.100.1:80", netpolicy.Input},
		"of_a_container_by_a_published_port": {"172.18.0.2:40000", "172.18.0.3:80", "198.51.100.1:8080", netpolicy.Forward},
		"of_the_world_by_a_published_port":   {"203.0.113.5:40000", "172.18.0.3:80", "198.51.100.1:8080", netpolicy.Forward},
	} {
		got := packet(iptables.Flow{Src: at(c.src), Dst: at(c.dst), Dialled: at(c.dialled), Proto: netpolicy.TCP}, local)
		if got.Path != c.path || got.Dst != at(c.dst).Addr() || got.Port != at(c.dst).Port() {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
