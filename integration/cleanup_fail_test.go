package integration

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"netguard/agent/control"
)

// TestCleanupFails has a clean-up of a running agent fail: it keeps enforcing, and puts
// back what was taken out already. The next clean-up takes all of it out.
func TestCleanupFails(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.book.files = map[string]string{}
	clean := held(s.e)
	while, memory := s.file("failing"), t.TempDir()
	who := s.scenario()[0].after
	open, closed := s.allowed(who)
	start := func(plan string) {
		s.agent(s.faulty, "NETGUARD_FAULT="+plan, "NETGUARD_FAULT_WHILE="+while, "STATE_DIRECTORY="+memory)
		s.book.a.Start()
		s.book.enact(t, maps.Clone(who.files()))
		s.book.await(t, "all is in force", s.settled)
	}
	enforced := func(t *testing.T, want map[string][]string, told string) {
		t.Helper()
		s.book.await(t, told+": all is in force", s.settled)
		s.quietOrDie(t, &step{after: who})
		wrong := s.watch(open, closed)
		settle(t, s.calls, open, nil, told)
		for _, w := range wrong() {
			t.Errorf("%s: %s", told, w)
		}
		same(t, s.e, want, told)
	}
	refused := func(t *testing.T, why string) {
		t.Helper()
		if res := s.book.a.For(t).CLI("cleanup"); res.OK() || !strings.Contains(res.Stderr, why) {
			t.Fatalf("cleanup: %s, want %q", res, why)
		}
	}
	ends := func(t *testing.T, told string) {
		t.Helper()
		if res := s.book.a.For(t).CLI("cleanup"); !res.OK() {
			t.Fatalf("%s: cleanup: %s", told, res)
		}
		if r := s.book.a.Process().Wait(); !r.OK() || !strings.Contains(r.Stderr, "stops; everything of netguard's was taken out") {
			t.Errorf("%s: the agent ended with %s", told, r)
		}
		same(t, s.e, clean, told+", cleaned up")
	}
	// Of each thing that a clean-up does the first, and whatever comes after it: some
	// of what goes before is gone by then.
	for _, kind := range []string{"ipset destroy", "ifb delete", "port settings"} {
		t.Run(strings.ReplaceAll(kind, " ", "_"), func(t *testing.T) {
			start("error:" + kind + ":1")
			want := held(s.e)
			if err := os.WriteFile(while, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			refused(t, "clean-up failed half-way, so the agent puts back what was taken out")
			if err := os.Remove(while); err != nil {
				t.Fatal(err)
			}
			enforced(t, want, "after a clean-up that failed")
			if _, err := os.Stat(filepath.Join(memory, "networks.json")); err != nil {
				t.Errorf("what is known for the next boot: %v", err)
			}
			ends(t, "the second")
		})
	}
	t.Run("before_it_begins", func(t *testing.T) {
		start("error:none:1")
		want := held(s.e)
		e := s.e.For(t)
		e.Output("iptables", "-N", "NG-FORMAT-99")
		refused(t, "a newer netguard")
		e.Output("iptables", "-X", "NG-FORMAT-99")
		s.book.await(t, "the newer one is gone", s.settled)
		e.Output("sh", "-c", "iptables -F NG-FORWARD; nft delete table bridge netguard; for d in $(ip -o link show | grep -oE 'ngifb[0-9a-f]+' | sort -u); do ip link del $d; done")
		s.book.await(t, "what was damaged is seen", func(st control.Status) bool { return strings.Contains(s.book.a.Log(), "changed by somebody else") })
		enforced(t, want, "after a clean-up that was refused")
		ends(t, "the second")
	})
}
