package integration

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// handles is what tc shows of everything netguard made, without counters.
func handles(e *Engine) string {
	return e.Output("sh", "-c", "tc qdisc show; for d in $(ip -o link show | grep -oE '(veth|ngifb)[0-9a-f]+' | sort -u); do tc class show dev $d; tc filter show dev $d; tc filter show dev $d ingress; done; ip -o link show type ifb | sed 's/mtu.*//'")
}

func TestRestart(t *testing.T) {
	t.Parallel()
	e := Start(t)
	a := e.Agent()
	e.Network("net")
	c := e.Run("web", On("net"), Label(egressRate, "10mbit"), Label(ingressRate, "20mbit"))
	d := e.Run("other", On("net"), Label(egressRate, "5mbit"))
	both := func(s control.Status) bool {
		return limited(c, "net", 20e6, 10e6)(s) && limited(d, "net", 0, 5e6)(s)
	}
	a.AwaitStatus("both are limited", both)

	t.Run("adopts_what_it_finds", func(t *testing.T) {
		before := handles(e.For(t))
		for _, end := range []func(){a.Stop, a.Kill} {
			end()
			if now := handles(e.For(t)); now != before {
				t.Fatalf("the limits went with the agent:\n%s\nwas:\n%s", now, before)
			}
			a.Start()
			a.AwaitStatus("both are limited", both)
			if now := handles(e.For(t)); now != before {
				t.Fatalf("the restart changed:\n%s\nwas:\n%s", now, before)
			}
		}
	})
	t.Run("collects_what_an_earlier_run_left", func(t *testing.T) {
		a.Kill()
		d.Remove()
		if got := ifbs(e); len(got) != 2 {
			t.Fatalf("IFBs %v, want the orphan too", got)
		}
		a.Start()
		a.AwaitStatus("the orphan is gone", func(control.Status) bool { return len(ifbs(e)) == 1 })
	})
	t.Run("limits_what_started_meanwhile", func(t *testing.T) {
		a.Kill()
		late := e.For(t).Run("late", On("net"), Label(egressRate, "3mbit"))
		a.Start()
		a.AwaitStatus("it is limited", limited(late, "net", 0, 3e6))
	})
	t.Run("knows_a_container_that_took_another's_MAC_while_nobody_watched", func(t *testing.T) {
		liar := e.For(t).Run("liar", On("net"), Cap("NET_ADMIN"), Label(egressRate, "1mbit"))
		a.AwaitStatus("it is limited", limited(liar, "net", 0, 1e6))
		a.Stop()
		liar.Inside().Output("ip", "link", "set", "eth0", "address", c.MAC("net"))
		a.Start()
		s := a.AwaitStatus("both have their own limit", func(s control.Status) bool {
			return both1(s, c, liar)
		})
		one, _ := Endpoint(s, c, "net")
		two, _ := Endpoint(s, liar, "net")
		if one.Veth == two.Veth || one.Veth == "" {
			t.Errorf("veths %q and %q", one.Veth, two.Veth)
		}
	})
	for name, socket := range map[string]string{"": a.Socket, "_with_another_socket_too": ""} {
		t.Run("a_second_agent_refuses"+name, func(t *testing.T) {
			e := e.For(t)
			a.AwaitStatus("nothing is left of the others", func(s control.Status) bool {
				return s.InSync && len(s.Endpoints) == 1 && len(ifbs(e)) == 1
			})
			before := kernel(e)
			second := e.NewAgent(AgentFlags("--mode", "monitor"))
			if socket != "" {
				second.Socket = socket
			}
			second.Launch()
			said := fmt.Sprintf("another netguard agent (pid %d)", a.Process().PID())
			if r := second.Process().Wait(); r.Code != 1 || !strings.Contains(r.Stderr, said) {
				t.Errorf("the second agent: %s", r)
			}
			if socket == "" {
				if r := second.CLI("cleanup"); r.Code != 1 || !strings.Contains(r.Stderr, said) {
					t.Errorf("a clean-up beside the first agent: %s", r)
				}
			}
			if d := cmp.Diff(before, kernel(e)); d != "" {
				t.Errorf("it wrote:\n%s", d)
			}
		})
	}
}

func both1(s control.Status, c, liar *Container) bool {
	return limited(c, "net", 20e6, 10e6)(s) && limited(liar, "net", 0, 1e6)(s)
}

