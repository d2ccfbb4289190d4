package desired

import (
	"net/netip"
	"slices"
	"testing"

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
	one := func(network, bridge string) []*Endpoint {
		return []*Endpoint{{Allow: allow, Extra: []netip.Addr{netip.MustParseAddr("192.0.2.10")}, Endpoint: endpoint.Endpoint{Key: endpoint.Key{Container: "web", Network: network},
			Network:    docker.Network{Name: "front", Bridge: bridge},
			Attachment: docker.Attachment{IPv4: netip.MustParseAddr("172.18.0.2")}}}}
	}
	p := &compiler{}
	catalog := &netpolicy.Catalog{}
	first := p.compile(catalog, one("n1", "br-1"), false, 0)
	t.Run("the_same_again_is_not_compiled_again", func(t *testing.T) {
		if p.compile(catalog, one("n1", "br-1"), false, 0) != first {
			t.Error("it is")
		}
	})
	t.Run("connections_of_addresses_by_label_are_gone_over_too", func(t *testing.T) {
		w := first.Wish
		if !slices.Contains(w.Containers, netip.MustParseAddr("192.0.2.10")) || !slices.Equal(w.Away, subnets("198.51.100.0/24")) {
			t.Errorf("%v, %v", w.Containers, w.Away)
		}
		if !slices.Contains(w.Homes, iptables.Home{Addr: netip.MustParseAddr("192.0.2.10"), Bridge: "br-1"}) || len(w.Homes) != 2 {
			t.Errorf("homes %v", w.Homes)
		}
	})
	t.Run("the_first_published_port_makes_rules_about_ports_and_they_stay", func(t *testing.T) {
		web := one("n1", "br-1")
		web[0].Container.Ports = []docker.Published{{ContainerPort: 80, HostPort: 8080, Proto: "tcp"}}
		with := p.compile(catalog, web, false, 0).Rules
		after := p.compile(catalog, one("n1", "br-1"), false, 0).Rules
		if with.Generation == first.Rules.Generation || after.Generation != with.Generation || len(after.V4.Sets) <= len(first.Rules.V4.Sets) {
			t.Errorf("%s, then %s, then %s", first.Rules.Generation, with.Generation, after.Generation)
		}
	})
	t.Run("a_network_made_anew_with_the_same_name_and_addresses_is_another", func(t *testing.T) {
		if p.compile(catalog, one("n2", "br-2"), false, 0) == first {
			t.Error("the bridge of before counts")
		}
	})
}
