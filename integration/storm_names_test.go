package integration

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/docker/docker/api/types/container"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// harmless fails the test if a text that may reach a terminal has anything in it
// that moves a cursor, or hides or reorders what is seen.
func harmless(t *testing.T, what, text string) {
	t.Helper()
	at := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) })
	if at >= 0 {
		t.Errorf("%s has on it: %q", what, text[max(0, at-40):min(len(text), at+40)])
	}
}

// TestStormOfNames has everything that strangers may name be named badly. Docker
// takes any text for a network's name and for labels, of any length, and any
// length of [a-zA-Z0-9][a-zA-Z0-9_.-]+ for a container's.
func TestStormOfNames(t *testing.T) {
	t.Parallel()
	e := Start(t)
	a := e.Agent(AgentFlags("--metrics", stormMetrics))
	before := holdingOf(t, e, a)
	big := strings.Repeat("x", 1<<20)
	many := map[string]string{}
	for i := range 20_000 {
		many[fmt.Sprintf("netguard.network.n%d.egress.rate", i)] = "1mbit"
	}
	for i, name := range []string{"a.egress.rate", "..", "\x1b[31mred\x1b[2J", "two\nlines\r", "\u009b31mC1", "\u202egnp.exe", "nul\x00", strings.Repeat("网络", 150)} {
		e.Network(name, Subnet(fmt.Sprintf("198.18.%d.0/24", 100+i)))
		c := e.Run(fmt.Sprintf("on%d", i), On(name), Label("netguard.network."+name+".egress.rate", "3mbit"))
		a.AwaitStatus("it is limited on its network", limited(c, name, 0, 3e6))
	}
	e.Network("net", Subnet("198.18.92.0/24"))
	run := func(name string, labels map[string]string) *guest {
		return welcome(t, e, name, "net", []string{"tcp/80"}, Labels(labels))
	}
	plain, longest := run("aZ09_.-", nil), run(strings.Repeat("y", 5000), nil)
	open := []*guest{
		run("odd", map[string]string{"": "", "=": "=", "\x1b[2J": "\x1b[31m", "\n": "\r", strings.Repeat("k", 5000): "v", "\u202e": "\xff"}),
		run("big", map[string]string{"a": big, big: big, "com.docker.compose.project": big, "com.docker.compose.service": big}),
	}
	closed := []*guest{
		run("deep", map[string]string{"netguard.egress": strings.Repeat("[", 10_000)}),
		run("deeper", map[string]string{"netguard.ingress": strings.Repeat("- from:\n  - {labels: {a: &a [*a]}}\n", 100)}),
		run("large", map[string]string{"netguard.ingress": "# " + big + "\n[{}]"}),
		run("rate", map[string]string{"netguard.egress.rate": big}),
		run("allow", map[string]string{"netguard.guard.allow": strings.Repeat("192.0.2.1,", 100_000)}),
		run("stray", map[string]string{"netguard.\x1b[2J\u009b": "\x1b[2J"}),
		run("many", many),
	}
	s := a.AwaitStatus("all are known", func(s control.Status) bool { return len(s.Endpoints) == 8+2+len(open)+len(closed) && s.InSync })
	for _, g := range closed {
		ep, ok := Endpoint(s, g.Container, "net")
		if !ok || len(ep.Findings) == 0 || len(fmt.Sprint(ep.Reason, ep.Findings)) > 20_000 {
			t.Errorf("%s: %v %.2000q %.2000q", g.Name, ok, ep.Reason, ep.Findings)
		}
		mustKnock(t, slices.Concat(g.to(false, plain, "tcp/80"), plain.to(false, g, "tcp/80")))
	}
	for _, g := range append(open, longest) {
		if ep, ok := Endpoint(s, g.Container, "net"); !ok || ep.State != control.Admitted || len(ep.Findings) > 0 {
			t.Errorf("%s: %+v", g.Name, ep)
		}
		mustKnock(t, slices.Concat(g.to(true, plain, "tcp/80"), plain.to(true, g, "tcp/80")))
	}
	for _, args := range [][]string{{"status"}, {"status", "-o", "wide"}, {"status", "-o", "json"}, {"status", "-o", "yaml"}, {"doctor"},
		{"policy", "explain", "on2", "on3"}, {"policy", "explain", "stray", plain.Name, "-o", "json"}, {"status", "\x1b[2J"}} {
		r := a.CLI(args...)
		harmless(t, strings.Join(args, " "), r.Stdout+r.Stderr)
		for line := range strings.Lines(r.Stdout) {
			if len(line) > 2000 && !slices.Contains(args, "wide") && !strings.Contains(line, `"container"`) && !strings.Contains(line, "container: ") {
				t.Errorf("%v has a line of %d bytes: %.200q", args, len(line), line)
			}
		}
	}
	harmless(t, "the log", a.Log())
	h := holdingOf(t, e, a)
	t.Logf("held %+v, holds %+v; the log has %d bytes", before, h, len(a.Log()))
	if h.rss > 200 {
		t.Errorf("the agent has %d MiB", h.rss)
	}
}