func TestDrift(t *testing.T) {
	t.Parallel()
	e := Start(t)
	a := e.Agent()
	e.Network("net")
	c := e.Run("web", On("net"), Label(egressRate, "10mbit"), Label(ingressRate, "20mbit"))
	s := a.AwaitStatus("it is limited", limited(c, "net", 20e6, 10e6))
	endpoint, _ := Endpoint(s, c, "net")
	veth := endpoint.Veth

	t.Run("a_limit_that_somebody_removed_comes_back", func(t *testing.T) {
		e := e.For(t)
		want := handles(e)
		for _, damage := range []string{
			"tc qdisc del dev " + veth + " root",
			"tc qdisc del dev " + veth + " ingress",
			"ip link del " + ifbs(e)[0],
			"tc class change dev " + veth + " classid 4e47:1 htb rate 1gbit ceil 1gbit",
			"tc filter del dev " + veth + " ingress",
		} {
			e.Output("sh", "-c", damage)
			var now string
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("after %s there was\n%s\nnot\n%s", damage, now, plain(want))
				}
			})
			a.AwaitStatus("it is limited after "+damage, func(s control.Status) bool {
				now = plain(handles(e))
				return limited(c, "net", 20e6, 10e6)(s) && now == plain(want)
			})
		}
	})
	t.Run("somebody_else's_qdisc_is_reported_and_left_alone", func(t *testing.T) {
		e := e.For(t)
		other := e.Run("other", On("net"))
		s := a.AwaitStatus("it is there", limited(other, "net", 0, 0))
		ep, _ := Endpoint(s, other, "net")
		e.Output("tc", "qdisc", "add", "dev", ep.Veth, "root", "handle", "8:", "tbf", "rate", "77mbit", "burst", "64kb", "latency", "50ms")
		a.WriteConfig("limits: {default: {ingress: 30mbit, egress: 30mbit}}\n")
		s = a.AwaitStatus("the stranger is reported", func(s control.Status) bool {
			e, _ := Endpoint(s, other, "net")
			return e.State == control.Admitted && strings.Contains(e.Missing, "tbf") && e.Reason == e.Missing
		})
		if s.InSync {
			t.Error("in sync though a limit is not in force")
		}
		if out := e.Output("tc", "qdisc", "show", "dev", ep.Veth, "root"); !strings.Contains(out, "77Mbit") {
			t.Errorf("the stranger's qdisc is now %s", out)
		}
		if r := a.CLI("status", "other"); r.Code != 1 || !strings.Contains(r.Stdout, "tc qdisc del") {
			t.Errorf("status of other: %s", r)
		}
		e.Output("tc", "qdisc", "del", "dev", ep.Veth, "root")
		a.AwaitStatus("the limit takes its place", limited(other, "net", 30e6, 30e6))
		a.WriteConfig("")
		a.AwaitStatus("the limit goes with the default", limited(other, "net", 0, 0))
	})
}

// A limit that cannot be put in place lets nobody in, and throws nobody out.
func TestConflictBeforeAdmission(t *testing.T) {
	t.Parallel()
	e := Start(t)
	a := e.Agent()
	e.Network("net")
	peer := e.Run("peer", On("net"), Doing("serve", "tcp", ":80"))
	in := e.Run("in", On("net"), Label(ingressRate, "20mbit"))
	s := a.AwaitStatus("it is limited", limited(in, "net", 20e6, 0))
	inside, _ := Endpoint(s, in, "net")
	a.AwaitEndpoint(peer, "net", control.Admitted)
	a.Stop()
	late := e.Run("late", On("net"), Label(ingressRate, "20mbit"))
	veth := late.Veth("net")
	foreign := func(veth string) {
		e.Output("sh", "-c", "tc qdisc del dev "+veth+" root 2>/dev/null; tc qdisc add dev "+veth+" root handle 8: tbf rate 77mbit burst 64kb latency 50ms")
	}
	foreign(veth)
	foreign(inside.Veth)
	a.Start()
	said := func(ep control.Endpoint, veth string) bool {
		return strings.Contains(ep.Reason, "tbf") && strings.Contains(ep.Reason, "tc qdisc del dev "+veth+" root") && ep.Missing == ep.Reason
	}
	a.AwaitStatus("who is in stays in, and who is not stays out", func(s control.Status) bool {
		i, _ := Endpoint(s, in, "net")
		l, ok := Endpoint(s, late, "net")
		return ok && !s.InSync && i.State == control.Admitted && said(i, inside.Veth) && l.State == control.Quarantined && said(l, veth)
	})
	in.Inside().CanReach("tcp", peer.Addr("net", 80))
	late.Inside().CannotReach("tcp", peer.Addr("net", 80))
	if out := e.Output("tc", "qdisc", "show", "dev", veth, "root"); !strings.Contains(out, "77Mbit") {
		t.Errorf("the stranger's qdisc is now %s", out)
	}
	e.Output("tc", "qdisc", "del", "dev", veth, "root")
	a.AwaitStatus("the limit takes its place, and it is admitted", limited(late, "net", 20e6, 0))
	late.Inside().CanReach("tcp", peer.Addr("net", 80))
}

// directQlen differs where somebody else deleted the qdisc that recorded it.
var directQlen = regexp.MustCompile(` direct_qlen \d+`)

// plain leaves out what changes when a device is made anew.
func plain(s string) string {
	s = directQlen.ReplaceAllString(s, "")
	var keep []string
	for line := range strings.Lines(s) {
		if !strings.Contains(line, "ifb") && !strings.Contains(line, "mirred") && !strings.Contains(line, "index") {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "")
}
