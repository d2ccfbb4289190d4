package refusals

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
	"netguard/agent/link"
	"netguard/netpolicy/guard"
)

func TestWithheld(t *testing.T) {
	s := newScene(t)
	s.alerts.withheld.log = s.alerts.log
	s.alerts.base = map[int]guard.Violations{20: {Quarantine: 5}}
	s.unadmitted = []lasting{{port: &link.Port{Index: 20, Name: "veth-x", MasterName: "br0"}}, {s.endpoints[0].Port, s.endpoints[0]}}
	// shown gives the events of a pass as text.
	shown := func() string {
		s.alerts.hub.Publish(control.Event{Container: "the end"})
		var all []string
		for {
			e, err := s.watch.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if e.Container == "the end" {
				return strings.Join(all, "; ")
			}
			all = append(all, fmt.Sprintf("%s %s%s %s %d", e.Type, e.Container, e.Veth, e.Direction, e.Count))
		}
	}
	for _, step := range []struct {
		name   string
		counts map[int]guard.Violations
		after  time.Duration
		want   string
		lines  int
	}{
		{"what_an_agent_before_told_is_not_told_again", map[int]guard.Violations{20: {Quarantine: 5}}, 0, "", 0},
		{"both_ways_are_told", map[int]guard.Violations{20: {Quarantine: 7, Withheld: 1}, 10: {Quarantine: 3}}, time.Second,
			"withheld veth-x egress 2; withheld veth-x ingress 1; withheld webveth-web egress 3", 2},
		{"events_go_on_and_lines_do_not", map[int]guard.Violations{20: {Quarantine: 9, Withheld: 1}, 10: {Quarantine: 3}}, time.Second, "withheld veth-x egress 2", 0},
		{"a_line_comes_later_again", map[int]guard.Violations{20: {Quarantine: 9, Withheld: 1}, 10: {Quarantine: 3}}, withheldEvery, "", 1},
		{"counters_that_begin_anew", map[int]guard.Violations{20: {Quarantine: 1}}, time.Second, "withheld veth-x egress 1", 0},
	} {
		t.Run(step.name, func(t *testing.T) {
			s.counts = step.counts
			lines := s.pass(step.after)
			if got := shown(); got != step.want {
				t.Errorf("told %q, want %q", got, step.want)
			}
			if len(lines) != step.lines {
				t.Errorf("logged %q", lines)
			}
		})
	}
}
