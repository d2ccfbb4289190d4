package refusals

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	"netguard/agent/desired"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/events"
	"netguard/agent/link"
	"netguard/netpolicy/guard"
)

// scene is alerts whose counters, clock and samples the test decides.
type scene struct {
	t         *testing.T
	alerts    *alerts
	counts    map[int]guard.Violations
	err       error
	now       time.Time
	log       bytes.Buffer
	endpoints []*desired.Endpoint
	// unadmitted are ports that are not admitted.
	unadmitted []lasting
	watch      control.EventStream
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), counts: map[int]guard.Violations{}}
	hub := &events.Hub{}
	s.alerts = &alerts{log: slog.New(slog.NewTextHandler(&s.log, nil)), hub: hub, claims: &claims{}, samples: true, base: map[int]guard.Violations{},
		count: func() (map[int]guard.Violations, error) { return s.counts, s.err }}
	for i, name := range []string{"web", "db"} {
		s.endpoints = append(s.endpoints, &desired.Endpoint{Endpoint: endpoint.Endpoint{Container: docker.Container{Name: name, ID: "id-" + name},
			Network: docker.Network{Name: "front"}, Port: &link.Port{Index: 10 + i, Name: "veth-" + name}}})
	}
	s.endpoints = append(s.endpoints, &desired.Endpoint{Endpoint: endpoint.Endpoint{Container: docker.Container{Name: "no-port"}}})
	s.watch = hub.Subscribe(nil)
	t.Cleanup(s.watch.Close)
	return s
}

// pass lets so much time pass and looks, and returns the lines of the log since.
func (s *scene) pass(d time.Duration) []string {
	s.now = s.now.Add(d)
	s.log.Reset()
	s.alerts.pass(s.now, s.endpoints, func() []lasting { return s.unadmitted })
	return strings.Split(strings.TrimSuffix(s.log.String(), "\n"), "\n")[:strings.Count(s.log.String(), "\n")]
}

