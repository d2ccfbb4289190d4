package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// TestReloadSettings: a file that is missing or empty only for a moment changes nothing.
func TestReloadSettings(t *testing.T) {
	const opens, opensAll = "admission: open\n", "admission: open\nallow_opt_out: true\n"
	const gone = "(gone)"
	put := func(t *testing.T, name, text string) {
		t.Helper()
		var err error
		if text == gone {
			if err = os.Remove(name); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		} else {
			err = os.WriteFile(name, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		first, edit, meanwhile string
		open, optOut           bool // in force
		paused, changed        bool
		findings               int
	}{
		"truncated_and_written":     {opens, "", opens, true, false, true, false, 0},
		"truncated_and_edited":      {opens, "", opensAll, true, true, true, true, 0},
		"removed_and_written_anew":  {opens, gone, opens, true, false, true, false, 0},
		"half_written_then_faulty":  {opens, "", "admission: [", true, false, true, false, 1},
		"removed":                   {opens, gone, gone, false, false, true, true, 0},
		"emptied":                   {opens, "# later\n", "# later\n", false, false, true, true, 0},
		"edited":                    {opens, opensAll, "", true, true, false, true, 0},
		"made":                      {gone, opens, "", true, false, false, true, 0},
		"empty_as_before":           {"# nothing\n", "", opens, false, false, false, false, 0},
		"missing_as_before":         {gone, gone, opens, false, false, false, false, 0},
		"a_missing_one_made_empty":  {gone, "", opens, false, false, false, false, 0},
		"an_empty_one_that_goes":    {"", gone, opens, false, false, false, false, 0},
		"faulty_and_not_taken_over": {opens, "admission: [", opensAll, true, false, false, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "netguard.yaml")
			socket := "/run/other.sock"
			o := Options{ConfigPath: path}
			o.Overrides.Socket = &socket
			put(t, path, test.first)
			cfg, err := o.load()
			if err != nil {
				t.Fatal(err)
			}
			s, paused := newSettings(&cfg), false
			s.pause = func(context.Context) { paused = true; put(t, path, test.meanwhile) }
			put(t, path, test.edit)
			changed := s.reload(t.Context(), o, slog.New(slog.DiscardHandler))
			now := s.config()
			if now.AdmissionOpen != test.open || now.AllowOptOut != test.optOut || changed != test.changed || paused != test.paused {
				t.Errorf("open: %v, opt-out: %v, changed: %v, paused: %v", now.AdmissionOpen, now.AllowOptOut, changed, paused)
			}
			if found := s.findings(); len(found) != test.findings {
				t.Errorf("findings: %q", found)
			}
		})
	}
	t.Run("an_agent_that_stops_takes_nothing_over", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "netguard.yaml")
		put(t, path, opens)
		o := Options{ConfigPath: path}
		cfg, err := o.load()
		if err != nil {
			t.Fatal(err)
		}
		s := newSettings(&cfg)
		put(t, path, "")
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if s.reload(ctx, o, slog.New(slog.DiscardHandler)) || !s.config().AdmissionOpen {
			t.Error("it took over an empty file")
		}
	})
}
