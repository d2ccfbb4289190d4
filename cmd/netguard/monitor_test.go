package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netguard/agent/control"
	"netguard/agent/events"
	"netguard/cmd/netguard/term"
)

// refusals are all that can be refused, and strangers' texts.
func refusals() []control.Event {
	peer := func(name, address string) *control.Peer { return &control.Peer{Container: name, Address: address} }
	return []control.Event{
		{Time: noon, Type: control.EventViolation, Count: 12, Container: "mallory", ID: "cc", Network: "front", Veth: "veth1a2b", Kind: "arp",
			ClaimedIP: "172.18.0.1", ClaimedMAC: "02:42:ac:12:00:02", What: "ARP reply"},
		{Time: noon.Add(time.Second), Type: control.EventViolation, Count: 199_988, Container: "mallory", ID: "cc", Network: "front", Veth: "veth1a2b", Kind: "ethertype",
			ClaimedMAC: "02:42:ac:12:00:02", What: "VLAN 0 (0x8100)"},
		{Time: noon.Add(2 * time.Second), Type: control.EventViolation, Count: 1, Container: "mallory", ID: "cc", Network: "front", Kind: "mac"},
		{Time: noon.Add(3 * time.Second), Type: control.EventDenied, Count: 1, Container: "shop-db-1", ID: "bb", Network: "back", Direction: "ingress",
			From: peer("shop-web-1", "172.19.0.2"), To: peer("shop-db-1", "172.19.0.3"), Service: "tcp/5432", Policies: []string{"db", "base"}},
		{Time: noon.Add(4 * time.Second), Type: control.EventDenied, Count: 3, Container: "a-very-long-project-name-database-replica-12", Network: "a-very-long-project-name_backend",
			Direction: "egress", From: peer("a-very-long-project-name-database-replica-12", "fd00::2"), To: &control.Peer{Entity: "external", Address: "2001:db8::9"}, Service: "icmpv6/128"},
		{Time: noon.Add(5 * time.Second), Type: control.EventDenied, Count: 1, Container: "web", Network: "front", Direction: "egress", From: peer("web", "172.18.0.9"),
			To: &control.Peer{Entity: "host", Address: "172.18.0.1"}, Service: "tcp/22"},
		{Time: noon.Add(6 * time.Second), Type: control.EventLost, Count: 4711},
		{Time: noon.Add(7 * time.Second), Type: "novelty", Container: "evil\x1b[2J\u202e", Network: "net\n! fake", Count: 1},
	}
}

// play shows events and is interrupted after the last; an error among them is that
// of a watch that ended.
func play(t *testing.T, change func(*monitor), script ...any) (stdout, stderr string, err error) {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out, errs bytes.Buffer
	m := monitor{output: "table", screen: term.Screen{Writer: &out}, stderr: &errs, wait: time.Microsecond, zone: time.UTC}
	m.watch = func(ctx context.Context, ready func(), f func(control.Event) error) error {
		for len(script) > 0 {
			step := script[0]
			script = script[1:]
			switch step := step.(type) {
			case error:
				return step
			case string:
				ready()
			case control.Event:
				if err := f(step); err != nil {
					return err
				}
			}
		}
		interrupt()
		return fmt.Errorf("watch: %w", ctx.Err())
	}
	if change != nil {
		change(&m)
	}
	err = m.run(ctx)
	return out.String(), errs.String(), err
}

func shown() []any {
	script := []any{"ready"}
	for _, e := range refusals() {
		script = append(script, e)
	}
	return script
}

