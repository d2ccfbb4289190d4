package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// edge is one end of a restart, or something that happens to a container.
type edge string

const (
	agentEnds, agentStarts   edge = "agent ends", "agent starts"
	dockerEnds, dockerStarts edge = "dockerd ends", "dockerd starts"
	serverRestarts           edge = "container restarts"
	serverReplaced           edge = "container is replaced"
	thirdStops               edge = "another container stops"
)

// edges lists the orders in which the agent and dockerd restart, with something that
// happens to a container at each moment at which dockerd runs.
func edges() [][]edge {
	var all [][]edge
	for _, order := range [][]edge{
		{agentEnds, agentStarts, dockerEnds, dockerStarts},
		{dockerEnds, dockerStarts, agentEnds, agentStarts},
		{agentEnds, dockerEnds, agentStarts, dockerStarts},
		{agentEnds, dockerEnds, dockerStarts, agentStarts},
		{dockerEnds, agentEnds, agentStarts, dockerStarts},
		{dockerEnds, agentEnds, dockerStarts, agentStarts},
	} {
		for at := range len(order) + 1 {
			if slices.Contains(order[:at], dockerEnds) && !slices.Contains(order[:at], dockerStarts) {
				continue
			}
			for _, what := range []edge{serverRestarts, serverReplaced, thirdStops} {
				all = append(all, slices.Insert(slices.Clone(order), at, what))
			}
		}
	}
	return all
}

// edgeStage has a server that its client alone may reach, and a third container.
type edgeStage struct {
	e      *Engine
	a      *Agent
	server *Container
	client *Container
	third  *Container
	number int
}

func newEdgeStage(t *testing.T, options ...Option) *edgeStage {
	e := Start(t, append(options, WithIPv6())...)
	s := &edgeStage{e: e}
	s.a = e.Agent(Policy("server.yaml", "{name: server, select: {container: server}, ingress: [{from: [{container: client}, {entity: host}], ports: [tcp/80]}]}\n"))
	e.Network("net", Subnet("198.18.97.0/24"), Subnet("fd00:97::/64"))
	s.server = s.run("server")
	s.client = e.Run("client", On("net"), Restarting("always"))
	s.third = e.Run("third", On("net"), Restarting("unless-stopped"))
	s.settled(t)
	return s
}

// run makes the server, with another MAC each time.
func (s *edgeStage) run(name string) *Container {
	s.number++
	return s.e.Run(name, On("net", "198.18.97.10", "fd00:97::10"), Restarting("always"),
		WithMAC(fmt.Sprintf("02:42:00:00:01:%02x", s.number%256)), Doing("serve", "tcp", ":80"))
}

func (s *edgeStage) do(step edge) {
	switch step {
	case agentEnds:
		s.a.Kill()
	case agentStarts:
		s.a.Start()
	case dockerEnds:
		s.e.StopDaemon()
	case dockerStarts:
		s.e.StartDaemon()
	case serverRestarts:
		s.server.Restart()
	case serverReplaced:
		s.server.Remove()
		s.server = s.run("server")
	case thirdStops:
		s.third.Stop()
	}
}

// settled waits until all that runs is admitted.
func (s *edgeStage) settled(t *testing.T) {
	t.Helper()
	s.a.For(t).AwaitStatus("all that runs is admitted", func(is control.Status) bool {
		for _, c := range []*Container{s.server, s.client} {
			ep, ok := Endpoint(is, c, "net")
			if !ok || !Whole(ep) || ep.Veth != c.For(t).Veth("net") {
				return false
			}
		}
		return is.InSync && AllAdmitted(is)
	})
}

// reach has everybody try to reach the server: who may does so at once.
func (s *edgeStage) reach(t *testing.T) {
	t.Helper()
	server, client, third := s.server.For(t), s.client.For(t), s.third.For(t)
	for _, to := range []string{server.Addr("net", 80), server.Addr6("net", 80)} {
		for who, from := range map[string]Netns{"its client": client.Inside(), "the host": s.e.For(t).Netns} {
			if r := soon(from, to); !r.Answered() {
				t.Errorf("%s does not reach the server at %s: %s", who, to, r)
			}
		}
		if third.Inspect().State.Running {
			third.Inside().CannotReach("tcp", to)
		}
	}
}

// round goes through one order.
func (s *edgeStage) round(t *testing.T, order []edge) {
	var names []string
	for _, step := range order {
		names = append(names, string(step))
	}
	t.Run(strings.ReplaceAll(strings.Join(names, ", "), " ", "_"), func(t *testing.T) {
		for _, step := range order {
			s.do(step)
		}
		s.settled(t)
		s.reach(t)
		s.third.For(t).Start()
		s.settled(t)
		s.reach(t)
	})
}

// TestRestartEdges has containers restart, be replaced and stop while the agent and
// dockerd restart: as soon as they are admitted they are reached by who may reach them.
func TestRestartEdges(t *testing.T) {
	t.Parallel()
	s := newEdgeStage(t)
	all := edges()
	for i := 0; i < len(all) && !t.Failed(); i += len(all) / 2 {
		s.round(t, all[i])
	}
}

// TestSoakRestartEdges goes through all orders, with live-restore as well.
func TestSoakRestartEdges(t *testing.T) {
	soaking(t)
	for name, options := range map[string][]Option{"": nil, "live-restore": {DaemonConfig(`{"live-restore": true}`)}} {
		t.Run(name, func(t *testing.T) {
			s := newEdgeStage(t, options...)
			for _, order := range edges() {
				s.round(t, order)
			}
		})
	}
}
