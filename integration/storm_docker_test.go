package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// storming is a shop with a policy and a limit, watched through a proxy that
// spoils what Docker says.
type storming struct {
	e            *Engine
	p            *Proxy
	a            *Agent
	client       *control.Client
	db, api, web *guest
	chat         *Process // of api with db
	next         int
}

const stormMetrics = "127.0.0.1:9477"

func newStorming(t *testing.T) *storming {
	t.Helper()
	s := &storming{e: Start(t)}
	s.e.Network("net", Subnet("198.18.90.0/24"))
	s.p = s.e.Proxy()
	s.a = s.e.Agent(Policy("db.yaml", dbPolicy), AgentFlags("--docker-host", s.p.Host(), "--metrics", stormMetrics))
	s.client = control.NewClient(s.a.Socket)
	run := func(name string, options ...ContainerOption) *guest {
		return welcome(t, s.e, name, "net", []string{"tcp/80"}, append(options, Service("shop", name))...)
	}
	s.db, s.api, s.web = run("db"), run("api", Label(egressRate, "10mbit")), run("web")
	s.await(t, "all are admitted", s.well(3))
	s.chat = s.api.Inside().SpawnProbe("chat", "tcp", s.db.Addr("net", 80), "50ms", "5s")
	s.chat.AwaitLine("rtt_ms")
	s.enforced(t)
	return s
}

// well is a status that has nothing to say but that all is as it should be.
func (s *storming) well(endpoints int) func(control.Status) bool {
	return func(is control.Status) bool {
		return is.InSync && is.Docker.Connected && len(is.Findings) == 0 && len(is.Endpoints) == endpoints && AllAdmitted(is) &&
			limited(s.api.Container, "net", 0, 10e6)(is)
	}
}

// ask asks the agent; it has to answer soon, whatever Docker does.
func (s *storming) ask(t *testing.T) control.Status {
	t.Helper()
	began := time.Now()
	is, err := s.client.Status(t.Context())
	if took := time.Since(began); err != nil || took > 5*time.Second {
		t.Fatalf("status after %v: %v", took, err)
	}
	return is
}

func (s *storming) await(t *testing.T, what string, wanted func(control.Status) bool) control.Status {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		is := s.ask(t)
		if wanted(is) {
			return is
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait until %s: status %+v\nasked: %v", what, is, s.p)
		}
		time.Sleep(20 * time.Millisecond) // there is no event to wait for
	}
}

// enforced checks that what is allowed passes, and nothing else.
func (s *storming) enforced(t *testing.T, more ...*knock) {
	t.Helper()
	mustKnock(t, slices.Concat(s.api.to(true, s.db, "tcp/80"), s.web.to(false, s.db, "tcp/80"), s.web.to(true, s.api, "tcp/80"),
		s.db.to(true, s.web, "tcp/80"), more))
	select {
	case <-s.chat.Ended():
		t.Fatalf("the conversation that is allowed broke: %s", s.chat.Wait())
	default:
	}
}

// opens waits until connections are open: who was closed may have told the kernel
// of the other end that nobody is there, which it believes for a second.
func opens(t *testing.T, all []*knock) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		wrong := knockAll(t, all)
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s", describe(all, wrong))
		}
	}
}

// late starts a container that netguard may not have heard of.
func (s *storming) late(t *testing.T) *guest {
	t.Helper()
	s.next++
	return welcome(t, s.e.For(t), fmt.Sprintf("late%d", s.next), "net", []string{"tcp/80"}, Service("shop", "late"))
}

// ceiling is more than an agent ever needs, in MiB: three answers of the largest
// size that it reads, which is what the decoder makes of one.
const ceiling = 640

type fault struct {
	name       string
	begin, end func(*storming)
	// says is part of a finding, "" where nothing is to be seen.
	says string
	// sees is true where the agent gets to know containers all the same.
	sees bool
	// also is what has to work meanwhile.
	also func(*testing.T, *storming)
	// soak is true for those that only make soak has time for.
	soak bool
	// repeated are those that take most of the agent's memory and sockets.
	repeated bool
}

