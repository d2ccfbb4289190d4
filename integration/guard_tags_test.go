package integration

import (
	"net/netip"
	"testing"

	"netguard/agent/control"
	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// encapsulated are ways to hide a datagram from iptables.
var encapsulated = []struct {
	name string
	wrap func([]byte) []byte
	// read says that Linux takes what is inside to be for itself.
	read bool
}{
	{"VLAN_0", func(f []byte) []byte { return attack.Tagged(f, attack.EtherVLAN, 0) }, true},
	{"VLAN_0_with_a_priority", func(f []byte) []byte { return attack.Tagged(f, attack.EtherVLAN, 0xe000) }, true},
	{"VLAN_5", func(f []byte) []byte { return attack.Tagged(f, attack.EtherVLAN, 5) }, false},
	{"two_tags", func(f []byte) []byte {
		return attack.Tagged(attack.Tagged(f, attack.EtherVLAN, 0), attack.EtherVLAN, 0)
	}, true},
	{"802.1ad", func(f []byte) []byte { return attack.Tagged(f, attack.EtherQinQ, 0) }, true},
	{"802.1ad_and_802.1Q", func(f []byte) []byte {
		return attack.Tagged(attack.Tagged(f, attack.EtherVLAN, 0), attack.EtherQinQ, 0)
	}, true},
}

// TestGuardTags has a container send what iptables refuses in frames that
// iptables does not see.
func TestGuardTags(t *testing.T) {
	t.Parallel()
	e := Start(t, WithBridgeNetfilter())
	const unguarded = "networks: {unguarded: [net, closed]}\n"
	// A port that policies close for what reaches it takes no such frame, guarded or not.
	a := e.NewAgent(Config(unguarded), Policy("deny.yaml", "name: nobody\nselect: {network: net}\negress: []\n"))
	e.Network("net", Subnet("198.18.21.0/24"))
	e.Network("closed", NoICC(), Subnet("198.18.22.0/24"))
	pair := func(network string) (from, to *actor, app application) {
		from, to = enter(t, e.Run("from-"+network, On(network)), network), enter(t, e.Run("to-"+network, On(network)), network)
		return from, to, listen(t, to)
	}
	// plainly sends a datagram as anybody does, and tells whether it came; tagged
	// sends it in a frame.
	plainly := func(from, to *actor, app application) bool {
		if err := from.port.Send(attack.Ether(to.MAC, from.MAC, attack.EtherIPv4, udp4(from, to, "plain"))); err != nil {
			t.Fatal(err)
		}
		return app.got("plain")
	}
	tagged := func(t *testing.T, from, to *actor, app application, wrap func([]byte) []byte) (heard, read bool) {
		t.Helper()
		f := wrap(attack.Ether(to.MAC, from.MAC, attack.EtherIPv4, udp4(from, to, "tagged")))
		// Policies let ARP pass, and nobody else says that.
		last := attack.Ether(to.MAC, from.MAC, attack.EtherARP, attack.ARP(attack.Reply, from.MAC, from.IPv4, to.MAC, netip.MustParseAddr("192.0.2.1")))
		to.port.Drain()
		if err := from.port.Send(f, last); err != nil {
			t.Fatal(err)
		}
		n, err := to.port.Hears([]byte("tagged"), last, deadline())
		if err != nil {
			t.Fatalf("not even ARP arrived: %v", err)
		}
		return n > 0, app.got("tagged")
	}

	from, to, app := pair("closed")
	polFrom, polTo, polApp := pair("net")
	t.Run("without_netguard/a_network_without_a_policy_is_open", func(t *testing.T) {
		if !plainly(polFrom, polTo, polApp) {
			t.Error("a plain datagram does not arrive")
		}
	})
	passes := func(name string, from, to *actor, app application) {
		t.Run(name+"/plain_datagrams_do_not_pass", func(t *testing.T) {
			if plainly(from, to, app) {
				t.Error("it passed")
			}
		})
		for _, way := range encapsulated {
			t.Run(name+"/"+way.name+"_passes", func(t *testing.T) {
				if heard, read := tagged(t, from, to, app, way.wrap); !heard || read != way.read {
					t.Errorf("arrived: %v, read by the application: %v, want %v", heard, read, way.read)
				}
			})
		}
	}
	passes("icc=false_without_netguard", from, to, app)

	a.Start()
	a.AwaitStatus("all are there", func(s control.Status) bool {
		ep, _ := Endpoint(s, polTo.Container, "net")
		return AllAdmitted(s) && len(ep.Policy.Egress) == 1
	})
	passes("a_policy_without_the_guard", polFrom, polTo, polApp)

	a.WriteConfig("")
	a.AwaitStatus("all are guarded", func(s control.Status) bool {
		ep, ok := Endpoint(s, polFrom.Container, "net")
		return ok && AllAdmitted(s) && ep.Reason == ""
	})
	fails := func(name string, from, to *actor, app application) {
		t.Run(name+"/plain_datagrams_do_not_pass", func(t *testing.T) {
			if plainly(from, to, app) {
				t.Error("it passed")
			}
		})
		for _, way := range encapsulated {
			t.Run(name+"/"+way.name+"_does_not_pass", func(t *testing.T) {
				want := plus(violations(t, a, from)[0], attack.OfEthertype, 1)
				if heard, read := tagged(t, from, to, app, way.wrap); heard || read {
					t.Errorf("arrived: %v, read by the application: %v", heard, read)
				}
				if got := violations(t, a, from)[0]; got != want {
					t.Errorf("violations %+v, want %+v", got, want)
				}
			})
		}
	}
	fails("icc=false_with_the_guard", from, to, app)
	fails("a_policy_with_the_guard", polFrom, polTo, polApp)
}
