package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// footprint is what an agent holds.
type footprint struct {
	files, goroutines int
	queues            string // every qdisc and IFB on the host
}

func footprintOf(t *testing.T, e *Engine, a *Agent) footprint {
	t.Helper()
	files, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(a.Process().PID()), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	metrics := get(t, e, "127.0.0.1:9477", "/metrics")
	f := footprint{files: len(files), queues: e.Output("sh", "-c", "tc qdisc show; ip -o link show type ifb")}
	for line := range strings.Lines(metrics) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "go_goroutines "); ok {
			f.goroutines, _ = strconv.Atoi(n)
		}
	}
	if f.goroutines == 0 {
		t.Fatalf("no go_goroutines in\n%s", metrics)
	}
	return f
}

// get asks an HTTP server on the engine's host.
func get(t *testing.T, e *Engine, address, path string) string {
	t.Helper()
	var conn net.Conn
	// It is there a moment after the agent is ready, and nothing tells of that.
	for deadline := time.Now().Add(5 * time.Second); conn == nil; time.Sleep(10 * time.Millisecond) {
		err := e.Do(func() (err error) { conn, err = net.Dial("tcp", address); return err })
		if err != nil && (!errors.Is(err, unix.ECONNREFUSED) || time.Now().After(deadline)) {
			t.Fatal(err)
		}
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(all), " 200 OK\r\n") {
		t.Fatalf("GET %s: %v\n%s", path, err, all)
	}
	return string(all)
}

func churn(t *testing.T, rounds int) {
	e := Start(t)
	a := e.Agent(AgentFlags("--metrics", "127.0.0.1:9477"))
	e.Network("net")
	round := func(i int) {
		c := e.Run(fmt.Sprintf("c%d", i), On("net"), Label(egressRate, "10mbit"), Label(ingressRate, "10mbit"))
		a.AwaitStatus("it is limited", limited(c, "net", 10e6, 10e6))
		c.Remove()
	}
	empty := func(s control.Status) bool { return len(s.Endpoints) == 0 && len(ifbs(e)) == 0 }
	for i := range 3 { // what is made once and kept is made now
		round(i)
	}
	a.AwaitStatus("nothing is left", empty)
	before := footprintOf(t, e, a)
	for i := range rounds {
		round(i)
	}
	a.AwaitStatus("nothing is left", empty)
	after := footprintOf(t, e, a)
	t.Logf("%d containers: files %d and %d, goroutines %d and %d", rounds, before.files, after.files, before.goroutines, after.goroutines)
	if after.queues != before.queues {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after.queues, before.queues)
	}
	// A connection to Docker or two, and their goroutines, come and go.
	if after.files > before.files+3 || after.goroutines > before.goroutines+6 {
		t.Errorf("the agent grew from %+v to %+v", before, after)
	}
}

func TestLeftovers(t *testing.T) {
	t.Parallel()
	churn(t, 20)
}

func TestSoakLeftovers(t *testing.T) {
	soaking(t)
	churn(t, 200)
}

// soaking skips what only `make soak` has time for.
func soaking(t *testing.T) {
	if os.Getenv("NETGUARD_SOAK") == "" {
		t.Skip("takes minutes: run by make soak")
	}
}
