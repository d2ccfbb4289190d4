package integration

import (
	"strings"
	"testing"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

func TestConfiguration(t *testing.T) {
	t.Parallel()
	e := Start(t)
	a := e.Agent(Config("limits: {default: {egress: 20mbit}, max: {egress: 50mbit}}\n"))
	e.Network("net")
	e.Network("legacy")
	plain := e.Run("plain", On("net"))
	greedy := e.Run("greedy", On("net"), Label(egressRate, "1gbit"))
	modest := e.Run("modest", On("net"), Label(egressRate, "5mbit"))
	old := e.Run("old", On("legacy"), Label(egressRate, "5mbit"))

	t.Run("defaults_and_caps_hold", func(t *testing.T) {
		a.AwaitStatus("all are limited", func(s control.Status) bool {
			return limited(plain, "net", 0, 20e6)(s) && limited(greedy, "net", 0, 50e6)(s) && limited(modest, "net", 0, 5e6)(s) && limited(old, "legacy", 0, 5e6)(s)
		})
		if r := a.CLI("status", "greedy"); r.Code != 1 || !strings.Contains(r.Stdout, "cap") {
			t.Errorf("status of one that wants more than its cap: %s", r)
		}
	})
	t.Run("an_edit_binds_running_containers", func(t *testing.T) {
		a.WriteConfig("networks: {exclude: [leg*]}\nlimits: {default: {egress: 30mbit}}\n")
		a.AwaitStatus("the edit is in force", func(s control.Status) bool {
			o, _ := Endpoint(s, old, "legacy")
			return limited(plain, "net", 0, 30e6)(s) && limited(greedy, "net", 0, 1e9)(s) && limited(modest, "net", 0, 5e6)(s) &&
				o.State == control.Unmanaged && len(ifbs(e)) == 3
		})
	})
	t.Run("a_bad_edit_changes_nothing_and_is_reported", func(t *testing.T) {
		a.WriteConfig("limits: {default: {egress: 30mbps}}\nlimit: 3\n")
		fault := func(s control.Status) string {
			for _, f := range s.Findings {
				if strings.Contains(f, "configuration") {
					return f
				}
			}
			return ""
		}
		s := a.AwaitStatus("the fault is reported", func(s control.Status) bool { return fault(s) != "" })
		for _, word := range []string{"netguard.yaml:1:", "30mbps", "netguard.yaml:2:1", "did you mean limits"} {
			if !strings.Contains(fault(s), word) {
				t.Errorf("the finding does not say %q: %s", word, fault(s))
			}
		}
		if !limited(plain, "net", 0, 30e6)(s) {
			t.Errorf("the limit before is not in force: %+v", s.Endpoints)
		}
		a.WriteConfig("limits: {default: {egress: 40mbit}}\n")
		a.AwaitStatus("the fault is gone", func(s control.Status) bool { return fault(s) == "" && limited(plain, "net", 0, 40e6)(s) })
	})
	t.Run("an_agent_does_not_start_with_a_bad_file", func(t *testing.T) {
		bad := e.For(t).NewAgent(Config("limits: 3\n"))
		bad.Launch()
		if r := bad.Process().Wait(); r.Code != 2 || !strings.Contains(r.Stderr, "netguard.yaml:1:9") {
			t.Errorf("it ended with %s", r)
		}
	})
}

func TestLabels(t *testing.T) {
	t.Parallel()
	e := Start(t)
	const closed = "limits: {default: {ingress: 20mbit}}\n"
	a := e.Agent(Config(closed))
	e.Network("net")
	t.Run("a_wrong_label_quarantines_its_container_and_says_so", func(t *testing.T) {
		e := e.For(t)
		right := e.Run("good", On("net"), Label(egressRate, "10mbit"), Doing("serve", "tcp", ":80"))
		c := e.Run("bad", On("net"), Label(egressRate, "10mbps"), Doing("serve", "tcp", ":80"))
		ask := e.Run("ask", On("net"))
		a.AwaitEndpoint(ask, "net", control.Admitted)
		a.AwaitReason(c, "net", `netguard.egress.rate="10mbps"`)
		ask.Inside().CanReach("tcp", right.Addr("net", 80))
		ask.Inside().CannotReach("tcp", c.Addr("net", 80))
		c.Inside().CannotReach("tcp", right.Addr("net", 80))
		if r := a.CLI("status", "bad"); r.Code != 1 {
			t.Errorf("status of bad: %s", r)
		}
	})
	t.Run("with_open_admission_a_wrong_label_means_the_default_or_a_megabit_and_says_so", func(t *testing.T) {
		e := e.For(t)
		a.WriteConfig(closed + "admission: open\n")
		t.Cleanup(func() { a.WriteConfig(closed) })
		c := e.Run("wrong", On("net"), Label(ingressRate, "10mbps"), Label(egressRate, "ten"))
		right := e.Run("right", On("net"), Label(egressRate, "10mbit"))
		a.AwaitStatus("they are limited", func(s control.Status) bool {
			return limited(c, "net", 20e6, 1e6)(s) && limited(right, "net", 20e6, 10e6)(s)
		})
		r := a.CLI("status", "wrong")
		if r.Code != 1 {
			t.Errorf("exit code %d, want 1", r.Code)
		}
		for _, word := range []string{`netguard.ingress.rate="10mbps"`, `netguard.egress.rate="ten"`, "bits a second to everybody else"} {
			if !strings.Contains(strings.Join(strings.Fields(r.Stdout), " "), word) {
				t.Errorf("status does not say %q:\n%s", word, r.Stdout)
			}
		}
		a.AwaitLog(`10mbps`)
		if r := a.CLI("status", "right"); !r.OK() {
			t.Errorf("the neighbour of a wrong one: %s", r)
		}
	})
	t.Run("the_slowest_and_the_fastest_rates_work", func(t *testing.T) {
		e := e.For(t)
		slow := e.Run("slow", On("net"), Label(egressRate, "64kbit"), Label(ingressRate, "64kbit"))
		fast := e.Run("fast", On("net"), Label(egressRate, "40gbit"), Label(ingressRate, "100tbit"))
		a.AwaitStatus("both are limited", func(s control.Status) bool {
			return limited(slow, "net", 64e3, 64e3)(s) && limited(fast, "net", 100e12, 40e9)(s)
		})
	})
	t.Run("odd_names_and_values_harm_nobody", func(t *testing.T) {
		e := e.For(t)
		n := e.Network("Odd_Name.with-all", BridgeName("br.odd-1"))
		c := e.Run("a_b.c-D", On(n.Name), Label("netguard.network.Odd_Name.with-all.egress.rate", "3mbit"),
			Label("netguard.egress.burst", "\x1b[31m; rm -rf /"), Label("x", strings.Repeat("y", 1<<20)))
		if ep := a.AwaitReason(c, n.Name, "netguard.egress.burst"); ep.Ingress.RateBPS != 20e6 || ep.Egress.RateBPS != 3e6 {
			t.Errorf("limits %+v %+v", ep.Ingress, ep.Egress)
		}
		if r := a.CLI("status", c.Name); strings.Contains(r.Stdout, "\x1b") {
			t.Errorf("an escape reached the terminal: %q", r.Stdout)
		}
	})
	t.Run("a_label_of_a_network_that_its_container_is_not_on_is_told", func(t *testing.T) {
		e := e.For(t)
		e.Network("shop_back")
		c := e.Run("astray", On("shop_back"), Label("netguard.network.back.egress.rate", "3mbit"))
		a.AwaitStatus("it is as if it had no label", limited(c, "shop_back", 20e6, 0))
		if r := a.CLI("status", "astray"); r.Code != 1 || !strings.Contains(strings.Join(strings.Fields(r.Stdout), " "), "did you mean shop_back?") {
			t.Errorf("status of one that names another network: %s", r)
		}
		c.Remove()
		c = e.Run("astray", On("shop_back"), Label("netguard.network.back.egres.rate", "junk"))
		a.AwaitReason(c, "shop_back", `netguard.network.back.egres.rate="junk"`)
		c.Remove()
		// Both networks are there from the start, so that nothing is said meanwhile.
		c = e.Create("two", On("net"), Label("netguard.network.net.egress.rate", "1mbit"), Label("netguard.network.shop_back.egress.rate", "2mbit"))
		c.Connect("shop_back")
		c.Start()
		s := a.AwaitStatus("each has its own", func(s control.Status) bool {
			return limited(c, "net", 20e6, 1e6)(s) && limited(c, "shop_back", 20e6, 2e6)(s)
		})
		for _, ep := range s.Endpoints {
			if ep.ID == c.ID && len(ep.Findings) > 0 {
				t.Errorf("on %s: %q", ep.Network, ep.Findings)
			}
		}
	})
}
