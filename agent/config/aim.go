package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// aim watches the directories that decide what the files contain: the file's own (or the
// nearest one above that exists), and those to which symbolic links lead. It repeats until it
// finds no new directory.
//
// A watch belongs to a directory, not to its name. If the name has got another directory, aim makes
// the watch again.
func (w *watcher) aim() error {
	for range 10 {
		want := directories(w.names())
		have := map[string]bool{}
		for _, dir := range w.fsw.WatchList() {
			if id, ok := want[dir]; ok && id == w.at[dir] {
				have[dir] = true
				continue
			}
			// It may be gone already, which is why it is not wanted.
			_ = w.fsw.Remove(dir)
		}
		w.at = want
		added := false
		for _, dir := range slices.Sorted(maps.Keys(want)) {
			if have[dir] {
				continue
			}
			added = true
			if err := w.fsw.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("watch %s: %w", dir, err)
			}
		}
		if !added {
			return nil
		}
	}
	return nil
}

// astray tells whether a watch is gone, or is of a directory that its name no longer leads to.
func (w *watcher) astray() bool {
	watched := w.fsw.WatchList()
	for dir, id := range w.at {
		info, err := os.Stat(dir)
		if err != nil || inodeOf(info) != id || !slices.Contains(watched, dir) {
			return true
		}
	}
	return false
}

// directories gives the directories to watch for files: their own, and those of each target of a
// symbolic link on the way. Each has one name: fsnotify keeps one name for a directory.
func directories(names []string) map[string]inode {
	places := map[string]bool{}
	for _, name := range names {
		for range 16 {
			places[filepath.Dir(name)] = true
			target, err := os.Readlink(name)
			if err != nil {
				break
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(name), target)
			}
			name = target
		}
	}
	dirs, named := map[string]inode{}, map[inode]bool{}
	for _, place := range slices.Sorted(maps.Keys(places)) {
		if dir, id := nearest(place); !named[id] {
			dirs[dir], named[id] = id, true
		}
	}
	return dirs
}

func nearest(dir string) (string, inode) {
	for {
		info, err := os.Stat(dir)
		if err == nil && info.IsDir() {
			return dir, inodeOf(info)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return dir, inode{}
		}
		dir = up
	}
}
