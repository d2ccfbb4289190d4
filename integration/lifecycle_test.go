package integration

import (
	"slices"
	"strings"
	"testing"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

const (
	ingressRate = "netguard.ingress.rate"
	egressRate  = "netguard.egress.rate"
)

// limited is an endpoint that is admitted with these rates, in bits a second, all of
// it in the kernel.
func limited(c *Container, network string, ingress, egress uint64) func(control.Status) bool {
	return func(s control.Status) bool {
		e, ok := Endpoint(s, c, network)
		return ok && Whole(e) && e.Ingress.RateBPS == ingress && e.Egress.RateBPS == egress
	}
}

// gone is true when a container has no endpoint on a network.
func gone(c *Container, network string) func(control.Status) bool {
	return func(s control.Status) bool {
		_, there := Endpoint(s, c, network)
		return !there
	}
}

// ifbs lists netguard's IFBs on the engine's host.
func ifbs(e *Engine) []string {
	return strings.Fields(e.Output("sh", "-c", "ip -o link show type ifb | grep -o 'ngifb[0-9]*' | sort -u"))
}

func TestLifecycle(t *testing.T) {
	t.Parallel()
	engine := Start(t)
	agent := engine.Agent()
	on := func(t *testing.T) (*Engine, *Agent) { return engine.For(t), agent.For(t) }

	t.Run("a_container_is_limited_when_it_starts_and_forgotten_when_it_stops", func(t *testing.T) {
		e, a := on(t)
		e.Network("start")
		c := e.Run("web", On("start"), Label(ingressRate, "50mbit"), Label(egressRate, "10mbit"))
		a.AwaitStatus("web is limited", limited(c, "start", 50e6, 10e6))
		c.Stop()
		a.AwaitStatus("web is gone", gone(c, "start"))
		a.AwaitStatus("its IFB is gone", func(control.Status) bool { return len(ifbs(e)) == 0 })
		c.Start()
		a.AwaitStatus("web is limited again", limited(c, "start", 50e6, 10e6))
		c.Restart()
		a.AwaitStatus("web is limited after a restart", limited(c, "start", 50e6, 10e6))
		c.Kill("KILL")
		a.AwaitStatus("web is gone", gone(c, "start"))
	})
	t.Run("a_paused_and_renamed_container_keeps_its_limit", func(t *testing.T) {
		e, a := on(t)
		e.Network("names")
		c := e.Run("before", On("names"), Label(egressRate, "10mbit"))
		a.AwaitStatus("it is limited", limited(c, "names", 0, 10e6))
		c.Pause()
		c.Rename("after")
		a.AwaitStatus("it has its new name", func(s control.Status) bool {
			e, _ := Endpoint(s, c, "names")
			return e.Container == "after" && Whole(e) && e.Egress.RateBPS == 10e6
		})
		c.Unpause()
		a.AwaitStatus("it is limited", limited(c, "names", 0, 10e6))
	})
	t.Run("a_network_that_is_connected_to_a_running_container_is_limited", func(t *testing.T) {
		e, a := on(t)
		e.Network("one")
		e.Network("two", BridgeName("ng-two"))
		c := e.Run("web", On("one"), Label(egressRate, "10mbit"), Label("netguard.network.two.egress.rate", "3mbit"))
		a.AwaitStatus("it is limited on one", limited(c, "one", 0, 10e6))
		for range 3 {
			c.Connect("two")
			a.AwaitStatus("it is limited on two", limited(c, "two", 0, 3e6))
			c.Disconnect("two")
			a.AwaitStatus("it is gone from two", gone(c, "two"))
		}
		if got := ifbs(e); len(got) > 1 {
			a.AwaitStatus("one IFB is left", func(control.Status) bool { return len(ifbs(e)) == 1 })
		}
	})
	t.Run("the_default_bridge_and_IPv6_are_managed", func(t *testing.T) {
		e, a := on(t)
		e.Network("six", Subnet("fd00:6::/64"))
		d := e.Run("default", Label(egressRate, "10mbit"))
		c := e.Run("six", On("six"), Label(egressRate, "10mbit"))
		a.AwaitStatus("default is limited", limited(d, "bridge", 0, 10e6))
		s := a.AwaitStatus("six is limited", limited(c, "six", 0, 10e6))
		if e, _ := Endpoint(s, c, "six"); !strings.HasPrefix(e.IPv6, "fd00:6::") {
			t.Errorf("IPv6 address %q", e.IPv6)
		}
	})
	t.Run("the_lower_limit_of_those_who_share_a_namespace_wins", func(t *testing.T) {
		e, a := on(t)
		e.Network("shared")
		c := e.Run("web", On("shared"), Label(egressRate, "10mbit"), Label(ingressRate, "7mbit"))
		side := e.Run("sidecar", Sharing(c), Label(egressRate, "3mbit"), Label(ingressRate, "9mbit"))
		s := a.AwaitStatus("the lower ones count", limited(c, "shared", 7e6, 3e6))
		if e, _ := Endpoint(s, c, "shared"); len(e.SharedBy) != 1 || e.SharedBy[0] != "sidecar" {
			t.Errorf("shared by %v", e.SharedBy)
		}
		if r := a.CLI("status", "sidecar"); !r.OK() || !strings.Contains(r.Stdout, "sidecar") {
			t.Errorf("status of the sidecar: %s", r)
		}
		side.Remove()
		a.AwaitStatus("its label is gone with it", limited(c, "shared", 7e6, 10e6))
	})
	t.Run("what_is_not_managed_says_why", func(t *testing.T) {
		e, a := on(t)
		e.Output("ip", "link", "add", "parent0", "type", "veth", "peer", "parent1")
		e.Output("ip", "link", "set", "parent0", "up")
		e.Network("mac", Driver("macvlan"), DriverOption("parent", "parent0"), Subnet("198.18.7.0/24"))
		for name, c := range map[string]*Container{
			"host":    e.Run("on-host", OnHostNetwork()),
			"none":    e.Run("on-none", On("none")),
			"macvlan": e.Run("on-macvlan", On("mac")),
		} {
			got := a.AwaitStatus(name+" is shown", func(s control.Status) bool {
				for _, e := range s.Endpoints {
					if e.ID == c.ID {
						return e.State == control.Unmanaged && strings.Contains(e.Reason, name)
					}
				}
				return false
			})
			if r := a.CLI("status", c.Name); !r.OK() {
				t.Errorf("an unmanaged container is as declared: %s (of %v)", r, got.Endpoints)
			}
		}
	})
	t.Run("labels_that_have_no_effect_are_told", func(t *testing.T) {
		e, a := on(t)
		c := e.Run("no-effect", OnHostNetwork(), Label(egressRate, "1mbit"))
		a.AwaitStatus("it is told", func(s control.Status) bool {
			i := slices.IndexFunc(s.Endpoints, func(e control.Endpoint) bool { return e.ID == c.ID })
			return i >= 0 && s.Endpoints[i].State == control.Unmanaged && slices.Equal(s.Endpoints[i].Findings,
				[]string{"label netguard.egress.rate has no effect: it uses the host's own network (--network host)"})
		})
		if r := a.CLI("status", c.Name); r.Code != 1 || !strings.Contains(strings.Join(strings.Fields(r.Stdout), " "), "has no effect") {
			t.Errorf("status of one whose label has no effect: %s", r)
		}
		a.AwaitLog("has no effect")
	})
	t.Run("networks_come_and_go", func(t *testing.T) {
		e, a := on(t)
		for range 3 {
			n := e.Network("brief")
			c := e.Run("web", On("brief"), Label(egressRate, "10mbit"))
			a.AwaitStatus("it is limited", limited(c, "brief", 0, 10e6))
			c.Remove()
			n.Remove()
			a.AwaitStatus("it is gone", gone(c, "brief"))
		}
	})
}

func TestDaemon(t *testing.T) {
	t.Parallel()
	t.Run("an_agent_that_starts_before_dockerd_waits_for_it", func(t *testing.T) {
		e := Start(t)
		e.Network("net")
		e.StopDaemon()
		a := e.Agent()
		a.AwaitStatus("docker is missing", func(s control.Status) bool { return !s.Docker.Connected && len(s.Findings) == 1 })
		e.StartDaemon()
		c := e.Run("web", On("net"), Label(egressRate, "10mbit"))
		a.AwaitStatus("it is limited", limited(c, "net", 0, 10e6))
	})
	t.Run("a_restart_of_dockerd_ends_containers_and_nothing_is_left", func(t *testing.T) {
		e := Start(t)
		a := e.Agent()
		e.Network("net")
		c := e.Run("web", On("net"), Label(egressRate, "10mbit"), Restarting("always"))
		d := e.Run("once", On("net"), Label(egressRate, "10mbit"))
		a.AwaitStatus("both are limited", func(s control.Status) bool {
			return limited(c, "net", 0, 10e6)(s) && limited(d, "net", 0, 10e6)(s)
		})
		e.RestartDaemon()
		a.AwaitStatus("web is limited again and once is gone", func(s control.Status) bool {
			return s.Docker.Connected && limited(c, "net", 0, 10e6)(s) && gone(d, "net")(s) && len(ifbs(e)) == 1
		})
	})
	t.Run("with_live-restore_limits_hold_while_dockerd_is_away", func(t *testing.T) {
		e := Start(t, Flags("--live-restore"))
		a := e.Agent()
		e.Network("net")
		c := e.Run("web", On("net"), Label(egressRate, "10mbit"))
		a.AwaitStatus("it is limited", limited(c, "net", 0, 10e6))
		e.KillDaemon()
		s := a.AwaitStatus("docker is missing", func(s control.Status) bool { return !s.Docker.Connected })
		if !limited(c, "net", 0, 10e6)(s) {
			t.Errorf("without dockerd: %+v", s.Endpoints)
		}
		e.StartDaemon()
		a.AwaitStatus("docker is back and the limit is there", func(s control.Status) bool {
			return s.Docker.Connected && limited(c, "net", 0, 10e6)(s)
		})
	})
}