func TestMonitor(t *testing.T) {
	t.Run("lines", func(t *testing.T) {
		out, errs, err := play(t, nil, shown()...)
		if err != nil || errs != "netguard: watching; Ctrl-C ends it\n" {
			t.Error(err, errs)
		}
		golden(t, "monitor_lines", out)
	})
	t.Run("lines_in_monitor_mode", func(t *testing.T) {
		var script []any
		for _, e := range refusals() {
			if e.Type == control.EventViolation || e.Type == control.EventDenied {
				e.Mode = control.ModeMonitor
			}
			script = append(script, e)
		}
		out, _, _ := play(t, nil, script...)
		golden(t, "monitor_mode", out)
	})
	t.Run("lines_on_a_terminal", func(t *testing.T) {
		out, _, _ := play(t, func(m *monitor) {
			m.screen.Terminal, m.screen.Colour = true, true
			m.screen.Size = func() (int, int) { return 100, 30 }
		}, shown()...)
		golden(t, "monitor_terminal", out)
	})
	t.Run("json_is_the_contract", func(t *testing.T) {
		out, _, _ := play(t, func(m *monitor) { m.output = "json" }, shown()...)
		golden(t, "monitor_json", out)
		var got []control.Event
		for line := range strings.Lines(out) {
			var e control.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
		}
		if diff := cmp.Diff(refusals(), got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("waits_for_an_agent_that_restarts_and_says_so_once", func(t *testing.T) {
		gone := fmt.Errorf("its container is being replaced: %w", control.ErrUnknownContainer)
		e := refusals()[0]
		out, errs, err := play(t, nil, "ready", e, errAway, errAway, errAway, "ready", e, gone, "ready")
		if err != nil || strings.Count(out, "mallory") != 2 || strings.Count(out, "CONTAINER") != 1 {
			t.Error(err, out)
		}
		want := "netguard: watching; Ctrl-C ends it\nnetguard: " + errAway.Error() + "; trying again\nnetguard: watching; Ctrl-C ends it\n" +
			"netguard: " + gone.Error() + "; trying again\nnetguard: watching; Ctrl-C ends it\n"
		if errs != want {
			t.Error(cmp.Diff(want, errs))
		}
	})
	t.Run("ends_when", func(t *testing.T) {
		for name, test := range map[string]struct {
			script []any
			is     error
		}{
			"there_is_no_agent":           {[]any{errAway}, control.ErrUnreachable},
			"there_is_no_such_container":  {[]any{control.ErrUnknownContainer}, control.ErrUnknownContainer},
			"the_agent_says_other_things": {[]any{"ready", io.ErrNoProgress}, io.ErrNoProgress},
		} {
			if _, _, err := play(t, nil, test.script...); !errors.Is(err, test.is) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("says_that_it_could_not_write", func(t *testing.T) {
		for _, output := range []string{"table", "json"} {
			_, _, err := play(t, func(m *monitor) { m.output = output; m.screen.Writer = brokenWriter{} }, shown()...)
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s: %v", output, err)
			}
		}
	})
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestMonitorCommand(t *testing.T) {
	hub := &events.Hub{}
	streaming := func(s *control.Server) { s.Events(hub) }
	socket := serve(t, always(healthy()), streaming)
	nobody := filepath.Join(t.TempDir(), "nobody.sock")
	for name, test := range map[string]struct {
		args   []string
		code   int
		stderr string
	}{
		"no_agent":                       {[]string{"--socket", nobody}, 3, nobody},
		"a_wrong_output":                 {[]string{"-o", "yaml", "--socket", socket}, 2, "table, json"},
		"an_unknown_container":           {[]string{"shop-bd-1", "--socket", socket}, 1, `did you mean "shop-db-1"?`},
		"an_agent_that_tells_no_events":  {[]string{"--socket", serve(t, always(healthy()))}, 1, "tells no events"},
		"a_fault_in_the_configuration":   {[]string{"--config", file(t, "limit: 3\n")}, 2, ":1:1"},
		"an_unknown_one_with_an_escape":  {[]string{"\x1b[2J", "--socket", socket}, 1, `\x1b[2J`},
		"what_somebody_takes_for_a_flag": {[]string{"--watch"}, 2, "See `netguard monitor --help`"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := netguard(t, append([]string{"monitor"}, test.args...)...)
			if code != test.code || !strings.Contains(stderr, test.stderr) || stdout != "" || strings.Contains(stderr, "\x1b") {
				t.Errorf("%d %q %q", code, stdout, stderr)
			}
		})
	}
	t.Run("streams_until_it_is_interrupted_and_ends_well", func(t *testing.T) {
		cmd := command(t, "monitor", "sidecar", "-o", "json", "--socket", socket)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		errs, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(errs).ReadString('\n'); !strings.Contains(line, "watching") {
			t.Error(line, err)
		}
		hub.Publish(control.Event{Type: control.EventViolation, Container: "shop-db-1"})
		hub.Publish(control.Event{Type: control.EventViolation, Container: "shop-web-1", SharedBy: []string{"sidecar"}})
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || !strings.Contains(line, `"shop-web-1"`) {
			t.Error(line, err)
		}
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Run("a_shell_completes_names", func(t *testing.T) {
		if _, out, _ := netguard(t, "__complete", "monitor", "--socket", socket, "shop-web-1", ""); !strings.HasPrefix(out, "pihole\nshop-db-1\nsidecar\n:4\n") {
			t.Error(out)
		}
	})
}
