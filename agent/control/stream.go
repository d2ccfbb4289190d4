package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"netguard/agent/control/httpd"
	"netguard/internal/plain"
)

// EventSource gives events as they happen.
type EventSource interface {
	// Subscribe gives the events from now on that are about the named containers.
	Subscribe(names []string) EventStream
}

// EventStream is what one watcher gets. Events that the watcher does not take in time are only
// counted.
type EventStream interface {
	// Next waits for the next event, and returns ctx's error when that ends.
	Next(ctx context.Context) (Event, error)
	Close()
}

// maxWatchers is how many may watch events at a time.
const maxWatchers = 8

var (
	errNoEvents        = errors.New("this agent tells no events")
	errTooManyWatchers = fmt.Errorf("%d others watch events already: end one of them", maxWatchers)
)

// Events makes the server stream the events of source. Call it before Serve. Without it the
// server refuses requests for events.
func (s *Server) Events(source EventSource) { s.events = source }

// stream answers with one JSON document a line, until one of the two sides ends it.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	refuse := func(err error) {
		reply(func(*http.Request) (any, error) { return nil, err }, s.timeouts.reply).ServeHTTP(w, r)
	}
	if s.events == nil {
		refuse(errNoEvents)
		return
	}
	names := r.URL.Query()["container"]
	if len(names) > 0 { // a name that nobody has would be silent for ever
		if _, err := s.status(r); err != nil {
			refuse(err)
			return
		}
	}
	select {
	case s.watching <- struct{}{}:
		defer func() { <-s.watching }()
	default:
		refuse(errTooManyWatchers)
		return
	}
	// Watchers are few and stay long, so a newer connection must not close theirs.
	httpd.Keep(r.Context())
	events := s.events.Subscribe(names)
	defer events.Close()
	at := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(plain.Writer(w))
	lines.SetEscapeHTML(false)
	send := func(write func() error) error {
		// The server's own limit is for a whole answer, not for one line.
		at.SetWriteDeadline(time.Now().Add(s.timeouts.reply))
		return errors.Join(write(), at.Flush())
	}
	err := send(func() error { w.WriteHeader(http.StatusOK); return nil })
	for err == nil {
		var e Event
		if e, err = events.Next(r.Context()); err == nil {
			err = send(func() error { return lines.Encode(e) })
		}
	}
}

// maxEvent bounds a line of the stream.
const maxEvent = 1 << 20

// Events asks for what is refused from now on, about the named containers or about all. It
// calls ready when the agent watches, then f for each event. It ends when f fails, ctx ends or
// the agent ends. The error is that of f or ctx, or ErrUnreachable, ErrUnknownContainer, or
// what the agent says.
func (c *Client) Events(ctx context.Context, names []string, ready func(), f func(Event) error) error {
	query := url.Values{"container": names}.Encode()
	if len(query) > maxQuery {
		return fmt.Errorf("watch events: the names are too long: name fewer containers, or none")
	}
	request, err := request(ctx, http.MethodGet, "/v1/events", query, nil)
	if err != nil {
		return err
	}
	// The answer has to begin in time, and has no end.
	patient := c.http
	patient.Timeout = 0
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(c.http.Timeout, cancel)
	response, err := patient.Do(request.WithContext(ctx))
	if !late.Stop() && err != nil {
		err = errors.Join(context.DeadlineExceeded, err)
	}
	if err != nil {
		return c.unreachable(request.Context(), err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(response.Body, maxEvent))
		if err != nil {
			return c.unreachable(request.Context(), err)
		}
		return c.refused(response.Status, text)
	}
	ready()
	return c.read(request.Context(), response.Body, f)
}

func (c *Client) read(ctx context.Context, body io.Reader, f func(Event) error) error {
	lines := bufio.NewReaderSize(body, maxEvent)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("read events of %s: one is larger than %d bytes: is it a netguard agent?", c.socket, maxEvent)
		case err != nil: // also io.EOF: it is the agent who ended it
			return c.unreachable(ctx, err)
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read events of %s: %w (is it a netguard agent?)", c.socket, err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
}
