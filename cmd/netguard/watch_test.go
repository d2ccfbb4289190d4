package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"netguard/agent/control"
	"netguard/cmd/netguard/term"
)

// answer is what the agent says at one look.
type answer struct {
	status control.Status
	err    error
}

var errAway = fmt.Errorf("%w at /run/ng.sock: is it running?", control.ErrUnreachable)

// watch plays the answers, a second between two, and interrupts after the last.
func watch(t *testing.T, change func(*watcher), answers ...answer) (stdout, stderr string, err error) {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out, errs bytes.Buffer
	looks := 0
	w := watcher{
		output: "table", interval: time.Microsecond,
		now:    func() time.Time { return noon.Add(time.Duration(looks) * time.Second) },
		screen: term.Screen{Writer: &out}, stderr: &errs,
		ask: func(ctx context.Context) (control.Status, error) {
			if looks == len(answers) {
				interrupt()
				return control.Status{}, fmt.Errorf("ask: %w", ctx.Err())
			}
			looks++
			return answers[looks-1].status, answers[looks-1].err
		},
	}
	if change != nil {
		change(&w)
	}
	err = w.run(ctx)
	if looks < len(answers) && err == nil {
		t.Errorf("it looked %d times", looks)
	}
	return out.String(), errs.String(), err
}

// later is the healthy status after so many seconds of traffic.
func later(seconds uint64) answer {
	s := healthy()
	web, db := &s.Endpoints[0], &s.Endpoints[1]
	web.Ingress.Bytes += seconds * 6_225_000 // 49.8 Mbit/s
	web.Egress.Bytes += seconds * 125
	web.Ingress.Drops += seconds * 7
	web.Denied += seconds * 2
	db.Egress.Bytes += seconds
	return answer{status: s}
}

func terminal(height int) func(*watcher) {
	return func(w *watcher) {
		w.screen.Terminal = true
		w.screen.Size = func() (int, int) { return 100, height }
	}
}

