package dockerstub

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// remembered is how many events a new subscriber gets again, as in Docker.
const remembered = 256

type event struct {
	events.Message
	raw []byte
}

// subscriber gets the events from its subscription on.
type subscriber struct {
	next chan event
}

// tell sends an event to all subscribers. The caller holds the engine's mutex.
func (e *Engine) tell(kind, action, id string, attributes map[string]string) {
	now := time.Now()
	m := events.Message{
		Type: events.Type(kind), Action: events.Action(action), Actor: events.Actor{ID: id, Attributes: attributes},
		Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
	}
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err) // it is made of strings
	}
	v := event{m, append(raw, '\n')}
	e.past = append(e.past, v)
	if extra := len(e.past) - remembered; extra > 0 {
		e.past = e.past[extra:]
	}
	for s := range e.subscribers {
		s.next <- v
	}
}

// backlog is how many events may wait for a subscriber. A slower subscriber delays all.
const backlog = 1 << 16

func (e *Engine) events(w http.ResponseWriter, r *http.Request) {
	f, err := filters.FromJSON(r.URL.Query().Get("filters"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	since := nanoseconds(r.URL.Query().Get("since"))
	s := &subscriber{next: make(chan event, backlog)}
	e.mu.Lock()
	for _, v := range e.past {
		if since > 0 && v.TimeNano >= since {
			s.next <- v
		}
	}
	e.subscribers[s] = struct{}{}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subscribers, s)
	}()
	w.Header().Set("Content-Type", "application/json")
	flush := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	_ = flush.Flush()
	for {
		select {
		case v := <-s.next:
			if !f.ExactMatch("type", string(v.Type)) || !f.ExactMatch("event", string(v.Action)) {
				continue
			}
			if _, err := w.Write(v.raw); err != nil {
				return
			}
			_ = flush.Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// nanoseconds reads Docker's "seconds.nanoseconds".
func nanoseconds(text string) int64 {
	whole, part, _ := strings.Cut(text, ".")
	seconds, _ := strconv.ParseInt(whole, 10, 64)
	rest, _ := strconv.ParseInt((part + "000000000")[:9], 10, 64)
	return seconds*int64(time.Second) + rest
}
