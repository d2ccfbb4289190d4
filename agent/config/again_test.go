package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// watched runs a watcher until the test ends. The function waits for a change, or for none.
func watched(t *testing.T, w watcher) (next func(what string), none func(what string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	changes, ended := make(chan struct{}, 100), make(chan error, 1)
	w.log = slog.New(slog.DiscardHandler)
	go func() { ended <- w.run(ctx, func() { changes <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	quiet := func() bool {
		select {
		case <-changes:
			return false
		case <-time.After(4 * settle):
			return true
		}
	}
	next = func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(10 * time.Second):
			t.Fatalf("no change was told: %s", what)
		}
		for !quiet() { // the tail of a burst may come as a change of its own
		}
	}
	return next, func(what string) {
		t.Helper()
		if !quiet() {
			t.Errorf("a change was told: %s", what)
		}
	}
}

func files(t *testing.T, texts map[string]string) {
	t.Helper()
	for name, text := range texts {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWatchLooksAgain: the kernel reports no change above the watched directories.
func TestWatchLooksAgain(t *testing.T) {
	dir := t.TempDir()
	etc := filepath.Join(dir, "etc")
	files(t, map[string]string{dir + "/rel1/n.yaml": "a", dir + "/rel2/n.yaml": "b", dir + "/rel1/policies/p.yaml": "a", dir + "/rel2/policies/p.yaml": "b"})
	if err := os.Symlink("rel1", etc); err != nil {
		t.Fatal(err)
	}
	for name, names := range map[string]func() []string{
		"a_file":      func() []string { return []string{etc + "/n.yaml"} },
		"a_directory": func() []string { return namesIn(etc+"/policies", Globs{"*.yaml"}) },
	} {
		t.Run(name, func(t *testing.T) {
			next, none := watched(t, watcher{what: name, names: names, every: 20 * time.Millisecond})
			next("at the start")
			none("by a look at what is the same")
			was, err := os.Readlink(etc)
			if err != nil {
				t.Fatal(err)
			}
			to := map[string]string{"rel1": "rel2", "rel2": "rel1"}[was]
			if err := errors.Join(os.Symlink(to, etc+".tmp"), os.Rename(etc+".tmp", etc)); err != nil {
				t.Fatal(err)
			}
			next("a link above was swapped")
			none("by a look at what is the same since")
		})
	}
}

// TestWatchOfAnotherDirectory: a directory that takes the name of a watched one is watched, without
// a look that no event caused.
func TestWatchOfAnotherDirectory(t *testing.T) {
	dir := t.TempDir()
	files(t, map[string]string{dir + "/netguard/policies/p.yaml": "a", dir + "/new/policies/p.yaml": "a"})
	next, none := watched(t, watcher{every: time.Hour, names: func() []string { return namesIn(dir+"/netguard/policies", Globs{"*.yaml"}) }})
	next("at the start")
	if err := errors.Join(os.Rename(dir+"/netguard", dir+"/old"), os.Rename(dir+"/new", dir+"/netguard")); err != nil {
		t.Fatal(err)
	}
	next("the directory above was replaced")
	files(t, map[string]string{dir + "/netguard/policies/p.yaml": "bb"})
	next("a file of the new directory was written")
	files(t, map[string]string{dir + "/old/policies/p.yaml": "cc"})
	none("a file of the old directory was written")
}

// BenchmarkLook is a look that no event caused, with as many policy files as there may be.
func BenchmarkLook(b *testing.B) {
	dir := b.TempDir()
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("policy-%d.yaml", i)), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	patterns := Globs{"*.yaml", "*.yml"}
	for b.Loop() {
		lookAll(namesIn(dir, patterns))
	}
}
