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
)

func TestCompile(t *testing.T) {
	allow, err := guard.ParseAllow("192.0.2.10")
	if err != nil {
		t.Fatal(err)
	}
	one := func(network, bridge string) []desire {
		return []desire{{allow: allow, Endpoint: endpoint.Endpoint{Key: endpoint.Key{Container: "web", Network: network},
			Network:    docker.Network{Name: "front", Bridge: bridge},
			Attachment: docker.Attachment{IPv4: netip.MustParseAddr("172.18.0.2")}}}}
	}
	p := &police{}
	catalog := &netpolicy.Catalog{}
	p.compile(catalog, one("n1", "br-1"))
	first := p.ruling
	t.Run("the_same_again_is_not_compiled_again", func(t *testing.T) {
		if p.compile(catalog, one("n1", "br-1")); p.ruling != first {
			t.Error("it is")
		}
	})
	t.Run("connections_of_addresses_by_label_are_gone_over_too", func(t *testing.T) {
		if got := first.wish().Containers; !slices.Contains(got, netip.MustParseAddr("192.0.2.10")) {
			t.Errorf("%v", got)
		}
	})
	t.Run("a_network_made_anew_with_the_same_name_and_addresses_is_another", func(t *testing.T) {
		if p.compile(catalog, one("n2", "br-2")); p.ruling == first {
			t.Error("the bridge of before counts")
		}
	})
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
