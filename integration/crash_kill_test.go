package integration

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// TestCrashAtRandom kills the agent (kill -9) at random moments of random work. After
// each restart the kernel holds what it should, nothing twice and nothing that is
// nobody's; no allowed connection breaks, no denied one gets through.
func TestCrashAtRandom(t *testing.T) {
	t.Parallel()
	crashAtRandom(t, 8)
}

func TestSoakCrashAtRandom(t *testing.T) {
	soaking(t)
	crashAtRandom(t, 300)
}

// latest is how long after its start an agent is killed at most: the middle of its
// start is among it.
const latest = 1500 * time.Millisecond

// turmoil is the random work on a stage.
type turmoil struct {
	*scene
	r     *rand.Rand
	who   *society
	extra []*Container // that come and go
	serve int          // how many there were
	side  map[*guest]bool
}

func crashAtRandom(t *testing.T, rounds int) {
	r := seeded(t)
	s := newScene(t)
	s.e.Network("side", Subnet("198.18.71.0/24"))
	w := &turmoil{scene: s, r: r, who: &society{names: crashNames, in: map[string][]string{}, out: map[string][]string{}, deny: map[string][]string{}}, side: map[*guest]bool{}}
	s.agent(s.plain)
	s.book.files = map[string]string{}
	s.book.a.Start()
	s.book.enact(t, w.who.files())
	compared := 0
	for round := range rounds {
		told := fmt.Sprintf("round %d:", round)
		before := w.who.copied()
		open, closed := s.allowed(before)
		settle(t, s.calls, open, nil, told)
		wrong := s.watch(open, closed)
		// Work while it runs, it is killed, work while it is dead.
		all := []*society{before}
		dies := time.Duration(r.Int64N(int64(latest)))
		if r.IntN(2) == 0 {
			s.book.a.Kill()
			s.book.a.Launch() // and dies while it starts, or soon after
			told += " starting,"
		}
		end := time.Now().Add(dies)
		for range 1 + r.IntN(2) {
			told += " " + w.work(t) + ","
			all = append(all, w.who.copied())
		}
		time.Sleep(time.Until(end)) // the moment is what is random
		s.book.a.Kill()
		told += fmt.Sprintf(" killed %v later,", dies.Round(time.Millisecond))
		if r.IntN(3) == 0 {
			told += " " + w.work(t) + ","
			all = append(all, w.who.copied())
		}
		s.book.a.Start()
		s.book.await(t, told+" all is in force again", w.settled)
		always, never := s.allowed(all...)
		for _, problem := range wrong() {
			name, _, _ := strings.Cut(problem, " is ")
			for _, c := range s.calls {
				if c.String() == name && (strings.Contains(problem, "broke") && always[c] || !strings.Contains(problem, "broke") && never[c]) {
					t.Errorf("%s %s", told, problem)
				}
			}
		}
		w.orphans(t, told)
		now, denied := s.allowed(w.who)
		s.rests(t, denied, told)
		settle(t, s.calls, now, nil, told)
		if round%10 == 4 {
			w.compare(t, told)
			compared++
		}
		if t.Failed() {
			t.Fatalf("%s\n%s", told, strings.Join(slices.Sorted(maps.Values(w.who.files())), ""))
		}
		t.Log(told)
	}
	t.Logf("%d agents were killed, %d times what the next one made of it was compared with what an undisturbed one makes", rounds, compared)
}

