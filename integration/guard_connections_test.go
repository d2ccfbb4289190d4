package integration

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	"netguard/integration/attack"
	. "netguard/integration/harness"
)

const connectionsLabel = "netguard.guard.connections"

// flooded are containers of which one fills the host's table of connections.
type flooded struct {
	e                   *Engine
	gateway             attack.Party
	attacker, neighbour *actor
}

// opens sends n packets of as many connections to an address beyond the gateway, and
// gives how many entries the host has of the attacker then.
func (c *flooded) opens(t *testing.T, way attack.Opening, to netip.Addr, n int) int {
	t.Helper()
	c.recover(t)
	frames := make([][]byte, n)
	for i := range frames {
		frames[i] = attack.Ether(c.gateway.MAC, c.attacker.MAC, attack.EtherIPv4, way.Packet(c.attacker.IPv4, to, i))
	}
	// ARP, which is no connection, says that all of them are through.
	last := attack.Ether(attack.Broadcast, c.attacker.MAC, attack.EtherARP,
		attack.ARP(attack.Request, c.attacker.MAC, c.attacker.IPv4, attack.MAC{}, netip.MustParseAddr("192.0.2.1")))
	c.neighbour.port.Drain()
	if err := c.attacker.port.Send(append(frames, last)...); err != nil {
		t.Fatal(err)
	}
	if _, err := c.neighbour.port.Hears([]byte("<none>"), last, deadline()); err != nil {
		t.Fatalf("not even ARP arrived: %v", err)
	}
	return c.entries(c.attacker.IPv4)
}

// recover has the host forget all connections, and waits until the attacker may open
// one again after its last flood.
func (c *flooded) recover(t *testing.T) {
	t.Helper()
	c.e.Output("conntrack", "-F")
	one := attack.Ether(c.gateway.MAC, c.attacker.MAC, attack.EtherIPv4, attack.UDP4(netip.AddrPortFrom(c.attacker.IPv4, 7), netip.AddrPortFrom(c.gateway.IPv4, 7)))
	for until := deadline(); c.entries(c.attacker.IPv4) == 0; {
		if err := c.attacker.port.Send(one); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(until) {
			t.Fatal("it cannot open a connection any more")
		}
	}
}

// entries counts what the host tracks of an address.
func (c *flooded) entries(from netip.Addr) int {
	return strings.Count(c.e.Output("sh", "-c", "conntrack -L -s "+from.String()+" 2>/dev/null"), "\n")
}

