package reconcile

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"netguard/agent/docker"
)

// booted gives a host that has just booted: Docker does not answer yet, and the boot cache knows
// its network. Its kernel cannot lock ports, so the table alone closes them.
func booted(t *testing.T) *world {
	w := newWorld(t)
	w.docker.fails = errInjected
	log, path := slog.New(slog.DiscardHandler), filepath.Join(t.TempDir(), "networks.json")
	OpenBootCache(path, log).keep(docker.View{Networks: map[string]docker.Network{"front": {ID: "front", Name: "front", Driver: "bridge", Bridge: "br-front"}}}, 1)
	w.loop.BootCache, w.guard.Features.Locked = OpenBootCache(path, log), false
	return w
}

// TestBootHold: before Docker answers, ports of networks that were managed before the boot are
// closed, and stay closed.
func TestBootHold(t *testing.T) {
	t.Run("is_tried_again", func(t *testing.T) {
		w := booted(t)
		w.refuse("guard commit")
		w.run(0)
		c := w.come("front", nil)
		if w.run(10 * time.Second); !w.guard.Sends(c.port.Index) || w.loop.State().GuardErr == nil {
			t.Fatal("it is closed, though nothing was written")
		}
		w.fails = nil
		if w.run(maxFailing); w.guard.Sends(c.port.Index) || w.loop.State().GuardErr != nil {
			t.Errorf("it sends: %t; %v", w.guard.Sends(c.port.Index), w.loop.State().GuardErr)
		}
		w.settle(90 * time.Second)
		w.check()
	})
	for _, reported := range []bool{true, false} {
		name := map[bool]string{true: "is_put_back", false: "is_put_back_though_the_kernel_reports_nothing"}[reported]
		t.Run(name, func(t *testing.T) {
			w := booted(t)
			w.run(100 * time.Millisecond)
			c := w.come("front", nil)
			if w.run(10 * time.Second); w.guard.Sends(c.port.Index) {
				t.Fatal("it sends")
			}
			w.guard.Flush()
			w.damaged()
			wait := GuardEvery + time.Second
			if w.notices.guard = reported; reported {
				wait = time.Second
			}
			if w.run(wait); w.guard.Sends(c.port.Index) {
				t.Error("it sends since another program flushed the table")
			}
			w.settle(90 * time.Second)
			w.check()
		})
	}
	t.Run("nothing_is_written_where_nothing_is_held", func(t *testing.T) {
		w := newWorld(t)
		w.docker.fails = errInjected
		w.come("front", nil)
		w.notices.guard = true
		if n := w.written(func() { w.run(time.Minute) }); n > 0 {
			t.Errorf("%d writes before Docker answered", n)
		}
		w.settle(90 * time.Second)
		w.check()
	})
}