// work does something at random, and says what.
func (w *turmoil) work(t *testing.T) string {
	t.Helper()
	switch w.r.IntN(7) {
	case 0, 1, 2:
		told := w.who.change(w.r)
		w.book.post(t, maps.Clone(w.who.files()))
		return told
	case 3:
		if len(w.extra) > 2 || len(w.extra) > 0 && w.r.IntN(2) == 0 {
			i := w.r.IntN(len(w.extra))
			c := w.extra[i]
			w.extra = slices.Delete(w.extra, i, i+1)
			c.Remove()
			return c.Name + " goes"
		}
		w.serve++
		c := w.e.Create(fmt.Sprintf("extra%d", w.serve), On(crashNet), Label(egressRate, fmt.Sprintf("%dmbit", 10+w.r.IntN(90))), Label("netguard.ingress", "[]"))
		c.Start()
		w.extra = append(w.extra, c)
		return c.Name + " comes"
	case 4:
		g := w.guests[w.r.IntN(len(w.guests))]
		if w.side[g] = !w.side[g]; w.side[g] {
			g.Connect("side")
			return g.Name + " joins side"
		}
		g.Disconnect("side")
		return g.Name + " leaves side"
	case 5:
		if len(w.extra) == 0 {
			return "nothing"
		}
		c := w.extra[w.r.IntN(len(w.extra))]
		c.Restart()
		return c.Name + " restarts"
	}
	text := ""
	if w.r.IntN(3) > 0 {
		text = fmt.Sprintf("limits: {default: {egress: %dmbit}}\n", 100+w.r.IntN(5))
	}
	w.book.a.WriteConfig(text)
	return "configuration " + strings.TrimSpace(text)
}

// settled tells that everything is as it was posted.
func (w *turmoil) settled(st control.Status) bool {
	want := len(w.guests) + 1 + len(w.extra)
	for _, on := range w.side {
		if on {
			want++
		}
	}
	return w.scene.settled(st) && len(st.Endpoints) == want && st.Docker.Connected
}

// rests waits until nothing of what is denied is under way, and looks that it stays so.
func (s *scene) rests(t *testing.T, closed map[*call]bool, told string) {
	t.Helper()
	for begun := time.Now(); ; {
		wrong := s.watch(nil, closed)
		time.Sleep(4 * talkEvery) // something would be said in this time
		w := wrong()
		if len(w) == 0 {
			return
		}
		if time.Since(begun) > stopsWithin+restsFor {
			t.Fatalf("%s it goes on %v after its policy is in force: %v", told, time.Since(begun), w)
		}
	}
}

// orphans looks for what is there twice, or nobody's. (In how far the kernel holds
// more than was wanted of rules, sets and ports, status says: it would not be in sync.)
func (w *turmoil) orphans(t *testing.T, told string) {
	t.Helper()
	limited := 0
	for _, ep := range w.book.a.For(t).Status().Endpoints {
		if ep.Egress.RateBPS > 0 {
			limited++
		}
	}
	if have := ifbs(w.e); len(have) != limited {
		t.Errorf("%s %d endpoints are limited in what they send, and there are the IFBs %v", told, limited, have)
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		jumps := map[string]int{}
		for line := range strings.Lines(w.e.Output(family + "-save")) {
			if strings.HasPrefix(line, "-A ") && !strings.HasPrefix(line, "-A NG") && strings.Contains(line, "-j NG-") {
				jumps[line]++
			}
		}
		for line, n := range jumps {
			if n != 1 {
				t.Errorf("%s there are %d of %s %s", told, n, family, line)
			}
		}
		if len(jumps) < 3 {
			t.Errorf("%s of %s there are only %v", told, family, jumps)
		}
	}
	if n := strings.Count(w.e.Output("nft", "list", "tables"), "bridge netguard"); n != 1 {
		t.Errorf("%s there are %d tables of the guard", told, n)
	}
}

// compare has an agent that nobody disturbs make everything anew.
func (w *turmoil) compare(t *testing.T, told string) {
	t.Helper()
	have := held(w.e)
	if res := w.book.a.For(t).CLI("cleanup"); !res.OK() {
		t.Fatalf("%s cleanup: %s", told, res)
	}
	w.book.a.Process().Wait()
	w.book.a.Start()
	w.book.await(t, told+" all is in force after a clean start", w.settled)
	if d := cmp.Diff(held(w.e), have); d != "" {
		t.Errorf("%s the kernel held something else than what an undisturbed agent makes of it:\n%s", told, d)
	}
	_, denied := w.allowed(w.who)
	w.rests(t, denied, told)
}
