package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// reach is one way between two places.
type reach struct {
	name     string
	from     Netns
	protocol string
	to       string
}

// answered tries all ways at once, and tells by name which servers answered.
func answered(t *testing.T, all []reach, within string) map[string]bool {
	t.Helper()
	tries := make([]*Process, len(all))
	for i, r := range all {
		tries[i] = r.from.SpawnProbe("connect", r.protocol, r.to, within)
	}
	out := map[string]bool{}
	for i, r := range all {
		var got Reach
		if err := tries[i].Wait().Into(&got); err != nil {
			t.Fatal(err)
		}
		out[r.name] = got.Answered()
	}
	return out
}

// shall says which of the ways are not as they should be. Of those that should work
// it tries what does not until it does: a server may not listen yet.
func shall(t *testing.T, all []reach, want bool) {
	t.Helper()
	within := "700ms"
	if want {
		within = "2s"
	}
	for until := time.Now().Add(arrives); ; {
		got := answered(t, all, within)
		all = slices.DeleteFunc(slices.Clone(all), func(r reach) bool { return got[r.name] == want })
		if len(all) == 0 {
			return
		}
		if !want || time.Now().After(until) {
			break
		}
	}
	for _, r := range all {
		t.Errorf("%s: answered: %v", r.name, !want)
	}
}

// hall is where containers wait that start while no agent runs.
type hall struct {
	e                      *Engine
	a                      *Agent
	net, side              *Network
	known, peer, elsewhere *Container
}

func newHall(t *testing.T, options ...AgentOption) *hall {
	t.Helper()
	h := &hall{e: Start(t, WithOutside())}
	h.a = h.e.Agent(options...)
	// Docker keeps its networks apart. Here it shall not be what does: since 28 by what comes
	// in for a container's own address, and before all by what is forwarded.
	reached := DriverOption("com.docker.network.bridge.gateway_mode_ipv4", "nat-unprotected")
	h.net = h.e.Network("net", Subnet("198.18.90.0/24"), Subnet("fd00:90::/64"), reached)
	h.side = h.e.Network("side", Subnet("198.18.91.0/24"), reached)
	h.known = h.e.Run("known", On("net"), Publish("8080:80/tcp"), Doing("serve", "tcp", ":80", "udp", ":53"))
	h.peer = h.e.Run("peer", On("net"))
	h.elsewhere = h.e.Run("elsewhere", On("side"), Doing("serve", "tcp", ":80"))
	h.e.Serve("tcp", ":7000", "udp", ":7000")
	h.e.Outside.Serve("tcp", ":7001")
	h.a.AwaitStatus("all are admitted", AllAdmitted)
	for _, between := range [][2]string{{h.net.Bridge, h.side.Bridge}, {h.side.Bridge, h.net.Bridge}} {
		h.e.Output("iptables", "-I", "DOCKER-USER", "2", "-i", between[0], "-o", between[1], "-j", "ACCEPT")
	}
	return h
}

// admittedWays are those between containers that were admitted, and the world.
func (h *hall) admittedWays() []reach {
	return []reach{
		{"a neighbour, IPv4", h.peer.Inside(), "tcp", h.known.Addr("net", 80)},
		{"a neighbour, IPv6", h.peer.Inside(), "tcp", h.known.Addr6("net", 80)},
		{"another network", h.peer.Inside(), "tcp", h.elsewhere.Addr("side", 80)},
		{"the outside", h.peer.Inside(), "tcp", netip.AddrPortFrom(OutsideIPv4, 7001).String()},
		{"the host", h.peer.Inside(), "tcp", netip.AddrPortFrom(HostIPv4, 7000).String()},
		{"from the host", h.e.Netns, "tcp", h.known.Addr("net", 80)},
		{"a published port", h.e.Outside.Netns, "tcp", netip.AddrPortFrom(HostIPv4, 8080).String()},
	}
}

// late are containers that came later.
type late struct{ one, two, heir *Container }

// come runs two containers, and one with addresses and MAC of the given one, which
// is gone by then.
func (h *hall) come(t *testing.T, name string, port int, before *Container) late {
	t.Helper()
	e := h.e.For(t)
	ip4, ip6, mac := before.IP("net").String(), before.IP6("net").String(), before.MAC("net")
	before.Remove()
	run := func(who string, options ...ContainerOption) *Container {
		return e.Run(name+"-"+who, append(options, Doing("serve", "tcp", ":80", "udp", ":53"))...)
	}
	l := late{heir: run("heir", On("net", ip4, ip6), WithMAC(mac))} // first: the address is free now
	l.one, l.two = run("one", On("net"), Publish(fmt.Sprintf("%d:80/tcp", port))), run("two", On("net"))
	if got := l.heir.IP("net").String() + l.heir.MAC("net"); got != ip4+mac {
		t.Fatalf("the heir has %s, not %s %s", got, ip4, mac)
	}
	return l
}

