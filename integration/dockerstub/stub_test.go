package dockerstub

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/google/go-cmp/cmp"

	"netguard/agent/docker"
	"netguard/integration/harness"
)

const subnet = "198.18.40.0/24"

var labels = map[string]string{"com.docker.compose.service": "web", "netguard.egress.rate": "10mbit"}

// seen is what the agent makes of an engine with one container, without what differs from
// container to container.
func seen(t *testing.T, host string) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	e, err := docker.New(host, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	v, err := e.Refresh(t.Context(), docker.Hint{Full: true})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, n := range v.Networks {
		lines = append(lines, fmt.Sprintf("network %s %s %s %v %v %v %d", n.Name, n.Driver, n.Scope, n.IPv6, n.Subnets, n.Routed, len(n.Endpoints)))
		for _, a := range n.Endpoints {
			c := v.Container(a.ID)
			lines = append(lines, fmt.Sprintf("endpoint of %s on %s: %s %s %q", c.Name, n.Name, a.MAC, a.IPv4, a.Kind),
				fmt.Sprintf("bridge is named by the network: %v", n.Bridge == "br-"+n.ID[:12]))
		}
	}
	for _, c := range v.Containers {
		lines = append(lines, fmt.Sprintf("container %s %s %v %v %s %q %q %v", c.Name, c.State, c.Labels, c.Networks, c.NetworkMode, c.SandboxOf, c.Unproven, c.Ports))
		sandbox, err := e.Sandbox(t.Context(), c.ID)
		lines = append(lines, fmt.Sprintf("sandbox %v %v", sandbox != "", err))
	}
	slices.Sort(lines)
	return strings.Join(append([]string{v.Firewall}, lines...), "\n")
}

// told are the events of an engine while f runs, up to the one that ends a container.
func told(t *testing.T, e *harness.Engine, f func()) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	messages, errs := e.Client.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", "container"), filters.Arg("type", "network"))})
	f()
	var all []string
	for {
		select {
		case m := <-messages:
			all = append(all, fmt.Sprintf("%s %s %v", m.Type, m.Action, m.Actor.Attributes["name"]))
			if m.Action == events.ActionDestroy {
				return all
			}
		case err := <-errs:
			t.Fatalf("after %q: %v", all, err)
		}
	}
}

// rules are the engine's firewall rules, with a fixed name for the network's bridge.
func rules(e *harness.Engine, bridge string) string {
	var kept []string
	for line := range strings.Lines(e.Output("iptables-save")) {
		if strings.HasPrefix(line, "-A") || strings.HasPrefix(line, ":DOCKER") || strings.HasPrefix(line, ":FORWARD") {
			name, _, _ := strings.Cut(line, " [")
			kept = append(kept, strings.ReplaceAll(name, bridge, "BRIDGE"))
		}
	}
	return strings.Join(kept, "\n")
}

// TestStub checks that the agent sees the same containers and gets the same events from the
// stub as from Docker.
func TestStub(t *testing.T) {
	t.Parallel()
	real := harness.Start(t)
	if v, err := real.Client.ServerVersion(t.Context()); err != nil || !strings.HasPrefix(v.Version, "20.10.") {
		t.Skipf("the engine under test is %s, not the one that is played (%v)", v.Version, err)
	}
	on := real.Network("net", harness.Subnet(subnet))
	c := real.Run("web", harness.On("net"), harness.Labels(labels))

	host := harness.Start(t, harness.WithoutDaemon())
	stub := Start(t, host)
	network := stub.Network("net", subnet)
	played := stub.Create("web", "probe", network, labels)
	played.Start(ConnectFirst, nil)

	if got, want := seen(t, host.Host()), seen(t, real.Host()); got != want {
		t.Errorf("the agent sees something else:\n%s", cmp.Diff(want, got))
	}
	if got, want := rules(host, network.Bridge), rules(real, on.Bridge); got != want {
		t.Errorf("the rules are others:\n%s", cmp.Diff(want, got))
	}
	if got := played.Address().String(); c.IP("net").String() != got {
		t.Errorf("address %s, Docker gives %s", got, c.IP("net"))
	}
	want := told(t, real, func() {
		real.Run("db", harness.On("net")).Remove()
	})
	got := told(t, host, func() {
		one := stub.Create("db", "probe", network, labels)
		one.Start(ConnectFirst, nil)
		one.Remove()
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("other events:\n%s", diff)
	}
}