// although gives a fault in which containers are seen all the same.
func (f fault) although() fault {
	f.sees = true
	return f
}

func (f fault) later() fault {
	f.soak = true
	return f
}

func (f fault) again() fault {
	f.repeated = true
	return f
}

func spoiled(name, says string, spoil Spoiler) fault {
	return fault{name: name, says: says,
		begin: func(s *storming) { s.p.Spoil(spoil); s.p.Cut("") },
		end:   func(s *storming) { s.p.Spoil(nil) }}
}

var faults = []fault{
	spoiled("it_answers_500", "docker does not answer", Failing).again(),
	{name: "it_hangs", says: "docker does not answer", begin: func(s *storming) { s.p.Hang(func(string) bool { return true }); s.p.Cut("") }, end: func(s *storming) { s.p.Spoil(nil) }},
	{name: "it_answers_no_more_than_pings", says: "docker ", begin: func(s *storming) { s.p.Hang(func(path string) bool { return path != "/_ping" }) }, end: func(s *storming) { s.p.Spoil(nil) }},
	spoiled("it_is_slow", "", Slow(700*time.Millisecond)),
	{name: "it_refuses_connections", says: "docker does not answer", begin: func(s *storming) { s.p.Close() }, end: func(s *storming) { s.p.Open() }},
	spoiled("lists_are_garbage", "docker cannot be read", Saying("/containers/json", "<html>\x1b[2J\x00\xff")).again(),
	spoiled("lists_are_cut_off", "docker cannot be read", Saying("/containers/json", `[{"Id":"`)).later(),
	spoiled("lists_hold_nothing_that_is_known", "docker cannot be read", Saying("/containers/json", `[{},{}]`)).later(),
	spoiled("a_list_of_containers_has_no_end", "docker cannot be read", Endless("/containers/json", `[{}`, `,{}`)).later(),
	spoiled("a_word_in_a_list_has_no_end", "docker cannot be read", Endless("/containers/json", `[{"Id":"`, "x")).again(),
	spoiled("a_network_has_no_end", "docker cannot be read", Endless("/networks/", `{"Containers":{"":{}`, `,"":{}`)).again(),
	spoiled("who_it_is_has_no_end", "", Endless("/info", `{"Name":"`, "x")).later(),
	spoiled("the_list_of_containers_is_empty", "docker cannot be read", Saying("/containers/json", "[]")),
	spoiled("the_list_of_networks_is_empty", "docker cannot be read", Saying("/networks", "[]")).again(),
	spoiled("networks_are_somebody_else's", "docker cannot be read", Saying("/networks/", `{}`)).later(),
	spoiled("it_knows_nothing_any_more", "docker does not list 3 of the endpoints", Forgetful),
	{name: "it_says_what_it_said_before", begin: func(s *storming) { s.p.Spoil(s.p.Stale()) }, end: func(s *storming) { s.p.Spoil(nil); s.p.Cut("") }},
	{name: "events_are_lost", sees: true, also: unheard, begin: func(s *storming) { s.p.Mute(true) }, end: func(s *storming) { s.p.Mute(false); s.p.Cut("") }},
	{name: "events_break_in_the_middle", sees: true, soak: true, begin: func(s *storming) { s.p.Cut(`{"status":"start","id":"`) }, end: func(*storming) {}},
	{name: "events_are_garbage", sees: true, begin: func(s *storming) { s.p.Flood([]string{"<html>\n"}) }, end: func(*storming) {}},
	spoiled("an_event_has_no_end", "docker does not answer", Endless("/events", `{"status":"`, "x")).although(),
}

// unheard makes a network and a container on it, of which no event tells.
func unheard(t *testing.T, s *storming) {
	e := s.e.For(t)
	e.Network("unheard", Subnet("198.18.94.0/24"))
	began := time.Now()
	c := e.Run("unheard", On("unheard"), Label(egressRate, "2mbit"))
	s.await(t, "it is known", limited(c, "unheard", 0, 2e6))
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it was known after %v", took)
	}
	c.Remove()
	s.await(t, "it is gone", gone(c, "unheard"))
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it was gone after %v", took)
	}
}