// ways are those from and to containers that came later.
func (h *hall) ways(l late, port int) []reach {
	one, heir := l.one.Inside(), l.heir.Inside()
	gateway := h.peer.Inspect().NetworkSettings.Networks["net"].Gateway
	return []reach{
		{"to a known neighbour, IPv4", one, "tcp", h.known.Addr("net", 80)},
		{"to a known neighbour, IPv6", one, "tcp", h.known.Addr6("net", 80)},
		{"to a known neighbour, UDP", one, "udp", h.known.Addr("net", 53)},
		{"to a new neighbour, IPv4", one, "tcp", l.two.Addr("net", 80)},
		{"to a new neighbour, IPv6", one, "tcp", l.two.Addr6("net", 80)},
		{"to a new neighbour, UDP", one, "udp", l.two.Addr("net", 53)},
		{"to the gateway", one, "tcp", gateway + ":7000"},
		{"to the host", one, "tcp", netip.AddrPortFrom(HostIPv4, 7000).String()},
		{"to the gateway, UDP", one, "udp", gateway + ":7000"},
		{"to the outside", one, "tcp", netip.AddrPortFrom(OutsideIPv4, 7001).String()},
		{"to another network", one, "tcp", h.elsewhere.Addr("side", 80)},
		{"to a neighbour's published port", one, "tcp", netip.AddrPortFrom(HostIPv4, 8080).String()},
		{"from a known neighbour, IPv4", h.peer.Inside(), "tcp", l.one.Addr("net", 80)},
		{"from a known neighbour, IPv6", h.peer.Inside(), "tcp", l.one.Addr6("net", 80)},
		{"from another network", h.elsewhere.Inside(), "tcp", l.one.Addr("net", 80)},
		{"from the host, IPv4", h.e.Netns, "tcp", l.one.Addr("net", 80)},
		{"from the host, IPv6", h.e.Netns, "tcp", l.one.Addr6("net", 80)},
		{"from the host by its published port", h.e.Netns, "tcp", netip.AddrPortFrom(HostIPv4, uint16(port)).String()},
		{"from the outside", h.e.Outside.Netns, "tcp", netip.AddrPortFrom(HostIPv4, uint16(port)).String()},
		{"the heir to a known neighbour", heir, "tcp", h.known.Addr("net", 80)},
		{"the heir to a new neighbour", heir, "tcp", l.two.Addr("net", 80)},
		{"the heir to the outside", heir, "tcp", netip.AddrPortFrom(OutsideIPv4, 7001).String()},
		{"from a known neighbour to the heir, IPv4", h.peer.Inside(), "tcp", l.heir.Addr("net", 80)},
		{"from a known neighbour to the heir, IPv6", h.peer.Inside(), "tcp", l.heir.Addr6("net", 80)},
		{"from the host to the heir", h.e.Netns, "tcp", l.heir.Addr("net", 80)},
	}
}

// resolved is what a container has learnt by ARP or ND of another.
func resolved(t *testing.T, from, about *Container) string {
	t.Helper()
	return from.For(t).Inside().Output("ip", "neigh", "show", about.IP("net").String()) +
		from.For(t).Inside().Output("ip", "neigh", "show", about.IP6("net").String())
}

// TestAdmissionWithoutAgent is about containers that start while no agent runs.
func TestAdmissionWithoutAgent(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	gone := func(name string) *Container {
		c := h.e.Run(name, On("net"))
		h.a.AwaitEndpoint(c, "net", control.Admitted)
		return c
	}
	before := gone("before")
	h.a.Kill()
	came := h.come(t, "late", 8090, before)
	ways := h.ways(came, 8090)

	t.Run("who_came_meanwhile_neither_sends_nor_receives", func(t *testing.T) {
		shall(t, ways, false)
		for _, about := range []*Container{came.two, h.known} {
			if got := resolved(t, came.one, about); strings.Contains(got, "lladdr") {
				t.Errorf("it found %s: %s", about.Name, got)
			}
		}
	})
	t.Run("who_was_admitted_goes_on", func(t *testing.T) { shall(t, h.admittedWays(), true) })
	t.Run("the_agent_admits_them_when_it_is_back", func(t *testing.T) {
		begin := time.Now()
		h.a.Start()
		started := time.Now()
		h.a.For(t).AwaitStatus("all are admitted", AllAdmitted)
		t.Logf("the agent started within %v; %v later status said that all are admitted", started.Sub(begin), time.Since(started))
		shall(t, ways, true)
	})
	t.Run("when_admission_is_open_they_talk_without_an_agent", func(t *testing.T) {
		for _, c := range []*Container{came.one, came.two} {
			c.Remove() // frees what the next ones need
		}
		h.a.WriteConfig("admission: open\n")
		h.a.AwaitStatus("admission is open", func(s control.Status) bool { return s.Admission == "open" })
		h.a.Kill()
		came := h.come(t, "later", 8091, came.heir)
		shall(t, h.ways(came, 8091), true)
		shall(t, h.admittedWays(), true)
	})
}
