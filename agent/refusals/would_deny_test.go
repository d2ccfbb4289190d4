package refusals

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"netguard/agent/control"
)

func TestWouldBe(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	t.Run("a_flow_has_one_line_and_an_event_that_says_the_mode", func(t *testing.T) {
		d, watch := newDenials(t)
		var log bytes.Buffer
		d.would = &wouldDeny{log: slog.New(slog.NewTextHandler(&log, nil))}
		for range 3 {
			d.add(refusedPacket("netguard-dst-ingress", 5, 5, webAddr, dbAddr, 5432))
			d.tell(noon)
		}
		if e, err := watch.Next(t.Context()); err != nil || e.Mode != control.ModeMonitor {
			t.Errorf("event %+v, %v", e, err)
		}
		want := `level=WARN msg="connection would be denied" container=db network=front from=web to=db service=tcp/5432 direction=ingress policies=only-api packets=1`
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, want) {
			t.Errorf("log:\n%s", got)
		}
		d.add(refusedPacket("netguard-dst-ingress", 5, 5, webAddr, dbAddr, 5432))
		d.tell(noon.Add(wouldEvery))
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines after %v", n, wouldEvery)
		}
	})
	t.Run("is_logged_though_nobody_watches", func(t *testing.T) {
		d, watch := newDenials(t)
		watch.Close()
		var log bytes.Buffer
		d.would = &wouldDeny{log: slog.New(slog.NewTextHandler(&log, nil))}
		d.add(refusedPacket("netguard-src-egress", 5, 2, webAddr, outside, 443))
		d.tell(noon)
		if !strings.Contains(log.String(), "from=web to="+outside.String()) {
			t.Error(log.String())
		}
	})
	t.Run("nobody's_is_not_logged", func(t *testing.T) {
		var log bytes.Buffer
		w := &wouldDeny{log: slog.New(slog.NewTextHandler(&log, nil))}
		w.tell(noon, control.Event{Service: "tcp/80", Count: 1})
		if log.Len() > 0 || len(w.told) > 0 {
			t.Error(log.String())
		}
	})
	t.Run("a_scan_is_few_lines", func(t *testing.T) {
		var log bytes.Buffer
		w := &wouldDeny{log: slog.New(slog.NewTextHandler(&log, nil))}
		for i := range 3 * maxWould {
			w.tell(noon, control.Event{Container: "c", ID: "a", Service: fmt.Sprintf("tcp/%d", i), Count: 1})
		}
		if n := strings.Count(log.String(), "\n"); n != wouldLines || len(w.told) > maxWould {
			t.Errorf("%d lines, %d flows are remembered", n, len(w.told))
		}
		w.tell(noon.Add(alertEvery), control.Event{Container: "c", ID: "b", Count: 1})
		if want := fmt.Sprintf("not_shown=%d", 3*maxWould-wouldLines); !strings.Contains(log.String(), want) {
			t.Errorf("no %s", want)
		}
		for i := range 10 * maxWould {
			w.tell(noon.Add(time.Duration(i)*alertEvery), control.Event{Container: "c", ID: "c", Service: fmt.Sprintf("tcp/%d", i), Count: 1})
		}
		if len(w.told) > maxWould {
			t.Errorf("%d flows are remembered", len(w.told))
		}
	})
}