// events gives those since the last call, as text.
func (s *scene) events() (all []string) {
	s.t.Helper()
	end := control.Event{Container: "the end"}
	s.alerts.hub.Publish(end)
	for {
		e, err := s.watch.Next(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		if e.Container == end.Container {
			return all
		}
		all = append(all, fmt.Sprintf("%s %s %s %d %s %s", e.Container, e.Veth, e.Kind, e.Count, e.ClaimedIP, e.ClaimedMAC))
	}
}

// forged is a frame that was refused.
func forged(port int, kind string, last byte) events.Sample {
	arp := append([]byte{0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, last}, netip.AddrFrom4([4]byte{192, 0, 2, last}).AsSlice()...)
	return events.Sample{Prefix: "netguard " + kind, PortIn: port, In: 5,
		Link: []byte{0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, last, 8, 6}, Packet: append(arp, make([]byte, 10)...)}
}

func is(t *testing.T, what string, have []string, want ...string) {
	t.Helper()
	if strings.Join(have, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

func TestAlerts(t *testing.T) {
	none := []string{}
	t.Run("come_within_a_second", func(t *testing.T) {
		s := newScene(t)
		s.pass(0)
		s.counts[10] = guard.Violations{MAC: 1} // at once after the look, with nothing that was seen
		took := time.Duration(0)
		for len(s.pass(0)) == 0 {
			next := s.alerts.next.Sub(s.now)
			s.now, took = s.now.Add(next), took+next
		}
		if took > 900*time.Millisecond { // the agent may be busy
			t.Errorf("it took %v", took)
		}
	})
	t.Run("name_container_network_kind_and_the_forged_address", func(t *testing.T) {
		s := newScene(t)
		is(t, "log", s.pass(0), none...)
		s.counts[10] = guard.Violations{ARP: 3, MAC: 1}
		for i := range byte(3) {
			s.alerts.claims.add(forged(10, "arp", 7+i))
		}
		lines := s.pass(countEvery)
		want := `level=WARN msg="container sent what it must not" container=web network=front veth=veth-web kind=arp,mac claimed_ip=192.0.2.7 claimed_mac=02:00:00:00:00:07 what="ARP reply" mac=1 arp=3 ip=0 nd=0 dhcp=0 ethertype=0 storm=0 connections=0 checksum=0 fragments=0`
		if len(lines) != 1 || !strings.HasSuffix(lines[0], want) {
			t.Errorf("%q\nwant %q", lines, want)
		}
		is(t, "events", s.events(), "web veth-web mac 1  ", "web veth-web arp 3 192.0.2.7 02:00:00:00:00:07")
	})
	t.Run("are_one_line_in_ten_seconds_and_one_event_a_look_with_exact_counts", func(t *testing.T) {
		s := newScene(t)
		lines, sum := []string{}, uint64(0)
		const looks = 1 + 2*int((alertEvery+countEvery-1)/countEvery) // the third line is due at the last
		for range looks {
			s.counts[10] = guard.Violations{IP: s.counts[10].IP + 1000}
			s.alerts.claims.add(forged(10, "ip", 9))
			lines = append(lines, s.pass(countEvery)...)
			if es := s.events(); len(es) != 1 {
				t.Fatalf("events %q", es)
			} else if _, err := fmt.Sscanf(es[0], "web veth-web ip %d", new(uint64)); err != nil {
				t.Fatal(es, err)
			}
		}
		for _, l := range lines {
			var n uint64
			if _, err := fmt.Sscanf(l[strings.Index(l, " ip="):], " ip=%d", &n); err != nil {
				t.Fatal(l, err)
			}
			sum += n
		}
		if len(lines) != 3 || sum != 1000*uint64(looks) {
			t.Errorf("%d lines about %d frames:\n%s", len(lines), sum, strings.Join(lines, "\n"))
		}
	})
	t.Run("tell_what_is_left_when_it_is_over", func(t *testing.T) {
		s := newScene(t)
		s.alerts.samples = false
		s.counts[10] = guard.Violations{ND: 1}
		s.pass(0)
		s.counts[10] = guard.Violations{ND: 5}
		is(t, "log", s.pass(countEvery), none...)
		if lines := s.pass(alertEvery); len(lines) != 1 || !strings.Contains(lines[0], " nd=4 ") {
			t.Errorf("%q", lines)
		}
		is(t, "log", s.pass(alertEvery), none...)
	})
	t.Run("wait_a_moment_for_the_frame_and_not_longer", func(t *testing.T) {
		s := newScene(t)
		s.counts[10], s.counts[11] = guard.Violations{MAC: 1}, guard.Violations{MAC: 1}
		is(t, "log", s.pass(countEvery), none...)
		is(t, "events", s.events(), none...)
		if wait := s.alerts.next.Sub(s.now); wait != claimWait {
			t.Errorf("it waits %v", wait)
		}
		s.alerts.claims.add(forged(11, "mac", 4))
		lines := s.pass(claimWait)
		if len(lines) != 2 || strings.Contains(lines[0], "claimed") || !strings.Contains(lines[1], "container=db network=front veth=veth-db kind=mac claimed_ip=192.0.2.4 ") {
			t.Errorf("%q", lines)
		}
		is(t, "events", s.events(), "web veth-web mac 1  ", "db veth-db mac 1 192.0.2.4 02:00:00:00:00:04")
	})
	t.Run("have_the_claim_of_a_frame_that_is_counted_during_a_look", func(t *testing.T) {
		s := newScene(t)
		s.counts[10] = guard.Violations{IP: 1}
		s.alerts.claims.add(forged(10, "ip", 3))
		s.alerts.claims.add(forged(10, "mac", 4))
		s.pass(0)
		s.counts[10] = guard.Violations{IP: 1, MAC: 1}
		s.pass(countEvery)
		is(t, "events", s.events(), "web veth-web ip 1 192.0.2.3 02:00:00:00:00:03", "web veth-web mac 1 192.0.2.4 02:00:00:00:00:04")
		if lines := s.pass(alertEvery); len(lines) != 1 || !strings.Contains(lines[0], " claimed_ip=192.0.2.4 ") {
			t.Errorf("%q", lines)
		}
		// It is no claim of a frame that comes much later.
		s.alerts.claims.add(forged(10, "mac", 5))
		s.pass(countEvery)
		s.pass(countEvery)
		s.counts[10] = guard.Violations{IP: 1, MAC: 2}
		s.pass(countEvery)
		is(t, "events", s.events(), "web veth-web mac 1  ")
	})
	t.Run("look_no_sooner_than_it_is_time", func(t *testing.T) {
		s := newScene(t)
		s.pass(0)
		s.err = errors.New("it was asked")
		is(t, "log", s.pass(countEvery-1), none...)
		if lines := s.pass(1); len(lines) != 1 || !strings.Contains(lines[0], "it was asked") {
			t.Errorf("%q", lines)
		}
	})
	t.Run("are_of_what_is_new_since_the_agent_began", func(t *testing.T) {
		s := newScene(t)
		s.alerts.samples, s.alerts.base = false, nil
		s.counts[10] = guard.Violations{MAC: 100, ARP: 7}
		is(t, "log", s.pass(0), none...)
		s.counts = map[int]guard.Violations{10: {MAC: 100, ARP: 9}, 11: {IP: 1}}
		if lines := s.pass(alertEvery); len(lines) != 2 || !strings.Contains(lines[0], " mac=0 arp=2 ") || !strings.Contains(lines[1], " ip=1 ") {
			t.Errorf("%q", lines)
		}
		is(t, "events", s.events(), "web veth-web arp 2  ", "db veth-db ip 1  ")
	})
	t.Run("begin_anew_with_the_counters_and_forget_ports_that_are_gone", func(t *testing.T) {
		s := newScene(t)
		s.alerts.samples = false
		s.counts[10] = guard.Violations{MAC: 100}
		s.pass(0)
		s.counts[10] = guard.Violations{MAC: 2}
		if lines := s.pass(alertEvery); len(lines) != 1 || !strings.Contains(lines[0], " mac=2 ") {
			t.Errorf("%q", lines)
		}
		is(t, "events", s.events(), "web veth-web mac 100  ", "web veth-web mac 2  ")
		s.endpoints = nil
		s.pass(countEvery)
		if len(s.alerts.ports) > 0 {
			t.Errorf("%v", s.alerts.ports)
		}
	})
	for _, c := range []struct {
		name         string
		counts       []guard.Violations // each at its look
		last         guard.Violations   // when the next line is due
		events, line []string
	}{
		{"that_have_more_than_at_the_last_line", []guard.Violations{{MAC: 1, ARP: 1}, {MAC: 1000, ARP: 1}, {MAC: 500}}, guard.Violations{MAC: 600},
			[]string{"web veth-web mac 1  ", "web veth-web arp 1  ", "web veth-web mac 999  ", "web veth-web mac 500  ", "web veth-web mac 100  "}, []string{" mac=600 arp=0 "}},
		{"of_one_of_the_two_tables", []guard.Violations{{MAC: 10, Connections: 10}, {MAC: 10, Connections: 3}, {MAC: 1, Connections: 4}}, guard.Violations{MAC: 1, Connections: 4},
			[]string{"web veth-web mac 10  ", "web veth-web connections 10  ", "web veth-web connections 3  ", "web veth-web mac 1  ", "web veth-web connections 1  "},
			[]string{" mac=1 ", " connections=4 "}},
		{"if_one_kind_has_more", []guard.Violations{{MAC: 10, ARP: 1}}, guard.Violations{MAC: 2, ARP: 20},
			[]string{"web veth-web mac 10  ", "web veth-web arp 1  ", "web veth-web mac 2  ", "web veth-web arp 20  "}, []string{"kind=arp,mac mac=2 arp=20 "}},
	} {
		t.Run("begin_anew_with_the_counters_"+c.name, func(t *testing.T) {
			s := newScene(t)
			s.alerts.samples = false
			for i, counts := range c.counts {
				s.counts[10] = counts
				s.pass(min(time.Duration(i), 1) * countEvery)
			}
			s.counts[10] = c.last
			lines := s.pass(alertEvery)
			is(t, "events", s.events(), c.events...)
			if len(lines) != 1 || slices.ContainsFunc(c.line, func(part string) bool { return !strings.Contains(lines[0], part) }) {
				t.Errorf("%q", lines)
			}
		})
	}
}

func TestClaims(t *testing.T) {
	t.Run("are_the_first_of_each_port_and_kind", func(t *testing.T) {
		c := &claims{}
		for i := range byte(5) {
			c.add(forged(10, "arp", 1+i))
			c.add(forged(10, "nonsense", 1))
			c.add(events.Sample{Prefix: "netguard-src-egress"})
		}
		all := c.take()
		if len(all) != 1 || all[claimKey{10, "arp"}].IP != netip.MustParseAddr("192.0.2.1") || c.take() != nil {
			t.Errorf("%+v", all)
		}
	})
	t.Run("are_bounded", func(t *testing.T) {
		c := &claims{}
		for port := range 2 * maxClaims {
			c.add(forged(port+1, "mac", 1))
		}
		if n := len(c.take()); n != maxClaims {
			t.Errorf("%d", n)
		}
	})
}