// everywhere puts containers on so many networks, with a policy on one of them,
// and checks it on each.
func everywhere(t *testing.T, networks int) {
	e := Start(t)
	a := e.Agent(AgentFlags("--metrics", stormMetrics))
	run := func(name string, options ...ContainerOption) *guest {
		return welcome(t, e, name, "n0", nil, append(options, Service("shop", name))...)
	}
	name := func(i int) string { return fmt.Sprintf("n%d", i) }
	for i := range networks {
		e.Network(name(i), Subnet(fmt.Sprintf("198.18.%d.0/24", 100+i)))
	}
	hub := run("hub", Label("netguard.ingress", "[{from: [{service: api}], ports: [tcp/80]}]"), Label(egressRate, "50mbit"), Label("netguard.network.n1.egress.rate", "3mbit"))
	api, web := run("api"), run("web")
	for i := 1; i < networks; i++ {
		for _, g := range []*guest{hub, api, web} {
			g.Connect(name(i))
		}
	}
	began := time.Now()
	s := a.AwaitStatus("it is admitted on all", func(s control.Status) bool {
		return len(s.Endpoints) == 3*networks && s.InSync && AllAdmitted(s)
	})
	t.Logf("%d networks: admitted %v after the last one; %+v", networks, time.Since(began).Round(time.Millisecond), holdingOf(t, e, a))
	there := hub.Inspect().NetworkSettings.Networks
	var addrs []netip.Addr
	for i := range networks {
		want := uint64(50e6)
		if i == 1 {
			want = 3e6
		}
		if !limited(hub.Container, name(i), 0, want)(s) {
			t.Errorf("it is not limited on %s", name(i))
		}
		addrs = append(addrs, netip.MustParseAddr(there[name(i)].IPAddress))
	}
	openDoors(t, hub.at, []string{"tcp/80", "tcp/81"})
	for i := 0; i < len(addrs); i += 20 {
		some := addrs[i:min(i+20, len(addrs))]
		mustKnock(t, slices.Concat(api.at.to(true, "api>hub", "tcp/80", some...), api.at.to(false, "api>hub", "tcp/81", some...),
			web.at.to(false, "web>hub", "tcp/80", some...)))
	}
	began = time.Now()
	late := welcome(t, e, "late", "n0", nil)
	a.AwaitEndpoint(late.Container, "n0", control.Admitted)
	t.Logf("one container more is admitted %v after it was asked for", time.Since(began).Round(time.Millisecond))
	// dockerd takes its time for each network.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := e.Client.ContainerRemove(ctx, hub.ID, container.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	a.AwaitStatus("it is gone everywhere", func(s control.Status) bool { return len(s.Endpoints) == 2*networks+1 && s.InSync })
}

func TestEverywhere(t *testing.T) {
	t.Parallel()
	everywhere(t, 6)
}

func TestSoakEverywhere(t *testing.T) {
	soaking(t)
	everywhere(t, 100)
}

// TestSoakLabels has so many large labels that Docker's list of containers is too
// large to be read at once.
func TestSoakLabels(t *testing.T) {
	soaking(t)
	e := Start(t)
	big := strings.Repeat("x", 1<<20)
	for i := range 80 {
		e.Create(fmt.Sprintf("big%d", i), Label("a", big))
	}
	a := e.Agent(AgentFlags("--metrics", stormMetrics))
	c := e.Run("late", Label(egressRate, "10mbit"), Label("a", big))
	s := a.AwaitStatus("it is limited", limited(c, "bridge", 0, 10e6))
	if len(s.Findings) > 0 || !s.InSync {
		t.Errorf("%+v", s)
	}
	h := holdingOf(t, e, a)
	t.Logf("holds %+v", h)
	if h.rss > ceiling {
		t.Errorf("the agent has %d MiB", h.rss)
	}
}
