package scale

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"netguard/integration/harness"
)

const (
	starts      = 20  // whose processor time is measured, one after the other
	quickStarts = 100 // for the time until they are admitted
	tracedOnes  = 5
	settle      = time.Second // after a start or stop, for what the agent does late
	idle        = 30 * time.Second
)

// BenchmarkScale measures what one endpoint more costs beside so many others. The sizes come
// from NETGUARD_SCALE_STUB and NETGUARD_SCALE_DOCKER, such as "10,100"; the file that
// NETGUARD_SCALE_JSON names is written as well, with the label NETGUARD_SCALE_LABEL.
// NETGUARD_SCALE_AGENT is another netguard than this tree's.
func BenchmarkScale(b *testing.B) {
	run := Run{Label: os.Getenv("NETGUARD_SCALE_LABEL")}
	for _, kind := range []struct {
		name, sizes string
		world       func(testing.TB, int) world
	}{
		{"docker", sizes("NETGUARD_SCALE_DOCKER", "10,100,300"), newReal},
		{"stub", sizes("NETGUARD_SCALE_STUB", "10,100,1000,5000"), newPlayed},
	} {
		for text := range strings.SplitSeq(kind.sizes, ",") {
			count, err := strconv.Atoi(text)
			if err != nil {
				continue // none
			}
			b.Run(fmt.Sprintf("%s/%d", kind.name, count), func(b *testing.B) {
				for b.Loop() {
					s := Size{Kind: kind.name, Endpoints: count}
					measure(b, kind.world(b, count), &s)
					run.Sizes = append(run.Sizes, s)
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
	run.Compile = compiled(b)
	fmt.Println()
	if err := run.Table(os.Stdout); err != nil {
		b.Fatal(err)
	}
	if file := os.Getenv("NETGUARD_SCALE_JSON"); file != "" {
		if err := run.Write(file); err != nil {
			b.Fatal(err)
		}
	}
}

func sizes(variable, otherwise string) string {
	if text, ok := os.LookupEnv(variable); ok {
		return text
	}
	return otherwise
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func measure(b *testing.B, w world, s *Size) {
	b.Helper()
	e := w.engine()
	answer(b, e, echo)
	answer(b, e, opened)
	w.fill(s.Endpoints)
	a := e.NewAgent(policies()...)
	if binary := os.Getenv("NETGUARD_SCALE_AGENT"); binary != "" {
		a.Binary = binary
	}
	var err error
	if s.First, err = launch(b, a, s.Endpoints, first); err != nil {
		s.Note = err.Error()
		return
	}
	pid := a.Process().PID()
	time.Sleep(5 * time.Second) // what follows the first look
	used := func(f func()) float64 {
		before := cpu(b, pid)
		f()
		return ms(cpu(b, pid) - before)
	}
	perf := func(name string, f func()) { recorded(b, pid, fmt.Sprintf("%s-%d-%s", s.Kind, s.Endpoints, name), f) }
	var resting float64 // of a core
	perf("idle", func() { resting = used(func() { time.Sleep(idle) }) / ms(idle) })
	s.Idle = 100 * resting
	// extra is what f costs above what the agent costs at rest.
	extra := func(f func()) float64 {
		began := time.Now()
		total := used(f)
		return total - resting*ms(time.Since(began))
	}

	// must ends the benchmark with what the agent says of its endpoints.
	must := func(took time.Duration, err error) time.Duration {
		if err != nil {
			b.Fatalf("%v\n%s", err, a.CLI("status", "-o", "wide"))
		}
		return took
	}
	// begin starts a container, and waits until the agent is done with that.
	begin := func() guest {
		g := w.start()
		must(through(g.dial(echo)))
		time.Sleep(settle)
		return g
	}
	perf("starts", func() {
		for range starts {
			var g guest
			s.StartCPU += extra(func() { g = begin() }) / starts
			s.StopCPU += extra(func() { g.remove(); time.Sleep(settle) }) / starts
		}
	})
	s.Starts = starts
	var waits []time.Duration
	for began := time.Now(); len(waits) < quickStarts && time.Since(began) < longest; {
		waits = append(waits, must(w.admission()))
	}
	slices.Sort(waits)
	s.AdmitP50, s.AdmitP99 = ms(waits[len(waits)/2]), ms(waits[(len(waits)-1)*99/100])
	time.Sleep(settle)

	var status []time.Duration
	perf("status", func() {
		s.StatusCPU = extra(func() {
			for range 5 {
				began := time.Now()
				if r := a.CLI("status", "-o", "json"); r.Code != 0 {
					b.Errorf("%.1000s", r)
				}
				status = append(status, time.Since(began))
			}
		}) / 5
	})
	slices.Sort(status)
	s.Status = ms(status[2])

	witness := begin()
	s.EditCPU = extra(func() {
		conn := witness.dial(opened)
		n := 0
		for !strings.Contains(witness.name(), service(n)) {
			n++
		}
		a.WritePolicy(policyFile(n), policy(n, opened))
		s.Edit = ms(must(through(conn)))
		time.Sleep(settle)
	})
	s.RSS, s.PeakRSS = memory(b, pid, "VmRSS"), memory(b, pid, "VmHWM")

	started, stopped := calls{}, calls{}
	for n := range tracedOnes {
		var g guest
		name := fmt.Sprintf("%s-%d-%d", s.Kind, s.Endpoints, n)
		started.add(traced(b, pid, name+"-start", func() { g = begin() }))
		stopped.add(traced(b, pid, name+"-stop", func() { g.remove(); time.Sleep(settle) }))
	}
	s.Messages, s.Calls, s.Forks = started.messages/tracedOnes, started.calls/tracedOnes, started.forks/tracedOnes
	s.StopMessages, s.StopForks = stopped.messages/tracedOnes, stopped.forks/tracedOnes

	lost := watch(witness.dial(echo))
	a.Kill()
	if s.Restart, err = launch(b, a, s.Endpoints+1, longest); err != nil {
		s.Note = err.Error()
	}
	s.Lost = float64(lost())
}

// launch starts the agent and waits until all is in sync: how long that took, or that it took
// longer.
func launch(b *testing.B, a *harness.Agent, endpoints int, atMost time.Duration) (took float64, err error) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), atMost)
	defer cancel()
	began := time.Now()
	ready := a.Launch()
	select {
	case <-ready:
	case <-ctx.Done():
		return -1, fmt.Errorf("not ready within %v", atMost)
	}
	if err := synced(ctx, a.Socket, endpoints); err != nil {
		return -1, fmt.Errorf("not in sync within %v: %w", atMost, err)
	}
	return ms(time.Since(began)), nil
}

// watch sends a packet each millisecond until it is asked how many had no answer.
func watch(conn *net.UDPConn) (lost func() int) {
	stop, done := make(chan struct{}), make(chan struct{})
	sent, got := 0, 0
	go func() {
		defer close(done)
		for buf := make([]byte, 64); ; got++ {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	over := make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if _, err := conn.Write([]byte("?")); err == nil {
					sent++
				}
			}
		}
	}()
	return func() int {
		close(stop)
		<-over
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		<-done
		_ = conn.Close()
		return sent - got
	}
}

func (c *calls) add(o calls) {
	c.messages += o.messages
	c.calls += o.calls
	c.forks += o.forks
}
