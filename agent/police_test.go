package agent

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
)

func TestCompile(t *testing.T) {
	allow, err := guard.ParseAllow("192.0.2.10,198.51.100.0/24")
	if err != nil {
		t.Fatal(err)
	}
	one := func(network, bridge string) []*desire {
		return []*desire{{allow: allow, extra: []netip.Addr{netip.MustParseAddr("192.0.2.10")}, Endpoint: endpoint.Endpoint{Key: endpoint.Key{Container: "web", Network: network},
			Network:    docker.Network{Name: "front", Bridge: bridge},
			Attachment: docker.Attachment{IPv4: netip.MustParseAddr("172.18.0.2")}}}}
	}
	p := &police{}
	catalog := &netpolicy.Catalog{}
	p.compile(catalog, one("n1", "br-1"), false)
	first := p.ruling
	t.Run("the_same_again_is_not_compiled_again", func(t *testing.T) {
		if p.compile(catalog, one("n1", "br-1"), false); p.ruling != first {
			t.Error("it is")
		}
	})
	t.Run("connections_of_addresses_by_label_are_gone_over_too", func(t *testing.T) {
		w := first.wish()
		if !slices.Contains(w.Containers, netip.MustParseAddr("192.0.2.10")) || !slices.Equal(w.Away, subnets("198.51.100.0/24")) {
			t.Errorf("%v, %v", w.Containers, w.Away)
		}
		if !slices.Contains(w.Homes, iptables.Home{Addr: netip.MustParseAddr("192.0.2.10"), Bridge: "br-1"}) || len(w.Homes) != 2 {
			t.Errorf("homes %v", w.Homes)
		}
	})
	t.Run("a_network_made_anew_with_the_same_name_and_addresses_is_another", func(t *testing.T) {
		if p.compile(catalog, one("n2", "br-2"), false); p.ruling == first {
			t.Error("the bridge of before counts")
		}
	})
}

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

func TestApplied(t *testing.T) {
	now := time.Now()
	p := &police{dirty: true, wait: time.Second}
	if p.applied(now); p.dirty || p.wait != 0 || !p.at.Equal(now.Add(policeEvery)) {
		t.Errorf("the next look is in %v", p.at.Sub(now))
	}
	// Somebody else wrote rules, and at the same moment a container came.
	p.soon([]string{"iptables"})
	if p.applied(now); !p.at.Equal(now.Add(verifySoon)) {
		t.Errorf("what somebody else did is looked at in %v", p.at.Sub(now))
	}
}
