package integration

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	. "netguard/integration/harness"
)

// TestCleanupKilled kills a clean-up before and after writes to the kernel, one a
// round: another one makes an end of it, and the kernel is as before netguard.
func TestCleanupKilled(t *testing.T) {
	t.Parallel()
	cleanupKilled(t, 4)
}

func TestSoakCleanupKilled(t *testing.T) {
	soaking(t)
	t.Run("nftables", func(t *testing.T) { cleanupKilled(t, 0) })
	t.Run("legacy", func(t *testing.T) { cleanupKilled(t, 0, WithLegacyIptables()) })
}

// cleanupKilled has so many rounds, or one for each write and side of it.
func cleanupKilled(t *testing.T, rounds int, options ...Option) {
	r := seeded(t)
	s := newScene(t, options...)
	s.agent(s.plain)
	s.book.files = map[string]string{}
	clean := held(s.e)
	who := s.scenario()[0].after
	enforce := func() {
		s.book.a.Start()
		s.book.enact(t, maps.Clone(who.files()))
		s.book.await(t, "all is in force", s.settled)
		s.book.a.Kill()
	}
	cleanup := func(binary string, env ...string) Result {
		a := s.book.a
		return s.e.For(t).Try("env", slices.Concat(env, []string{binary, "cleanup", "--config", a.ConfigFile, "--docker-host", s.e.Host(), "--socket", a.Socket})...)
	}
	log := s.file("writes")
	enforce()
	if res := cleanup(s.faulty, "NETGUARD_FAULT_LOG="+log); !res.OK() {
		t.Fatal(res)
	}
	same(t, s.e, clean, "nobody was killed")
	names := writes(t, log)
	kinds := map[string]int{}
	for _, name := range names {
		kinds[name]++
	}
	t.Logf("%d writes: %v", len(names), kinds)
	var plans []string
	for n := range names {
		plans = append(plans, fmt.Sprintf("kill:%d", n+1), fmt.Sprintf("kill-after:%d", n+1))
	}
	r.Shuffle(len(plans), func(i, j int) { plans[i], plans[j] = plans[j], plans[i] })
	if rounds > 0 {
		// One at least between netguard's rules and what was made for them.
		plans = append([]string{"kill:nft delete chain:1"}, plans[:rounds-1]...)
	}
	killed := 0
	for _, plan := range plans {
		_ = os.Remove(log)
		enforce()
		res := cleanup(s.faulty, "NETGUARD_FAULT="+plan, "NETGUARD_FAULT_LOG="+log)
		told := plan
		if !res.OK() {
			all := writes(t, log)
			told += " at " + all[len(all)-1]
			killed++
		}
		t.Log(told)
		if res := cleanup(s.plain); !res.OK() {
			t.Fatalf("%s: the next one: %s", told, res)
		}
		same(t, s.e, clean, told)
		if t.Failed() {
			t.FailNow()
		}
	}
	if killed < len(plans)*3/4 {
		t.Errorf("%d of %d were killed", killed, len(plans))
	}
}
