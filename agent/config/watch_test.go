package config

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Each step is one thing that editors, mounts and operators do; the watcher must
// tell of it, and of nothing else.
func TestWatch(t *testing.T) {
	write := func(t *testing.T, path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	type step struct {
		name string
		do   func(t *testing.T, dir string)
	}
	for name, test := range map[string]struct {
		before func(t *testing.T, dir string)
		steps  []step
	}{
		"a_file": {
			before: func(t *testing.T, dir string) { write(t, dir+"/etc/n.yaml", "a") },
			steps: []step{
				{"written_in_place", func(t *testing.T, dir string) { write(t, dir+"/etc/n.yaml", "bb") }},
				{"replaced", func(t *testing.T, dir string) {
					write(t, dir+"/etc/.n.swp", "cc")
					must(t, os.Rename(dir+"/etc/.n.swp", dir+"/etc/n.yaml"))
				}},
				{"removed", func(t *testing.T, dir string) { must(t, os.Remove(dir+"/etc/n.yaml")) }},
				{"back_again", func(t *testing.T, dir string) { write(t, dir+"/etc/n.yaml", "d") }},
				{"directory_moved_away", func(t *testing.T, dir string) { must(t, os.Rename(dir+"/etc", dir+"/old")) }},
				{"directory_back_again", func(t *testing.T, dir string) { write(t, dir+"/etc/n.yaml", "e") }},
				{"directory_removed", func(t *testing.T, dir string) { must(t, os.RemoveAll(dir+"/etc")) }},
				{"and_made_anew", func(t *testing.T, dir string) { write(t, dir+"/etc/n.yaml", "f") }},
			},
		},
		"a_directory_that_comes_later": {
			before: func(t *testing.T, dir string) {},
			steps: []step{
				{"made", func(t *testing.T, dir string) { write(t, dir+"/etc/n.yaml", "a") }},
				{"written", func(t *testing.T, dir string) { write(t, dir+"/etc/n.yaml", "bb") }},
			},
		},
		"a_mounted_config_map": {
			before: func(t *testing.T, dir string) {
				write(t, dir+"/etc/..1/n.yaml", "a")
				must(t, os.Symlink("..1", dir+"/etc/..data"))
				must(t, os.Symlink("..data/n.yaml", dir+"/etc/n.yaml"))
			},
			steps: []step{
				{"swapped", func(t *testing.T, dir string) {
					write(t, dir+"/etc/..2/n.yaml", "a")
					must(t, os.Symlink("..2", dir+"/etc/..tmp"))
					must(t, os.Rename(dir+"/etc/..tmp", dir+"/etc/..data"))
					must(t, os.RemoveAll(dir+"/etc/..1"))
				}},
				{"written", func(t *testing.T, dir string) { write(t, dir+"/etc/..2/n.yaml", "bb") }},
			},
		},
		"a_link_to_elsewhere": {
			before: func(t *testing.T, dir string) {
				write(t, dir+"/srv/x.yaml", "a")
				must(t, os.Mkdir(dir+"/etc", 0o755))
				must(t, os.Symlink(dir+"/srv/x.yaml", dir+"/etc/n.yaml"))
			},
			steps: []step{
				{"target_written", func(t *testing.T, dir string) { write(t, dir+"/srv/x.yaml", "bb") }},
				{"target_replaced", func(t *testing.T, dir string) {
					write(t, dir+"/srv/y", "cc")
					must(t, os.Rename(dir+"/srv/y", dir+"/srv/x.yaml"))
				}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			test.before(t, dir)
			ctx, cancel := context.WithCancel(t.Context())
			changes, ended := make(chan struct{}, 100), make(chan error, 1)
			go func() {
				ended <- Watch(ctx, dir+"/etc/n.yaml", slog.New(slog.DiscardHandler), func() { changes <- struct{}{} })
			}()
			next := func(what string) {
				t.Helper()
				select {
				case <-changes:
				case err := <-ended:
					t.Fatalf("%s: the watch ended: %v", what, err)
				case <-time.After(5 * time.Second):
					t.Fatalf("%s: no change was told", what)
				}
			}
			next("at the start")
			for _, s := range test.steps {
				s.do(t, dir)
				next(s.name)
				// The tail of a burst may come as a change of its own.
				for quiet := false; !quiet; {
					select {
					case <-changes:
					case <-time.After(3 * settle):
						quiet = true
					}
				}
			}
			write(t, dir+"/etc/neighbour.yaml", "x")
			select {
			case <-changes:
				t.Error("a change of another file was told")
			case <-time.After(3 * settle):
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}

func TestWatchDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "policies")
	ctx, cancel := context.WithCancel(context.Background())
	calls := make(chan struct{}, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- WatchDir(ctx, dir, []string{"*.yaml"}, slog.New(slog.DiscardHandler), func() { calls <- struct{}{} })
	}()
	told := func(what string) {
		t.Helper()
		select {
		case <-calls:
		case <-time.After(10 * time.Second):
			t.Fatalf("not told that %s", what)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	told("it begins")
	must(os.MkdirAll(dir, 0o755))
	told("the directory came to be")
	must(os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("1"), 0o600))
	told("a file came to be")
	must(os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("22"), 0o600))
	told("a file changed")
	must(os.Remove(filepath.Join(dir, "a.yaml")))
	told("a file is gone")
	elsewhere := filepath.Join(t.TempDir(), "real")
	must(os.WriteFile(elsewhere, []byte("1"), 0o600))
	must(os.Symlink(elsewhere, filepath.Join(dir, "b.yaml")))
	told("a link came to be")
	must(os.WriteFile(elsewhere, []byte("22"), 0o600))
	told("what a link leads to changed")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}
