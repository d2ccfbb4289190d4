package events

import (
	"context"
	"sync"
	"time"

	"netguard/agent/control"
)

// queue is how many events wait for one watcher.
const queue = 1024

// Hub gives each event to all who watch. It implements control.EventSource.
type Hub struct {
	mu       sync.Mutex
	watchers map[*Watcher]struct{}
}

// Watcher is one who watches. It implements control.EventStream.
type Watcher struct {
	hub    *Hub
	names  []string
	events chan control.Event

	mu   sync.Mutex
	lost uint64
	more chan struct{} // something was lost
}

// Publish gives an event to the watchers that it concerns. It never waits: a watcher whose
// queue is full is told later how many events it lost.
func (h *Hub) Publish(e control.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		if e.About(w.names) {
			w.put(e)
		}
	}
}

// Watched tells whether anybody watches.
func (h *Hub) Watched() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.watchers) > 0
}

// Subscribe implements control.EventSource.
func (h *Hub) Subscribe(names []string) control.EventStream {
	w := &Watcher{hub: h, names: names, events: make(chan control.Event, queue), more: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers == nil {
		h.watchers = map[*Watcher]struct{}{}
	}
	h.watchers[w] = struct{}{}
	return w
}

func (w *Watcher) put(e control.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost == 0 && e.Type != control.EventLost {
		select {
		case w.events <- e:
			return
		default:
		}
	}
	// After one event is lost, all further ones are lost too, until the watcher is told how
	// many. So events stay in order.
	if e.Type == control.EventLost {
		w.lost += e.Count
	} else {
		w.lost++
	}
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// Next implements control.EventStream.
func (w *Watcher) Next(ctx context.Context) (control.Event, error) {
	for {
		select { // waiting events come first: the loss was after them
		case e := <-w.events:
			return e, nil
		default:
		}
		if n := w.takeLost(); n > 0 {
			return control.Event{Time: time.Now().UTC(), Type: control.EventLost, Count: n}, nil
		}
		select {
		case <-ctx.Done():
			return control.Event{}, ctx.Err()
		case e := <-w.events:
			return e, nil
		case <-w.more:
		}
	}
}

func (w *Watcher) takeLost() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.lost
	w.lost = 0
	return n
}

// Close implements control.EventStream.
func (w *Watcher) Close() {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	delete(w.hub.watchers, w)
}
