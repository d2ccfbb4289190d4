package main

import (
	"regexp"
	"strings"
	"testing"
	"unicode"

	"netguard/agent/control"
	"netguard/cmd/netguard/term"
)

func TestStatusText(t *testing.T) {
	for name, test := range map[string]struct {
		status control.Status
		view   term.View
	}{
		"healthy":        {healthy(), term.View{Width: 100}},
		"healthy_wide":   {healthy(), term.View{Width: 100, Wide: true}},
		"healthy_colour": {healthy(), term.View{Width: 100, Colour: true}},
		"sick":           {sick(), term.View{Width: 100}},
		"sick_wide":      {sick(), term.View{Width: 100, Wide: true}},
		"sick_colour":    {sick(), term.View{Width: 100, Colour: true}},
		"sick_at_140":    {sick(), term.View{Width: 140}},
		"monitored":      {monitored(), term.View{Width: 100}},
		"empty":          {control.Status{Mode: "monitor"}, term.View{Width: 100}},
		"nobody":         {control.Status{Mode: "enforce", InSync: true, VerifiedAt: noon, Docker: control.Docker{Version: "28.5.2", Connected: true, ReadAt: noon}}, term.View{Width: 100}},
		"starting":       {control.Status{Mode: "enforce", Starting: true}, term.View{Width: 100, Colour: true}},
	} {
		t.Run(name, func(t *testing.T) {
			test.view.Now = noon
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
				for line := range strings.Lines(statusText(s, term.View{Width: width, Now: noon})) {
					line = strings.TrimSuffix(line, "\n")
					if term.Columns(line) > width && !strings.Contains(line, longWord) {
						t.Errorf("%d columns instead of %d: %s", term.Columns(line), width, line)
					}
				}
			}
		}
	})
	t.Run("lets_no_control_character_through", func(t *testing.T) {
		for _, wide := range []bool{false, true} {
			for _, r := range statusText(sick(), term.View{Width: 100, Wide: wide, Now: noon}) {
				if r != '\n' && !unicode.IsPrint(r) {
					t.Errorf("%q", r)
				}
			}
		}
	})
	t.Run("colours_change_no_alignment", func(t *testing.T) {
		escape := regexp.MustCompile("\x1b\\[[0-9;]*m")
		for _, s := range []control.Status{healthy(), sick()} {
			plain := statusText(s, term.View{Width: 100, Now: noon})
			if got := escape.ReplaceAllString(statusText(s, term.View{Width: 100, Colour: true, Now: noon}), ""); got != plain {
				t.Errorf("%s\ninstead of\n%s", got, plain)
			}
		}
	})
	t.Run("a_stranger_cannot_fake_a_line", func(t *testing.T) {
		for line := range strings.Lines(statusText(sick(), term.View{Width: 100, Now: noon})) {
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
