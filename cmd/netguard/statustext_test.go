package main

import (
	"regexp"
	"strings"
	"testing"
	"unicode"

	"netguard/agent/control"
)

func TestStatusText(t *testing.T) {
	for name, test := range map[string]struct {
		status control.Status
		view   view
	}{
		"healthy":        {healthy(), view{width: 100}},
		"healthy_wide":   {healthy(), view{width: 100, wide: true}},
		"healthy_colour": {healthy(), view{width: 100, colour: true}},
		"sick":           {sick(), view{width: 100}},
		"sick_wide":      {sick(), view{width: 100, wide: true}},
		"sick_colour":    {sick(), view{width: 100, colour: true}},
		"sick_at_140":    {sick(), view{width: 140}},
		"monitored":      {monitored(), view{width: 100}},
		"empty":          {control.Status{Mode: "monitor"}, view{width: 100}},
		"nobody":         {control.Status{Mode: "enforce", InSync: true, VerifiedAt: noon, Docker: control.Docker{Version: "28.5.2", Connected: true, ReadAt: noon}}, view{width: 100}},
		"starting":       {control.Status{Mode: "enforce", Starting: true}, view{width: 100, colour: true}},
	} {
		t.Run(name, func(t *testing.T) {
			test.view.now = noon
			golden(t, name, statusText(test.status, test.view))
		})
	}
}

// monitored is a host where nothing is refused.
func monitored() control.Status {
	s := sick()
	s.Mode = control.ModeMonitor
	return s
}

func TestStatusText_promises(t *testing.T) {
	t.Run("fits_the_width", func(t *testing.T) {
		for _, width := range []int{100, 120, 200} {
			for _, s := range []control.Status{healthy(), sick(), monitored()} {
				for line := range strings.Lines(statusText(s, view{width: width, now: noon})) {
					line = strings.TrimSuffix(line, "\n")
					if columns(line) > width && !strings.Contains(line, longWord) {
						t.Errorf("%d columns instead of %d: %s", columns(line), width, line)
					}
				}
			}
		}
	})
	t.Run("lets_no_control_character_through", func(t *testing.T) {
		for _, wide := range []bool{false, true} {
			for _, r := range statusText(sick(), view{width: 100, wide: wide, now: noon}) {
				if r != '\n' && !unicode.IsPrint(r) {
					t.Errorf("%q", r)
				}
			}
		}
	})
	t.Run("colours_change_no_alignment", func(t *testing.T) {
		escape := regexp.MustCompile("\x1b\\[[0-9;]*m")
		for _, s := range []control.Status{healthy(), sick()} {
			plain := statusText(s, view{width: 100, now: noon})
			if got := escape.ReplaceAllString(statusText(s, view{width: 100, colour: true, now: noon}), ""); got != plain {
				t.Errorf("%s\ninstead of\n%s", got, plain)
			}
		}
	})
	t.Run("a_stranger_cannot_fake_a_line", func(t *testing.T) {
		for line := range strings.Lines(statusText(sick(), view{width: 100, now: noon})) {
			if strings.HasPrefix(line, "! the host: all is well") || strings.HasPrefix(line, "! shop-web-1") {
				t.Error(line)
			}
		}
	})
}

// What closes an endpoint is said, whether it is a policy or a fault.
func TestPoliciesText(t *testing.T) {
	for want, p := range map[string]control.Policies{
		"open":             {},
		"in:db out:db,all": {Ingress: []string{"db"}, Egress: []string{"db", "all"}},
		"closed: policy db in db.yaml has a fault": {Ingress: []string{"all"}, Faults: []string{"policy db in db.yaml has a fault"}},
	} {
		if got := policies(p, 100); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := policies(control.Policies{Faults: []string{"policy db in db.yaml has a fault"}}, 1); got != "closed: fault" {
		t.Errorf("in short %q", got)
	}
}
