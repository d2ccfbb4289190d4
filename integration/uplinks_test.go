package integration

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"netguard/agent/control"
	"netguard/agent/doctor"
	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// TestUplinks has Docker networks on bridges that hold the host's uplink, and other ports
// that are no container's.
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
	net := e.Network("net", Subnet("198.18.77.0/24"))
	other := e.Run("other", On("net"), Doing("serve", "tcp", ":80"))
	way := []reach{{"outside to the container", e.Outside.Netns, "tcp", c.Addr("lan", 80)}, {"host to the container", host, "tcp", c.Addr("lan", 80)}}
	server := e.Outside.SpawnProbe("serve", "tcp", ":81")
	defer server.Stop()
	way = append(way, reach{"host to outside", host, "tcp", OutsideIPv4.String() + ":81"})
	others := lans(t, e)
	for _, l := range others {
		way = append(way, l.way...)
	}
	const stranger = "198.18.77.200"
	unknownPort(e, net, stranger)
	shall(t, append(way, reach{"an unknown port", e.Outside.Netns, "tcp", other.Addr("net", 80)}), true) // the control
	state := func(s control.Status, name string) string {
		i := slices.IndexFunc(s.Endpoints, func(e control.Endpoint) bool { return e.Container == name })
		if i < 0 {
			return ""
		}
		return s.Endpoints[i].State
	}
	named := func(s control.Status) bool {
		return slices.ContainsFunc(s.Findings, func(f string) bool { return strings.Contains(f, Uplink) && strings.Contains(f, "networks.uplinks") })
	}
	left := func(s control.Status) bool {
		return state(s, "other") == control.Admitted && state(s, "guest") == control.Unmanaged && named(s) &&
			!slices.ContainsFunc(others, func(l lan) bool { return !l.left(s) })
	}
	a := e.NewAgent(AgentFlags("--mode", "monitor"))
	report, _ := examine(t, a)
	for _, port := range append([]string{Uplink}, portsOf(others)...) {
		if !slices.ContainsFunc(report.Checks, func(c doctor.Check) bool {
			return c.Name == "docker.uplinks" && strings.Contains(c.Found, "holds "+port+",") && strings.Contains(c.Remedy, "networks.uplinks: ["+port+"]")
		}) {
			t.Errorf("before the first start doctor does not name %s", port)
		}
	}
	a.Start()
	a.AwaitStatus("the bridges with ports of others are left alone, in monitor mode", left)
	watch := watching(t, e, a)
	for _, port := range append([]string{Uplink}, portsOf(others)...) {
		watch.AwaitLine("holds " + port + ", which is no container's port")
	}
	counted(t, e, a, other, stranger)
	shall(t, way, true)
	a.RestartWith("--mode", "enforce")
	a.AwaitStatus("they are left alone", left)
	counted(t, e, a, other, stranger)
	shall(t, way, true)
	a.Restart() // its kernel state is no reason to take the bridge
	a.AwaitStatus("they are left alone by the next agent", left)
	shall(t, way, true)
	a.WriteConfig("networks: {uplinks: [" + Uplink + ", " + strings.Join(portsOf(others), ", ") + "]}\n")
	a.AwaitStatus("the operator's word has them guarded", func(s control.Status) bool { return AllAdmitted(s) && !named(s) })
	shall(t, way, true)
	host.Output("ip", "link", "add", "vx9", "type", "vxlan", "id", "9", "dev", "lo", "dstport", "4790")
	host.Output("ip", "link", "set", "vx9", "master", "lan0")
	s := a.AwaitStatus("the new port is named", func(s control.Status) bool {
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
	t.Run("no_frame_gets_into_an_overlay", func(t *testing.T) { injected(t, e.For(t), a.For(t), c.For(t), closed) })
}

// injected has a container of docker0 put a frame into an overlay, under an address that
// it does not have there. The overlay is unencrypted: whoever may send VXLAN to a node can.
func injected(t *testing.T, e *Engine, a *Agent, c *Container, ports []reach) {
	over := e.Network("over", Driver("overlay"), Subnet("198.18.79.0/24"), func(o *network.CreateOptions) { o.Attachable = true })
	victim := e.Run("victim", On("over"))
	told, err := e.Client.NetworkInspect(t.Context(), over.ID, network.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	list := told.Options["com.docker.network.driver.overlay.vxlanid_list"]
	vni, err := strconv.ParseUint(list, 10, 24)
	if err != nil {
		t.Fatalf("the overlay's VXLAN IDs are %q", list)
	}
	hearing := victim.Inside().Hear(victim.Interface("over"), "contains="+hex.EncodeToString([]byte("inject")))
	from, to, bridge := c.IP("bridge"), victim.IP("over"), gateway(t, e, e.DefaultBridge(), c).MAC
	inject := func(mark string) {
		inner := attack.Ether(mac(t, victim.MAC("over")), attack.Nobody, attack.EtherIPv4, attack.UDP4(
			netip.AddrPortFrom(netip.MustParseAddr("198.18.79.77"), 7), netip.AddrPortFrom(to, 7), []byte(mark)))
		vxlan := binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, uint32(vni)<<8)
		c.Inside().SendFrame(c.Interface("bridge"), attack.Ether(bridge, mac(t, c.MAC("bridge")), attack.EtherIPv4,
			attack.UDP4(netip.AddrPortFrom(from, 4789), netip.AddrPortFrom(HostIPv4, 4789), vxlan, inner)), 20)
	}
	inject("inject-guarded")
	a.WriteConfig("swarm_ports: open\n")
	for until := time.Now().Add(45 * time.Second); slices.Contains(slices.Collect(maps.Values(answered(t, ports, "500ms"))), false) && time.Now().Before(until); {
	}
	inject("inject-open") // the control, and the sentinel
	hearing.Await()
	for _, frame := range hearing.Stop() {
		if strings.Contains(string(frame), "inject-guarded") {
			t.Error("a frame got into the overlay")
			break
		}
	}
}