func TestWatch(t *testing.T) {
	t.Run("appends_lines_without_a_terminal", func(t *testing.T) {
		out, _, err := watch(t, nil, later(0), later(1), later(3))
		if err != nil {
			t.Error(err)
		}
		golden(t, "watch_lines", out)
	})
	t.Run("draws_over_the_frame_before_on_a_terminal", func(t *testing.T) {
		out, _, err := watch(t, terminal(40), later(0), later(1), later(3))
		if err != nil {
			t.Error(err)
		}
		golden(t, "watch_frames", out)
	})
	t.Run("gives_the_terminal_back", func(t *testing.T) {
		for name, answers := range map[string][]answer{
			"interrupted": {later(0)},
			"failed":      {later(0), {err: errors.New("no")}},
		} {
			if out, _, _ := watch(t, terminal(40), answers...); !strings.HasPrefix(out, takeScreen) || !strings.HasSuffix(out, giveScreen) {
				t.Errorf("%s: %q", name, out)
			}
		}
		if out, _, _ := watch(t, terminal(40), answer{err: errAway}); out != "" {
			t.Errorf("nothing was drawn, but %q", out)
		}
	})
	t.Run("never_scrolls_a_small_window", func(t *testing.T) {
		out, _, _ := watch(t, terminal(5), answer{status: sick()}, answer{status: sick()})
		frames := strings.Split(out, home)[1:]
		if len(frames) != 2 {
			t.Fatalf("%d frames", len(frames))
		}
		for _, frame := range frames {
			if n := strings.Count(frame, "\n"); n > 4 || !strings.Contains(frame, "more lines") {
				t.Errorf("%d lines: %s", n, frame)
			}
		}
	})
	t.Run("goes_on_when_the_agent_restarts", func(t *testing.T) {
		out, errs, err := watch(t, nil, later(0), later(1), answer{err: errAway}, answer{err: errAway}, later(4), later(5))
		if err != nil {
			t.Error(err)
		}
		if n := strings.Count(errs, "trying again"); n != 1 || !strings.Contains(errs, "/run/ng.sock") {
			t.Errorf("told %d times: %s", n, errs)
		}
		if n := strings.Count(out, "49.8mbit"); n != 3 {
			t.Errorf("%d lines with the rate: %s", n, out)
		}
	})
	t.Run("says_on_the_terminal_that_the_agent_is_away", func(t *testing.T) {
		out, errs, _ := watch(t, terminal(40), later(0), later(1), answer{err: errAway})
		frames := strings.Split(out, home)
		last := frames[len(frames)-1]
		if !strings.Contains(last, "no answer since 12:00:02") || !strings.Contains(last, "/run/ng.sock") || strings.Contains(last, "49.8mbit") {
			t.Error(last)
		}
		if errs != "" {
			t.Error(errs)
		}
	})
	t.Run("ends_when_there_was_no_agent", func(t *testing.T) {
		for _, first := range []error{errAway, control.ErrUnknownContainer} {
			if _, _, err := watch(t, nil, answer{err: first}); !errors.Is(err, first) {
				t.Error(err)
			}
		}
	})
	t.Run("json_is_a_document_a_line", func(t *testing.T) {
		out, _, err := watch(t, func(w *watcher) { w.output = "json" }, later(0), answer{err: errAway}, later(2))
		if err != nil {
			t.Error(err)
		}
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if len(lines) != 2 {
			t.Fatalf("%d lines", len(lines))
		}
		for i, seconds := range []uint64{0, 2} {
			var got control.Status
			if err := json.Unmarshal([]byte(lines[i]), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(later(seconds).status, got); diff != "" {
				t.Error(diff)
			}
		}
	})
	t.Run("yaml_is_a_stream_of_documents", func(t *testing.T) {
		out, _, err := watch(t, func(w *watcher) { w.output = "yaml" }, later(0), later(2))
		if err != nil {
			t.Error(err)
		}
		d := yaml.NewDecoder(strings.NewReader(out))
		n := 0
		for ; ; n++ {
			var got control.Status
			if err := d.Decode(&got); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if got.Endpoints[0].Container != "shop-web-1" {
				t.Error(got)
			}
		}
		if n != 2 {
			t.Errorf("%d documents", n)
		}
	})
}

func TestFlows(t *testing.T) {
	at := func(seconds float64, change func(*control.Endpoint)) sample {
		e := control.Endpoint{ID: "a", Network: "n", Veth: "v", State: control.Admitted,
			Ingress: control.Traffic{Bytes: 1000, Drops: 10}, Egress: control.Traffic{Bytes: 1000, Drops: 10}, Denied: 5}
		change(&e)
		return sample{noon.Add(time.Duration(seconds * float64(time.Second))), control.Status{Endpoints: []control.Endpoint{e}}}
	}
	same := func(*control.Endpoint) {}
	for name, test := range map[string]struct {
		after sample
		want  map[port]flow
	}{
		"a_second": {at(1, func(e *control.Endpoint) { e.Ingress.Bytes += 125; e.Egress.Bytes += 250 }), map[port]flow{{"a", "n", "v"}: {ingress: 1000, egress: 2000}}},
		"the_time_that_passed_counts": {at(2.5, func(e *control.Endpoint) {
			e.Ingress.Bytes += 125
			e.Ingress.Drops += 5
			e.Egress.Drops += 5
			e.Denied += 5
		}),
			map[port]flow{{"a", "n", "v"}: {ingress: 400, drops: 4, denied: 2}}},
		"silence_is_zero":                  {at(1, same), map[port]flow{{"a", "n", "v"}: {}}},
		"a_counter_that_fell_says_nothing": {at(1, func(e *control.Endpoint) { e.Egress.Bytes = 3; e.Ingress.Bytes += 125 }), map[port]flow{}},
		"another_veth_counts_anew":         {at(1, func(e *control.Endpoint) { e.Veth = "w"; e.Ingress.Bytes += 125 }), map[port]flow{}},
		"no_time_is_no_rate":               {at(0, func(e *control.Endpoint) { e.Ingress.Bytes += 125 }), nil},
		"an_unmanaged_one_has_none":        {at(1, func(e *control.Endpoint) { e.State = control.Unmanaged }), map[port]flow{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, flows(at(0, same), test.after), cmp.AllowUnexported(port{}, flow{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