func TestGuardConnections(t *testing.T) {
	t.Parallel()
	e := Start(t, WithOutside())
	n := e.Network("net", Subnet("198.18.44.0/24"))
	const limit = 500
	mallory := enter(t, e.Run("mallory", On("net"), Label(connectionsLabel, fmt.Sprint(limit))), "net")
	server := enter(t, e.Run("server", On("net"), Publish("8080:80/tcp"), Doing("serve", "tcp", ":80")), "net")
	c := &flooded{e, gateway(t, e, n, server.Container), mallory, server}
	// What is answered is not half-open, and the kernel forgets what is refused.
	e.Outside.Output("iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP")
	targets := func(way attack.Opening) map[string]netip.Addr {
		if way.Name == "half-open_TCP" {
			return map[string]netip.Addr{"outside": OutsideIPv4}
		}
		return map[string]netip.Addr{"outside": OutsideIPv4, "the_host": c.gateway.IPv4}
	}
	const many = 2000
	for _, way := range attack.Openings {
		for name, to := range targets(way) {
			t.Run("without_netguard/"+way.Name+"_to_"+name, func(t *testing.T) {
				if got := c.opens(t, way, to, many); got < many*9/10 {
					t.Errorf("%d entries of %d: the attack proves nothing", got, many)
				}
			})
		}
	}

	a := e.Agent()
	a.AwaitStatus("all are admitted", AllAdmitted)
	// A connection that is there before, to see that it stays.
	var open net.Conn
	connect := func() {
		err := mallory.Inside().Do(func() (err error) {
			open, err = net.DialTimeout("tcp", netip.AddrPortFrom(c.gateway.IPv4, 8080).String(), arrives)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	alive := func(t *testing.T) {
		t.Helper()
		_ = open.SetDeadline(time.Now().Add(arrives))
		got := make([]byte, 5)
		if _, err := open.Write([]byte("alive")); err != nil {
			t.Error(err)
		} else if _, err := open.Read(got); err != nil || string(got) != "alive" {
			t.Errorf("a connection that was open answers %q, %v", got, err)
		}
	}
	for _, way := range attack.Openings {
		for name, to := range targets(way) {
			t.Run("with_netguard/"+way.Name+"_to_"+name, func(t *testing.T) {
				before := violations(t, a, mallory, server)
				if got := c.opens(t, way, to, many); got > limit || got < limit*9/10 {
					t.Errorf("%d entries, the limit is %d", got, limit)
				}
				after := violations(t, a, mallory, server)
				if after[0].Connections-before[0].Connections < many-limit || after[1] != before[1] {
					t.Errorf("counted %+v, before %+v", after, before)
				}
				// Nobody else is bound by it.
				if err := server.echo(netip.AddrPortFrom(c.gateway.IPv4, 8080).String()); err != nil {
					t.Errorf("a neighbour's connection: %v", err)
				}
				if err := echoIn(e.Outside.Do, netip.AddrPortFrom(HostIPv4, 8080).String()); err != nil {
					t.Errorf("a connection to a neighbour's published port: %v", err)
				}
			})
		}
	}
	t.Run("a_container_below_its_limit_notices_nothing_and_open_connections_stay", func(t *testing.T) {
		c.recover(t)
		connect()
		defer func() { _ = open.Close() }()
		before := violations(t, a, mallory)[0]
		for range 100 {
			if err := mallory.echo(netip.AddrPortFrom(c.gateway.IPv4, 8080).String()); err != nil {
				t.Fatal(err)
			}
		}
		if got := violations(t, a, mallory)[0]; got != before {
			t.Errorf("violations %+v, before %+v", got, before)
		}
		for i := range many {
			f := attack.Ether(c.gateway.MAC, mallory.MAC, attack.EtherIPv4, attack.Openings[0].Packet(mallory.IPv4, OutsideIPv4, i))
			if err := mallory.port.Send(f); err != nil {
				t.Fatal(err)
			}
		}
		alive(t)
		if got := violations(t, a, mallory)[0]; got.Connections == before.Connections {
			t.Error("the flood was not refused")
		}
	})
	t.Run("the_log_says_who", func(t *testing.T) {
		a := a.For(t)
		a.AwaitStatus("a line names it", func(control.Status) bool {
			return lineWith(a.Log(), "must not", "container=mallory ", "connections") != ""
		})
		if line := lineWith(a.Log(), "must not", "container=server "); line != "" {
			t.Errorf("a neighbour is blamed: %s", line)
		}
	})
	t.Run("rules_outlive_the_agent", func(t *testing.T) {
		a.Kill()
		if got := c.opens(t, attack.Openings[0], OutsideIPv4, many); got > limit {
			t.Errorf("%d entries, the limit is %d", got, limit)
		}
		a.Start()
		a.AwaitStatus("all are admitted", AllAdmitted)
	})
	t.Run("the_operator_decides", func(t *testing.T) {
		e, a := e.For(t), a.For(t)
		a.WriteConfig("guard: {connections: 50}\n")
		a.AwaitStatus("the label is above the operator's limit", func(s control.Status) bool {
			ep, _ := Endpoint(s, mallory.Container, "net")
			return strings.Contains(strings.Join(ep.Findings, " "), connectionsLabel+" asks for 500 connections, the operator's limit (guard.connections) is 50")
		})
		if got := c.opens(t, attack.Openings[0], OutsideIPv4, many); got > 50 {
			t.Errorf("%d entries, the operator's limit is 50", got)
		}
		a.WriteConfig("guard: {connections: 0}\n")
		a.AwaitStatus("there is no limit but the label", func(s control.Status) bool {
			ep, _ := Endpoint(s, mallory.Container, "net")
			return len(ep.Findings) == 0
		})
		if got := c.opens(t, attack.Openings[0], OutsideIPv4, many); got > limit || got < limit*9/10 {
			t.Errorf("%d entries, the label says %d", got, limit)
		}
		bad := e.Run("bad", On("net"), Label(connectionsLabel, "lots"))
		a.AwaitReason(bad, "net", connectionsLabel+` is "lots"`)
	})
}

// Traffic within a bridge is tracked only where a policy has the bridge hand it over.
func TestGuardConnectionsWithinABridge(t *testing.T) {
	t.Parallel()
	e := Start(t)
	n := e.Network("net", Subnet("198.18.45.0/24"))
	mallory := enter(t, e.Run("mallory", On("net"), Label(connectionsLabel, "500")), "net")
	server := enter(t, e.Run("server", On("net"), Doing("serve", "tcp", ":80")), "net")
	third := enter(t, e.Run("third", On("net")), "net")
	c := &flooded{e, gateway(t, e, n, server.Container), mallory, server}
	c.gateway.MAC, c.gateway.IPv4 = server.MAC, server.IPv4 // straight to it
	a := e.Agent(Policy("open.yaml", "name: open\nselect: {container: server}\ningress: [{from: [{entity: any}]}]\n"))
	a.AwaitStatus("the policy holds", func(s control.Status) bool {
		ep, _ := Endpoint(s, server.Container, "net")
		return AllAdmitted(s) && len(ep.Policy.Ingress) == 1
	})
	if got := c.opens(t, attack.Openings[0], server.IPv4, 2000); got > 500 || got < 450 {
		t.Errorf("%d entries, the limit is 500", got)
	}
	if err := third.echo(server.Addr("net", 80)); err != nil {
		t.Errorf("a neighbour's connection: %v", err)
	}
	if got := violations(t, a, mallory, third); got[0].Connections == 0 || got[1].Connections != 0 {
		t.Errorf("counted %+v", got)
	}
}