// TestStorm has Docker answer wrongly while containers run and start.
func TestStorm(t *testing.T) {
	t.Parallel()
	newStorming(t).faults(t, 0)
}

func TestSoakStorm(t *testing.T) {
	soaking(t)
	newStorming(t).faults(t, time.Minute)
}

// faults tries each for so long, the short ones only for 0.
func (s *storming) faults(t *testing.T, lasts time.Duration) {
	before := holdingOf(t, s.e, s.a)
	for _, f := range faults {
		if f.soak && lasts == 0 {
			continue
		}
		t.Run(f.name, func(t *testing.T) { s.fault(t, f, lasts) })
	}
	before.back(t, s.e, s.a)
	s.leaksNothing(t)
}

func (s *storming) fault(t *testing.T, f fault, lasts time.Duration) {
	f.begin(s)
	over := false
	defer func() {
		if !over {
			f.end(s)
		}
	}()
	until := time.Now().Add(lasts)
	late := s.late(t)
	if f.sees {
		began := time.Now()
		said := ""
		s.await(t, "the new one is admitted", func(is control.Status) bool {
			e, ok := Endpoint(is, late.Container, "net")
			if why := fmt.Sprintf("%t %s %s", ok, e.State, e.Reason); time.Since(began) > time.Second && why != said {
				t.Logf("after %v: %s", time.Since(began).Round(time.Millisecond), why)
				said = why
			}
			return ok && Whole(e)
		})
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it was admitted after %v", took)
		}
	}
	if f.also != nil {
		f.also(t, s)
	}
	if f.says != "" {
		is := s.await(t, "the agent says what is wrong", func(is control.Status) bool {
			return len(is.Findings) == 1 && strings.Contains(is.Findings[0], f.says)
		})
		if is.Docker.ReadAt.IsZero() || !strings.Contains(is.Findings[0], "old") && !strings.Contains(f.says, "does not list") {
			t.Errorf("it does not say how old what it knows is: %+v, %q", is.Docker, is.Findings)
		}
		if len(is.Findings[0]) > 2000 || is.Docker.Connected != !strings.Contains(f.says, "does not answer") {
			t.Errorf("connected %v, %d bytes: %q", is.Docker.Connected, len(is.Findings[0]), is.Findings[0])
		}
	}
	most := 0
	for {
		switch {
		case f.sees:
			opens(t, late.to(true, s.web, "tcp/80"))
			s.enforced(t, late.to(false, s.db, "tcp/80")...)
		case f.says == "":
			s.enforced(t, late.to(false, s.db, "tcp/80")...)
		default:
			s.enforced(t, slices.Concat(late.to(false, s.db, "tcp/80"), late.to(false, s.web, "tcp/80"), s.web.to(false, late, "tcp/80"))...)
		}
		if most = max(most, residentOf(t, s.a)); most > ceiling {
			t.Fatalf("the agent has %d MiB", most)
		}
		if is := s.ask(t); !limited(s.api.Container, "net", 0, 10e6)(is) || !limited(s.db.Container, "net", 0, 0)(is) {
			t.Fatalf("what was enforced is not: %+v", is.Endpoints)
		}
		if time.Now().After(until) {
			break
		}
	}
	f.end(s)
	over = true
	began := time.Now()
	s.await(t, "all is well", s.well(4))
	took := time.Since(began)
	t.Logf("all was well %v after it ended; at most %d MiB", took.Round(time.Millisecond), most)
	if took > 10*time.Second {
		t.Error("that took too long")
	}
	opens(t, late.to(true, s.web, "tcp/80"))
	s.enforced(t, late.to(false, s.db, "tcp/80")...)
	late.Remove()
	s.await(t, "all is as before", s.well(3))
}
