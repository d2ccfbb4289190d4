package integration

import (
	"fmt"
	"os"
	"testing"
	"time"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// TestErrorAtWrite has writes to the kernel fail while an agent begins, policies and
// limits change, and containers come and go: it goes on, says that not all is in
// force, and brings it there when writes work again. Nothing that is denied passes
// meanwhile, and what is allowed goes on.
func TestErrorAtWrite(t *testing.T) {
	t.Parallel()
	errorAtWrites(t, 3)
}

func TestSoakErrorAtWrite(t *testing.T) {
	soaking(t)
	errorAtWrites(t, 100)
}

// failsFor is how long an agent that cannot write is watched.
const failsFor = time.Second

func errorAtWrites(t *testing.T, rounds int, options ...Option) {
	r := seeded(t)
	s := newScene(t, options...)
	steps := s.scenario()
	s.book.files = map[string]string{}
	names := s.rehearse(t, steps)
	probes := 0 // the writes before the agent has begun
	for i, name := range names[:steps[0].last] {
		if name == "ipset create" {
			probes = i
			break
		}
	}
	while := s.file("failing")
	for round := range rounds {
		failing := (round + r.IntN(2)*3) % len(steps)
		if round >= 3 {
			failing = r.IntN(len(steps))
		}
		how, from := []string{"error", "error", "error-after"}[r.IntN(3)], 1
		if failing == 0 {
			from = probes + 1 + r.IntN(steps[0].last-probes)
		} else if r.IntN(2) == 0 {
			// Not the first ones of the step.
			from = steps[failing-1].last + 1 + r.IntN(steps[failing].last-steps[failing-1].last)
		}
		s.fails(t, steps, failing, while, fmt.Sprintf("%s:%d", how, from))
		if t.Failed() {
			t.FailNow()
		}
	}
}

// fails plays the scenario up to a step in which writes fail.
func (s *scene) fails(t *testing.T, steps []*step, failing int, while, plan string) {
	t.Helper()
	s.clean(t, steps)
	told := fmt.Sprintf("%s, step %s", plan, steps[failing].name)
	log := s.file(fmt.Sprintf("%s-%d", plan, failing))
	_ = os.Remove(log)
	s.agent(s.faulty, "NETGUARD_FAULT="+plan, "NETGUARD_FAULT_WHILE="+while, "NETGUARD_FAULT_LOG="+log)
	st := steps[failing]
	fail := func() {
		if err := os.WriteFile(while, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(while) })
	}
	if failing == 0 {
		fail()
	}
	s.book.a.Start()
	for _, before := range steps[:failing] {
		before.do(t)
		s.book.await(t, told+": before that, "+before.name+" is done", before.settling)
		s.quietOrDie(t, before)
		before.end(t)
	}
	// Before the first step nothing is in force, and nobody admitted: where rules
	// cannot count, those that they are about are closed until they do.
	wrong := func() []string { return nil }
	if st.before != nil {
		wrong = s.watch(s.allowed(st.before, st.after))
		fail()
	}
	st.do(t)
	begun, settled, unwell := time.Now(), 0, 0
	for time.Since(begun) < failsFor {
		s.book.await(t, told+": it answers", func(status control.Status) bool {
			if st.settling(status) {
				settled++
			} else {
				unwell++
			}
			return true
		}, s.dead)
		time.Sleep(50 * time.Millisecond) // so many questions are enough
	}
	wrote := len(writes(t, log))
	if s.dead() {
		t.Fatalf("%s: the agent ended: %s", told, s.book.a.Process().Wait())
	}
	if err := os.Remove(while); err != nil {
		t.Fatal(err)
	}
	ends := time.Now()
	s.book.await(t, told+": all is in force when writes work again", st.settling)
	t.Logf("%s: %d writes, %d times of %d told that it is not well, in force %v after writes worked again", told, wrote, unwell, unwell+settled, time.Since(ends).Round(time.Millisecond))
	if unwell == 0 {
		t.Errorf("%s: it never said so", told)
	}
	for _, w := range wrong() {
		t.Errorf("%s: %s", told, w)
	}
	s.compare(t, st, told)
	s.stopped(t, st, told)
	st.end(t)
	if st.name == "come" {
		steps[failing+1].do(t)
	}
}
