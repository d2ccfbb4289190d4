package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Watch calls changed whenever the content of the file may have changed. It also calls it once
// at the start, so that an edit between the first Load and the watch is not lost. When ctx
// ends, Watch returns ctx's error. Any other error means that the kernel refused to watch.
//
// The file and the directories above it need not exist yet. Watch notices editors that replace
// the file, and symbolic links that are swapped (as for mounted config maps). It does not call
// changed again before the last call returned.
func Watch(ctx context.Context, name string, log *slog.Logger, changed func()) error {
	name, err := filepath.Abs(name)
	if err != nil {
		return fmt.Errorf("watch configuration: %w", err)
	}
	return watch(ctx, name, func() []string { return []string{name} }, log, changed)
}

// WatchDir is Watch for the files of a directory whose names fit one of the patterns of
// path.Match.
func WatchDir(ctx context.Context, dir string, patterns []string, log *slog.Logger, changed func()) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("watch directory: %w", err)
	}
	return watch(ctx, dir, func() []string {
		names := []string{dir, filepath.Join(dir, "any")} // itself, and what is in it
		entries, _ := os.ReadDir(dir)                     // none while it is not there
		for _, e := range entries {
			if Globs(patterns).Match(e.Name()) {
				names = append(names, filepath.Join(dir, e.Name()))
			}
		}
		return names
	}, log, changed)
}

// watch watches the files that names gives. It calls names again after each change, because the
// list of files may have changed too.
func watch(ctx context.Context, what string, names func() []string, log *slog.Logger, changed func()) error {
	fsw, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w (is fs.inotify.max_user_instances used up?)", what, err)
	}
	defer fsw.Close()
	if err := aim(fsw, names); err != nil {
		return err
	}
	last := lookAll(names())
	changed()
	var settled <-chan time.Time
	var events burst
	for {
		var event fsnotify.Event
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-fsw.Events:
			if !ok {
				return fmt.Errorf("watch %s: the watch ended", what)
			}
			event = e
		case err, ok := <-fsw.Errors:
			if !ok {
				return fmt.Errorf("watch %s: the watch ended", what)
			}
			// Events were lost. lookAll below finds what changed.
			log.Warn("events of files were lost", "watched", what, "error", err)
		case <-settled:
			settled, events = nil, burst{}
			if err := aim(fsw, names); err != nil {
				return err
			}
			if now := lookAll(names()); !maps.Equal(now, last) {
				last = now
				changed()
			}
			continue
		}
		settled = time.After(events.add(event, time.Now()))
	}
}

// aim watches the directories that decide what the files contain: the file's own (or the
// nearest one above that exists), and those to which symbolic links lead. It repeats until it
// finds no new directory.
func aim(fsw *fsnotify.Watcher, names func() []string) error {
	for range 10 {
		want := map[string]bool{}
		for _, name := range names() {
			maps.Copy(want, places(name))
		}
		have := map[string]bool{}
		for _, dir := range fsw.WatchList() {
			have[dir] = true
			if !want[dir] {
				// It may be gone already, which is why it is not wanted.
				_ = fsw.Remove(dir)
			}
		}
		added := false
		for _, dir := range slices.Sorted(maps.Keys(want)) {
			if have[dir] {
				continue
			}
			added = true
			if err := fsw.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("watch %s: %w", dir, err)
			}
		}
		if !added {
			return nil
		}
	}
	return nil
}

// places gives the directories to watch for a file: its own, and that of each target of a
// symbolic link on the way.
func places(name string) map[string]bool {
	dirs := map[string]bool{}
	for range 16 {
		dirs[nearest(filepath.Dir(name))] = true
		target, err := os.Readlink(name)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(name), target)
		}
		name = target
	}
	// The directory itself may be reached through links (..data of config maps).
	if real, err := filepath.EvalSymlinks(name); err == nil {
		dirs[filepath.Dir(real)] = true
	}
	return dirs
}

func nearest(dir string) string {
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return dir
		}
		dir = up
	}
}
