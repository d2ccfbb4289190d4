package integration

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// TestUplinks has a Docker network on a bridge that holds the host's uplink.
func TestUplinks(t *testing.T) {
	t.Parallel()
	e := Start(t, WithOutside())
	host := e.Netns
	for _, args := range [][]string{
		{"link", "add", "lan0", "type", "bridge"}, {"link", "set", "lan0", "up"}, {"link", "set", Uplink, "master", "lan0"},
		{"addr", "flush", "dev", Uplink}, {"addr", "add", HostIPv4.String() + "/24", "dev", "lan0"},
	} {
		host.Output("ip", args...)
	}
	e.Network("lan", Subnet("198.51.100.0/24"), BridgeName("lan0"))
	c := e.Run("guest", On("lan", "198.51.100.130"), Doing("serve", "tcp", ":80"))
	e.Network("net", Subnet("198.18.77.0/24"))
	e.Run("other", On("net"))
	way := []reach{{"outside to the container", e.Outside.Netns, "tcp", c.Addr("lan", 80)}, {"host to the container", host, "tcp", c.Addr("lan", 80)}}
	server := e.Outside.SpawnProbe("serve", "tcp", ":81")
	defer server.Stop()
	way = append(way, reach{"host to outside", host, "tcp", OutsideIPv4.String() + ":81"})
	shall(t, way, true) // the control
	state := func(s control.Status, name string) string {
		i := slices.IndexFunc(s.Endpoints, func(e control.Endpoint) bool { return e.Container == name })
		if i < 0 {
			return ""
		}
		return s.Endpoints[i].State
	}
	a := e.Agent()
	s := a.AwaitStatus("the other network is guarded", func(s control.Status) bool { return state(s, "other") == control.Admitted })
	named := func(s control.Status) bool {
		return slices.ContainsFunc(s.Findings, func(f string) bool { return strings.Contains(f, Uplink) && strings.Contains(f, "networks.uplinks") })
	}
	if state(s, "guest") != control.Unmanaged || !named(s) {
		t.Errorf("%+v", s)
	}
	shall(t, way, true)
	a.Restart() // its kernel state is no reason to take the bridge
	a.AwaitStatus("the other network is guarded", func(s control.Status) bool {
		return state(s, "other") == control.Admitted && state(s, "guest") == control.Unmanaged
	})
	shall(t, way, true)
	a.WriteConfig("networks: {uplinks: [" + Uplink + "]}\n")
	a.AwaitStatus("the operator's word has it guarded", func(s control.Status) bool { return state(s, "guest") == control.Admitted && !named(s) })
	shall(t, way, true)
	host.Output("ip", "link", "add", "vx9", "type", "vxlan", "id", "9", "dev", "lo", "dstport", "4790")
	host.Output("ip", "link", "set", "vx9", "master", "lan0")
	s = a.AwaitStatus("the new port is named", func(s control.Status) bool {
		return slices.ContainsFunc(s.Findings, func(f string) bool { return strings.Contains(f, "vx9") })
	})
	if state(s, "guest") != control.Admitted {
		t.Error("a port that was added gave the bridge up")
	}
}

// TestSwarmPorts has a container send to Swarm's own ports of its host.
func TestSwarmPorts(t *testing.T) {
	t.Parallel()
	e := Start(t, WithOutside())
	c := e.Run("guest")
	a := e.Agent()
	a.AwaitStatus("the guest is admitted", AllAdmitted)
	listener := e.Outside.SpawnProbe("serve", "udp", ":4789", "tcp", ":7946", "tcp", ":80")
	defer listener.Stop()
	var closed []reach
	for _, to := range []string{"udp :4789", "tcp :7946"} {
		protocol, port, _ := strings.Cut(to, " ")
		closed = append(closed, reach{to, c.Inside(), protocol, OutsideIPv4.String() + port})
	}
	open := []reach{{"tcp :80", c.Inside(), "tcp", OutsideIPv4.String() + ":80"}}
	shall(t, slices.Concat(closed, open), true) // in no Swarm
	if _, err := e.Client.SwarmInit(t.Context(), swarm.InitRequest{ListenAddr: "0.0.0.0:2377", AdvertiseAddr: HostIPv4.String()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Client.SwarmLeave(context.Background(), true) })
	manager := reach{"tcp :2377 of the manager", c.Inside(), "tcp", HostIPv4.String() + ":2377"}
	for until := time.Now().Add(45 * time.Second); slices.Contains(slices.Collect(maps.Values(answered(t, closed, "500ms"))), true) && time.Now().Before(until); {
	}
	shall(t, append(closed, manager), false)
	shall(t, open, true)
}
