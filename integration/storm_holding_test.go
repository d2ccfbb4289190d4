package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// holding is what the agent's process holds.
type holding struct{ rss, files, goroutines int }

func holdingOf(t *testing.T, e *Engine, a *Agent) holding {
	t.Helper()
	f := footprintOf(t, e, a)
	return holding{residentOf(t, a), f.files, f.goroutines}
}

// residentOf is how much memory the agent has, in MiB.
func residentOf(t *testing.T, a *Agent) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(a.Process().PID()), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib / 1024
		}
	}
	t.Fatalf("no VmRSS in %s", text)
	return 0
}

// back checks that the agent holds no more than before.
func (h holding) back(t *testing.T, e *Engine, a *Agent) {
	t.Helper()
	var now holding
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) { // there is no event to wait for
		if now = holdingOf(t, e, a); now.files <= h.files+3 && now.goroutines <= h.goroutines+6 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("the agent held %+v and holds %+v", h, now)
			break
		}
	}
	t.Logf("held %+v, holds %+v", h, now)
}

// leaksNothing has Docker answer wrongly and without end, again and again:
// after the first time each takes no more memory for good than the one before.
func (s *storming) leaksNothing(t *testing.T) {
	again := func() int {
		for _, f := range faults {
			if f.repeated {
				f.begin(s)
				s.await(t, "the agent says what is wrong", func(is control.Status) bool { return len(is.Findings) == 1 && strings.Contains(is.Findings[0], f.says) })
				f.end(s)
				s.await(t, "all is well", s.well(3))
			}
		}
		// Memory is given back by and by.
		least := residentOf(t, s.a)
		for range 20 {
			time.Sleep(50 * time.Millisecond) // nothing tells
			least = min(least, residentOf(t, s.a))
		}
		return least
	}
	was := again()
	oneOf(t, busyTries, func() error {
		now := again()
		t.Logf("%d MiB after a storm, %d MiB after the same again", was, now)
		if now > was+leakMiB {
			err := fmt.Errorf("the agent had %d MiB after a storm, and has %d after the same again", was, now)
			was = now
			return err
		}
		return nil
	})
}

// leakMiB is what two storms may differ by, in when the memory of the first is collected.
const leakMiB = 16
