package scale

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"netguard/integration/dockerstub"
	"netguard/integration/harness"
)

// trial is one agent beside a number of endpoints, and what is measured of it.
type trial struct {
	b       *testing.B
	w       world
	a       *harness.Agent
	pid     int
	resting float64 // the agent's share of a core where nothing happens
	Size
}

func measure(b *testing.B, w world, kind string, endpoints int) Size {
	b.Helper()
	e := w.engine()
	answer(b, e, echo)
	answer(b, e, opened)
	w.fill(endpoints)
	t := &trial{b: b, w: w, a: e.NewAgent(policies()...), Size: Size{Kind: kind, Endpoints: endpoints, Starts: starts}}
	if binary := os.Getenv("NETGUARD_SCALE_AGENT"); binary != "" {
		if _, err := exec.LookPath(binary); err != nil {
			t.b.Fatalf("NETGUARD_SCALE_AGENT: %v", err)
		}
		t.a.Binary = binary
	}
	var err error
	if t.First, err = t.launch("first", endpoints, first); err != nil {
		t.Note = err.Error()
		return t.Size
	}
	time.Sleep(5 * time.Second) // what follows the first look
	t.rest()
	t.startsAndStops()
	t.admissions()
	t.status()
	witness := t.begin()
	t.edit(witness)
	t.RSS, t.PeakRSS = memory(b, t.pid, "VmRSS"), memory(b, t.pid, "VmHWM")
	t.trace()
	t.restart(witness)
	return t.Size
}

// used is the agent's processor time while f runs, in milliseconds.
func (t *trial) used(f func()) float64 {
	before := cpu(t.b, t.pid)
	f()
	return ms(cpu(t.b, t.pid) - before)
}

// extra is what f costs above what the agent costs at rest.
func (t *trial) extra(f func()) float64 {
	began := time.Now()
	total := t.used(f)
	return total - t.resting*ms(time.Since(began))
}

// perf has f recorded under a name, if anybody wants that.
func (t *trial) perf(name string, f func()) {
	recorded(t.b, t.pid, fmt.Sprintf("%s-%d-%s", t.Kind, t.Endpoints, name), f)
}

// must ends the benchmark with what the agent says of its endpoints.
func (t *trial) must(took time.Duration, err error) time.Duration {
	if err != nil {
		t.b.Helper()
		t.b.Fatalf("%v\n%s", err, t.a.CLI("status", "-o", "wide"))
	}
	return took
}

// begin starts a container, and waits until the agent is done with that.
func (t *trial) begin() guest {
	g := t.w.start()
	t.must(through(g.dial(echo)))
	time.Sleep(settle)
	return g
}

// end ends a container likewise.
func (t *trial) end(g guest) {
	g.remove()
	time.Sleep(settle)
}

func (t *trial) rest() {
	t.perf("idle", func() { t.resting = t.used(func() { time.Sleep(idle) }) / ms(idle) })
	t.Idle = 100 * t.resting
}

func (t *trial) startsAndStops() {
	t.perf("starts", func() {
		for range starts {
			var g guest
			t.StartCPU += t.extra(func() { g = t.begin() }) / starts
			t.StopCPU += t.extra(func() { t.end(g) }) / starts
		}
	})
}

// admissions measures one start at a time, on a machine that is idle before, and then starts
// that follow each other at once.
func (t *trial) admissions() {
	t.AdmitP50, t.AdmitP99 = t.admitted(pause)
	t.QuickP50, t.QuickP99 = t.admitted(dockerstub.Turnover)
	time.Sleep(settle)
}

// admitted is how long half of many starts, and 99 of 100, take to admission.
func (t *trial) admitted(pause time.Duration) (p50, p99 float64) {
	var waits []time.Duration
	for began := time.Now(); len(waits) < quickStarts && time.Since(began) < longest; {
		waits = append(waits, t.must(t.w.admission()))
		time.Sleep(pause)
	}
	slices.Sort(waits)
	return ms(waits[len(waits)/2]), ms(waits[(len(waits)-1)*99/100])
}

func (t *trial) status() {
	const times = 5
	var took []time.Duration
	t.perf("status", func() {
		t.StatusCPU = t.extra(func() {
			for range times {
				began := time.Now()
				if r := t.a.CLI("status", "-o", "json"); !r.OK() {
					t.b.Errorf("%.1000s", r)
				}
				took = append(took, time.Since(began))
			}
		}) / times
	})
	slices.Sort(took)
	t.Status = ms(took[times/2])
}

// edit lets a service ask one port more, and waits until a container of it can.
func (t *trial) edit(witness guest) {
	n := 0
	for !strings.Contains(witness.name(), service(n)) {
		n++
	}
	conn := witness.dial(opened)
	t.perf("edit", func() {
		t.EditCPU = t.extra(func() {
			t.a.WritePolicy(policyFile(n), policy(n, opened))
			t.Edit = ms(t.must(through(conn)))
			time.Sleep(settle)
		})
	})
}

// trace counts what the agent asks of the kernel for a start and an end, above what it asks at
// rest.
func (t *trial) trace() {
	name := fmt.Sprintf("%s-%d", t.Kind, t.Endpoints)
	resting := traced(t.b, t.pid, name+"-rest", func() { time.Sleep(tracedRest) })
	extra := func(name string, f func()) calls {
		var lasted time.Duration
		c := traced(t.b, t.pid, name, func() {
			began := time.Now()
			f()
			lasted = time.Since(began)
		})
		c.add(resting, -lasted.Seconds()/tracedRest.Seconds())
		return c
	}
	started, stopped := calls{}, calls{}
	for n := range tracedOnes {
		var g guest
		name := fmt.Sprintf("%s-%d", name, n)
		started.add(extra(name+"-start", func() { g = t.begin() }), 1)
		stopped.add(extra(name+"-stop", func() { t.end(g) }), 1)
	}
	t.Messages, t.Calls, t.Forks = started.messages/tracedOnes, started.calls/tracedOnes, started.forks/tracedOnes
	t.StopMessages, t.StopForks = stopped.messages/tracedOnes, stopped.forks/tracedOnes
}

func (t *trial) restart(witness guest) {
	lost := watch(witness.dial(echo))
	t.a.Kill()
	var err error
	if t.Restart, err = t.launch("restart", t.Endpoints+1, longest); err != nil {
		t.Note = err.Error()
	}
	t.Lost = float64(lost())
}

// launch starts the agent and waits until all is in sync: how long that took, or that it took
// longer.
func (t *trial) launch(name string, endpoints int, atMost time.Duration) (took float64, err error) {
	ctx, cancel := context.WithTimeout(t.b.Context(), atMost)
	defer cancel()
	began := time.Now()
	ready := t.a.Launch()
	t.pid = t.a.Process().PID()
	t.perf(name, func() {
		select {
		case <-ready:
		case <-ctx.Done():
			err = fmt.Errorf("not ready within %v", atMost)
			return
		}
		if err = synced(ctx, t.a.Socket, endpoints); err != nil {
			err = fmt.Errorf("not in sync within %v: %w", atMost, err)
		}
		took = ms(time.Since(began))
	})
	if err != nil {
		return -1, err
	}
	return took, nil
}
