package integration

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// step is one part of the scenario in which agents are killed.
type step struct {
	name     string
	before   *society // what is in force when it begins; nil: nothing is
	after    *society
	do       func(t *testing.T)
	end      func(t *testing.T)
	last     int                 // the number of the last write
	held     map[string][]string // by the kernel at the end
	settling func(control.Status) bool
	sweeps   int // so many IFBs are left at the end, if any goes
}

func (s *scene) scenario() []*step {
	one := &society{names: crashNames, deny: map[string][]string{"dot": {"ann tcp"}}, out: map[string][]string{"cid": {"ann tcp", "ann udp", "dot udp"}},
		in: map[string][]string{"ann": {"bob tcp", "bob udp", "cid tcp", "dot tcp"}}}
	two := one.copied()
	two.in = map[string][]string{"ann": {"bob tcp", "cid udp"}, "bob": {"cid udp", "ann udp"}}
	two.deny = map[string][]string{"bob": {"dot udp"}}
	nothing := func(*testing.T) {}
	limited := func(rate uint64) func(control.Status) bool {
		return func(st control.Status) bool {
			ep, _ := Endpoint(st, s.guests[2].Container, crashNet)
			return s.settled(st) && ep.Egress.RateBPS == rate && len(st.Endpoints) == len(crashNames)+1
		}
	}
	var eve *guest
	return []*step{
		{name: "start", after: one, end: nothing, settling: limited(0), do: nothing},
		{name: "policies", before: one, after: two, end: nothing, settling: limited(0), do: func(t *testing.T) { s.book.post(t, maps.Clone(two.files())) }},
		{name: "come", before: two, after: two, end: nothing, do: func(t *testing.T) {
			eve = &guest{Container: s.e.Create("eve", On(crashNet), Label(egressRate, "70mbit"), Label("netguard.ingress", "[]")), network: crashNet}
			eve.Start()
		}, settling: func(st control.Status) bool {
			ep, ok := Endpoint(st, eve.Container, crashNet)
			return s.settled(st) && ok && ep.Egress.RateBPS == 70e6
		}},
		{name: "go", before: two, after: two, end: nothing, settling: limited(0), sweeps: 2, do: func(*testing.T) { eve.Remove() }},
		{name: "limits", before: two, after: two, settling: limited(60e6), do: func(*testing.T) {
			s.book.a.WriteConfig("limits: {default: {egress: 60mbit}}\n")
		}, end: func(*testing.T) { s.book.a.WriteConfig("") }},
		{name: "no_limits", before: two, after: two, end: nothing, settling: limited(0), do: nothing},
		{name: "back", before: two, after: one, end: nothing, settling: limited(0), do: func(t *testing.T) { s.book.post(t, maps.Clone(one.files())) }},
	}
}

// comparable says that the kernel gives everything the same names in each round.
func (st *step) comparable() bool { return st.name != "come" }

// TestCrashAtWrite kills the agent before and after writes to the kernel, one a
// round, while it starts, policies and limits change, and containers come and go.
// The next agent brings the kernel to what it would have been; no allowed connection
// breaks, no denied one gets through. In every third round there is no next one, and a
// clean-up puts the kernel back to what it was before any.
func TestCrashAtWrite(t *testing.T) {
	t.Parallel()
	crashAtWrites(t, 6)
}

func TestSoakCrashAtWrite(t *testing.T) {
	soaking(t)
	t.Run("without_bridge_netfilter", func(t *testing.T) { crashAtWrites(t, 0) })
	t.Run("with_bridge_netfilter_and_legacy", func(t *testing.T) { crashAtWrites(t, 0, WithBridgeNetfilter(), WithLegacyIptables()) })
}

// crashAtWrites has so many rounds, or one for each write and side of it.
func crashAtWrites(t *testing.T, rounds int, options ...Option) {
	r := seeded(t)
	s := newScene(t, options...)
	steps := s.scenario()
	s.book.files = map[string]string{}
	clean := held(s.e)
	names := s.rehearse(t, steps)
	kinds := map[string]int{}
	for _, n := range names {
		kinds[n]++
	}
	t.Logf("%d writes: %v", len(names), kinds)
	for _, kind := range []string{"tc delete", "tc qdisc", "tc tree", "tc filter", "ifb add", "ifb alias", "ifb delete", "queue length", "ipset create", "ipset members", "ipset destroy",
		"iptables-restore", "iptables insert", "conntrack delete", "nft batch", "port settings", "FDB add", "neighbour add", "neighbour delete"} {
		if kinds[kind] == 0 {
			t.Errorf("the scenario has no write of the kind %q", kind)
		}
	}
	plans := []string{}
	for n := range names {
		plans = append(plans, fmt.Sprintf("kill:%d", n+1), fmt.Sprintf("kill-after:%d", n+1))
	}
	r.Shuffle(len(plans), func(i, j int) { plans[i], plans[j] = plans[j], plans[i] })
	if rounds > 0 {
		// One at least between the rules and the connections, of which nothing but
		// an agent that begins knows afterwards.
		plans = append([]string{"kill:conntrack delete:1"}, plans[:rounds-1]...)
	}
	killed := 0
	for i, plan := range plans {
		if s.crash(t, steps, clean, plan, i%3 == 2) {
			killed++
		}
		if t.Failed() {
			t.Fatalf("round %d: %s", i, plan)
		}
	}
	t.Logf("%d agents were killed in %d rounds", killed, len(plans))
	if killed < len(plans)*3/4 {
		t.Errorf("of %d agents only %d came to the write at which they were to be killed", len(plans), killed)
	}
}

