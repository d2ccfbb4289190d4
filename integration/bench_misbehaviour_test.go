package integration

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// work is the CPU time that a process has used, its children's included.
func work(t testing.TB, p *Process) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	ticks := 0
	for _, field := range fields[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}

// share is how much of a core the agent takes for a while, in percent.
func share(t testing.TB, a *Agent, while time.Duration) float64 {
	before, begin := work(t, a.Process()), time.Now()
	time.Sleep(while) // the stretch that is measured
	return float64(work(t, a.Process())-before) / float64(time.Since(begin)) * 100
}

// during does what a container does as fast as it can, in its namespace, and gives how
// many times a second that was.
func during(t testing.TB, c *Container, do func() error, measure func()) float64 {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	times, done := 0, make(chan error, 1)
	begin := time.Now()
	go func() {
		done <- c.Inside().Do(func() (err error) {
			for ctx.Err() == nil && err == nil {
				err = do()
				times++
				runtime.Gosched()
			}
			return err
		})
	}()
	time.Sleep(time.Second) // what happens only at first
	measure()
	end()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return float64(times) / time.Since(begin).Seconds()
}

// BenchmarkAgentUnderAttack is what a container with NET_ADMIN and NET_RAW can cost
// the agent by what it does in a loop, in percent of a core, beside what the agent takes
// in peace. A look at everything, each ten seconds, is in both.
func BenchmarkAgentUnderAttack(b *testing.B) {
	const while = 11 * time.Second
	e := Start(b)
	e.Network("net", Subnet("198.18.63.0/24"), Subnet("fd00:63::/64"))
	e.Network("alone", Subnet("198.18.64.0/24"))
	crowd(e, 40)
	a := e.Agent(Policy("closed.yaml", "name: closed\nselect: {container: shut}\ningress: []\n"))
	others := [2]*Container{e.Run("peer", On("net")), e.Run("shut", On("net"))}
	settled := func() {
		a.AwaitStatus("all are admitted", func(s control.Status) bool { return s.InSync && AllAdmitted(s) })
		time.Sleep(time.Second) // what it does once after that is not peace
	}
	settled()
	idle := share(b, a, while)
	report := func(name string, measure func() (busy, times float64)) {
		row(b, name, func() map[string]float64 {
			busy, times := measure()
			return map[string]float64{"agent-%": busy, "idle-%": idle, "times/s": times}
		})
	}
	for i, what := range misbehaviours {
		report(what.name, func() (busy, times float64) {
			s := &ill{network: "net"}
			if what.alone {
				s.network = "alone"
			}
			s.Container = e.Run(fmt.Sprint("ill", i), On(s.network), Cap("NET_ADMIN"), Label(ingressRate, "1gbit"), Label(egressRate, "1gbit"))
			defer s.Remove()
			do, err := s.prepare(what, others)
			if err != nil {
				b.Error(err)
				return 0, 0
			}
			defer s.end()
			if what.watched {
				defer e.Spawn(a.Binary, "monitor", "--socket", a.Socket).Stop()
			}
			settled()
			times = during(b, s.Container, do, func() { busy = share(b, a, while) })
			return busy, times
		})
	}
	for name, options := range map[string][]ContainerOption{
		"health-checks": {Tuned(func(c *container.Config, _ *container.HostConfig) {
			c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "/probe"}, Interval: time.Millisecond}
		})},
		"crashes": {Restarting("always"), Doing("nonsense")},
	} {
		report(name, func() (busy, times float64) {
			settled()
			c := e.Run(name, append(options, On("net"))...)
			defer c.Remove()
			return share(b, a, while), 0
		})
	}
}
