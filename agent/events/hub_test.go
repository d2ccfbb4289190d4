package events

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"netguard/agent/control"
)

func about(name string) control.Event {
	return control.Event{Type: control.EventViolation, Count: 1, Container: name}
}

func next(t *testing.T, s control.EventStream) control.Event {
	t.Helper()
	e, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestHub(t *testing.T) {
	t.Run("gives_each_event_to_all_who_watch", func(t *testing.T) {
		h := &Hub{}
		h.Publish(about("before"))
		a, b := h.Subscribe(nil), h.Subscribe(nil)
		h.Publish(about("web"))
		if x, y := next(t, a), next(t, b); x.Container != "web" || y.Container != "web" {
			t.Errorf("%+v %+v", x, y)
		}
		a.Close()
		if !h.Watched() {
			t.Error("nobody watches")
		}
		b.Close()
		b.Close()
		if h.Watched() {
			t.Error("somebody watches")
		}
	})
	t.Run("gives_only_what_is_about_the_names", func(t *testing.T) {
		h := &Hub{}
		w := h.Subscribe([]string{"db"})
		defer w.Close()
		h.Publish(about("web"))
		h.Publish(control.Event{Container: "api", To: &control.Peer{Container: "db"}})
		if e := next(t, w); e.Container != "api" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("never_waits_and_tells_in_order_how_many_were_lost", func(t *testing.T) {
		h := &Hub{}
		w := h.Subscribe(nil)
		defer w.Close()
		const more = 500
		for i := range queue + more {
			h.Publish(about(fmt.Sprint(i)))
		}
		for i := range queue {
			if e := next(t, w); e.Container != fmt.Sprint(i) {
				t.Fatalf("%d: %+v", i, e)
			}
			if i == queue/2 { // there is room, but some were lost already
				h.Publish(about("later"))
			}
		}
		if e := next(t, w); e.Type != control.EventLost || e.Count != more+1 {
			t.Errorf("%+v", e)
		}
		h.Publish(about("after"))
		if e := next(t, w); e.Container != "after" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("what_others_lost_adds_up", func(t *testing.T) {
		h := &Hub{}
		w := h.Subscribe(nil)
		defer w.Close()
		for range 3 {
			h.Publish(control.Event{Type: control.EventLost, Count: 7})
		}
		if e := next(t, w); e.Count != 21 {
			t.Errorf("%+v", e)
		}
	})
	t.Run("waiting_ends_with_the_context", func(t *testing.T) {
		h := &Hub{}
		w := h.Subscribe(nil)
		defer w.Close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("loses_nothing_uncounted_with_many_at_once", func(t *testing.T) {
		h := &Hub{}
		w := h.Subscribe(nil)
		defer w.Close()
		const publishers, each = 4, 5000
		var g sync.WaitGroup
		for range publishers {
			g.Go(func() {
				for range each {
					h.Publish(about("x"))
				}
			})
		}
		for n := uint64(0); n < publishers*each; {
			n += next(t, w).Count
		}
		g.Wait()
	})
}