// rehearse plays the scenario once, undisturbed, notes what the kernel holds then,
// and gives the names of all writes.
func (s *scene) rehearse(t *testing.T, steps []*step) []string {
	t.Helper()
	log := s.file("writes")
	s.agent(s.faulty, "NETGUARD_FAULT_LOG="+log)
	s.book.post(t, maps.Clone(steps[0].after.files()))
	s.book.a.Start()
	for _, st := range steps {
		st.do(t)
		s.book.await(t, st.name+" is done", st.settling)
		st.last = len(writes(t, log))
		if st.comparable() {
			s.swept(t, st)
			st.held = held(s.e)
		}
		st.end(t)
	}
	return writes(t, log)
}

// swept waits for what an agent does a moment after all else, and tells nobody of.
func (s *scene) swept(t *testing.T, st *step) {
	t.Helper()
	if st.sweeps > 0 {
		s.book.await(t, fmt.Sprintf("%s is done, and %d IFBs are left", st.name, st.sweeps), func(control.Status) bool { return len(ifbs(s.e)) == st.sweeps })
	}
}

// compare looks whether the kernel holds at a step's end what it should.
func (s *scene) compare(t *testing.T, st *step, told string) {
	t.Helper()
	if st.comparable() {
		s.swept(t, st)
		same(t, s.e, st.held, told)
	}
}

// clean has nothing in force, and the same policies as at the rehearsal posted.
func (s *scene) clean(t *testing.T, steps []*step) {
	t.Helper()
	s.agent(s.plain)
	s.book.a.Kill()
	s.book.a.WriteConfig("")
	if res := s.book.a.For(t).CLI("cleanup"); !res.OK() {
		t.Fatalf("cleanup: %s", res)
	}
	s.book.edits = 0 // the names of what is enacted are as they were
	s.book.post(t, maps.Clone(steps[0].after.files()))
}

// crash plays the scenario until the agent dies, and looks at what the next one, or a
// clean-up, makes of it. It tells whether the agent died.
func (s *scene) crash(t *testing.T, steps []*step, clean map[string][]string, plan string, cleanup bool) bool {
	t.Helper()
	s.clean(t, steps)
	same(t, s.e, clean, "before "+plan+", cleaned up")
	log := s.file(plan)
	s.agent(s.faulty, "NETGUARD_FAULT="+plan, "NETGUARD_FAULT_LOG="+log)
	ready := s.book.a.Launch()
	p := s.book.a.Process()
	died := false
	for i, st := range steps {
		begun := st.before != nil
		open, closed := s.allowed(st.after)
		if begun {
			open, closed = s.allowed(st.before, st.after)
		}
		if !begun {
			closed = nil // nothing was in force
		}
		wrong := s.watch(open, closed)
		st.do(t)
		if i == 0 {
			select {
			case <-ready:
			case <-p.Ended():
			}
		}
		died = s.awaitOrDie(t, st) || s.quietOrDie(t, st)
		told := fmt.Sprintf("%s, step %s", plan, st.name)
		if died {
			if n := len(writes(t, log)); n > 0 {
				told += " at " + writes(t, log)[n-1]
			}
			s.agent(s.plain)
			if !cleanup {
				s.book.a.Start()
				s.book.await(t, told+": the next agent has brought all in force", st.settling)
			}
		}
		for _, w := range wrong() {
			t.Errorf("%s: %s", told, w)
		}
		if !died {
			st.end(t)
			continue
		}
		if cleanup {
			t.Log(told + ", cleaned up")
			if res := s.book.a.For(t).CLI("cleanup"); !res.OK() {
				t.Fatalf("%s: cleanup: %s", told, res)
			}
			st.end(t)
			if st.name == "come" {
				steps[i+1].do(t)
			}
			same(t, s.e, clean, told+", cleaned up")
			return true
		}
		t.Log(told)
		s.compare(t, st, told)
		s.stopped(t, st, told)
		st.end(t)
		if st.name == "come" {
			steps[i+1].do(t)
		}
		return true
	}
	return false
}

// awaitOrDie waits until a step is done, or the agent dead.
func (s *scene) awaitOrDie(t *testing.T, st *step) bool {
	t.Helper()
	s.book.await(t, st.name+" is done, or the agent dead", st.settling, s.dead)
	return s.dead()
}

func (s *scene) dead() bool {
	select {
	case <-s.book.a.Process().Ended():
		return true
	default:
		return false
	}
}

// quietOrDie waits until nothing of what is denied is under way any more, or the
// agent dead.
func (s *scene) quietOrDie(t *testing.T, st *step) bool {
	t.Helper()
	_, closed := s.allowed(st.after)
	for begun := time.Now(); !s.dead(); {
		wrong := s.watch(nil, closed)
		time.Sleep(2 * talkEvery) // something would be said in this time
		w := wrong()
		if len(w) == 0 {
			return false
		}
		if time.Since(begun) > stopsWithin && !s.dead() {
			t.Fatalf("it goes on %v after its policy is in force: %v", stopsWithin, w)
		}
	}
	return true
}

// stopped looks that what is not allowed any more has stopped, though it was under
// way when its policy came, and that the rest goes on.
func (s *scene) stopped(t *testing.T, st *step, told string) {
	t.Helper()
	open, closed := s.allowed(st.after)
	settle(t, s.calls, open, nil, told)
	if st.before == st.after {
		return
	}
	time.Sleep(stopsWithin) // connections are gone over after the rules
	wrong := s.watch(open, closed)
	time.Sleep(restsFor) // nothing must come in this time
	if w := wrong(); len(w) > 0 {
		slices.Sort(w)
		t.Errorf("%s: %v after the next agent had all in force:\n%s", told, stopsWithin, strings.Join(w, "\n"))
	}
}
