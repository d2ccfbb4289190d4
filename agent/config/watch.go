package config

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// lookEvery is how often the files are looked at though no event came. The kernel reports
	// neither a symbolic link above the watched directories that is swapped, nor what is mounted
	// over them. A look reads no file. With 1,000 policy files it takes some 4 ms.
	lookEvery = 10 * time.Second
	// lookShare limits such looks to one part in lookShare of the time, where they take long.
	// lookSeldom bounds the wait.
	lookShare  = 5000
	lookSeldom = time.Minute
)

// Watch calls changed whenever the content of the file may have changed. It also calls it once
// at the start, so that an edit between the first Load and the watch is not lost. When ctx
// ends, Watch returns ctx's error. Any other error means that the kernel refused to watch.
//
// The file and the directories above it need not exist yet. Watch notices editors that replace
// the file, and symbolic links that are swapped (as for mounted config maps). What the kernel does
// not report, Watch notices within lookSeldom. It does not call changed again before the last call
// returned.
func Watch(ctx context.Context, name string, log *slog.Logger, changed func()) error {
	name, err := filepath.Abs(name)
	if err != nil {
		return fmt.Errorf("watch configuration: %w", err)
	}
	w := watcher{what: name, names: func() []string { return []string{name} }, log: log, every: lookEvery, seldom: lookSeldom}
	return w.run(ctx, changed)
}

// WatchDir is Watch for the files of a directory whose names fit one of the patterns of
// path.Match.
func WatchDir(ctx context.Context, dir string, patterns []string, log *slog.Logger, changed func()) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("watch directory: %w", err)
	}
	w := watcher{what: dir, names: func() []string { return namesIn(dir, patterns) }, log: log, every: lookEvery, seldom: lookSeldom}
	return w.run(ctx, changed)
}

func namesIn(dir string, patterns Globs) []string {
	names := []string{dir, filepath.Join(dir, "any")} // itself, and what is in it
	entries, _ := os.ReadDir(dir)                     // none while it is not there
	for _, e := range entries {
		if patterns.Match(e.Name()) {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names
}

// watcher watches the files that names gives. It calls names again after each change, because the
// list of files may have changed too.
type watcher struct {
	what          string
	names         func() []string
	log           *slog.Logger
	every, seldom time.Duration // as lookEvery and lookSeldom

	fsw *fsnotify.Watcher
	at  map[string]inode // the watched directories
}

func (w *watcher) run(ctx context.Context, changed func()) error {
	fsw, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w (is fs.inotify.max_user_instances used up?)", w.what, err)
	}
	defer fsw.Close()
	w.fsw = fsw
	if err := w.aim(); err != nil {
		return err
	}
	last := lookAll(w.names())
	changed()
	var settled <-chan time.Time
	var events burst
	timer := time.NewTimer(w.every)
	defer timer.Stop()
	for {
		var event fsnotify.Event
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-fsw.Events:
			if !ok {
				return fmt.Errorf("watch %s: the watch ended", w.what)
			}
			event = e
		case err, ok := <-fsw.Errors:
			if !ok {
				return fmt.Errorf("watch %s: the watch ended", w.what)
			}
			// Events were lost. lookAll below finds what changed.
			w.log.Warn("events of files were lost", "watched", w.what, "error", err)
		case <-settled:
			settled, events = nil, burst{}
			if err := w.aim(); err != nil {
				return err
			}
			if now := lookAll(w.names()); !maps.Equal(now, last) {
				last = now
				changed()
			}
			continue
		case <-timer.C:
			began := time.Now()
			if settled == nil && (w.astray() || !maps.Equal(lookAll(w.names()), last)) {
				settled = time.After(settle) // somebody may still be writing
			}
			timer.Reset(max(w.every, min(lookShare*time.Since(began), w.seldom)))
			continue
		}
		settled = time.After(events.add(event, time.Now()))
	}
}
