package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// feed is an EventSource that gives what the test puts into its channel.
type feed struct {
	events chan Event

	mu     sync.Mutex
	names  [][]string
	opened int
	closed int
	change chan struct{} // after each Close
}

func newFeed() *feed { return &feed{events: make(chan Event), change: make(chan struct{}, 100)} }

func (f *feed) Subscribe(names []string) EventStream {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	f.names = append(f.names, names)
	return f
}

func (f *feed) Next(ctx context.Context) (Event, error) {
	select {
	case e := <-f.events:
		return e, nil
	case <-ctx.Done():
		return Event{}, ctx.Err()
	}
}

func (f *feed) Close() {
	f.mu.Lock()
	f.closed++
	f.mu.Unlock()
	f.change <- struct{}{}
}

func streaming(f *feed) func(*Server) { return func(s *Server) { s.Events(f) } }

var refusedFrame = Event{Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Type: EventViolation, Count: 3, Container: "shop-web-1", Network: "front",
	Kind: "arp", ClaimedIP: "172.18.0.1", What: "a <reply> & more"}

// watch watches until stop is called, and returns when the server gives events.
func watch(t *testing.T, s *Server, names ...string) (events chan Event, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	events = make(chan Event, 100)
	go func() {
		ended <- NewClient(s.socket).Events(ctx, names, func() { close(ready) }, func(e Event) error { events <- e; return nil })
	}()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { stop() })
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	return events, stop
}

func TestEvents(t *testing.T) {
	t.Run("go_there_one_by_one", func(t *testing.T) {
		f := newFeed()
		events, stop := watch(t, start(t, always(shop), streaming(f)), "sidecar", "/shop-db-1")
		for _, want := range []Event{refusedFrame, {Type: EventLost, Count: 9}} {
			f.events <- want
			if diff := cmp.Diff(want, <-events); diff != "" { // before the next one
				t.Error(diff)
			}
		}
		if err := stop(); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
		<-f.change
		if diff := cmp.Diff([][]string{{"sidecar", "/shop-db-1"}}, f.names); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("are_one_document_a_line", func(t *testing.T) {
		f := newFeed()
		s := start(t, always(shop), streaming(f))
		conn := dial(t, s)
		fmt.Fprint(conn, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		f.events <- refusedFrame
		line, err := bufio.NewReader(response.Body).ReadString('\n')
		want := `{"time":"2026-03-01T12:00:00Z","type":"violation","count":3,"container":"shop-web-1","network":"front","kind":"arp","claimed_ip":"172.18.0.1","what":"a <reply> & more"}` + "\n"
		if err != nil || line != want || response.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("%q %v %v", line, err, response.Header)
		}
	})
	t.Run("outlive_the_time_that_questions_have", func(t *testing.T) {
		const short = 20 * time.Millisecond
		f := newFeed()
		s := start(t, always(shop), streaming(f), func(s *Server) {
			s.timeouts = timeouts{header: short, source: short, reply: short, stop: time.Second}
		})
		events, _ := watch(t, s)
		select {
		case <-f.change:
			t.Fatal("it was ended")
		case <-time.After(8 * short): // twice as long as an answer may take
		}
		f.events <- refusedFrame
		<-events
	})
	t.Run("keep_their_connection_when_many_others_come", func(t *testing.T) {
		f := newFeed()
		s := start(t, always(shop), streaming(f))
		events, _ := watch(t, s)
		for range 2 * maxConns {
			dial(t, s)
		}
		for range 3 { // those have been accepted before this is answered
			if _, err := NewClient(s.socket).Version(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		f.events <- refusedFrame
		<-events
	})
	t.Run("end_when_the_watcher_leaves", func(t *testing.T) {
		f := newFeed()
		s := start(t, always(shop), streaming(f))
		for range 3 * maxWatchers { // places are given back as well
			_, stop := watch(t, s)
			stop()
			<-f.change
		}
	})
	t.Run("end_when_the_agent_does", func(t *testing.T) {
		f := newFeed()
		s := NewServer(t.TempDir()+"/ng.sock", always(shop), "v1", slog.New(slog.DiscardHandler))
		s.Events(f)
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx) }()
		<-s.Ready()
		_, stop := watch(t, s)
		begin := time.Now()
		cancel()
		<-served
		if took := time.Since(begin); took > usual.stop {
			t.Errorf("stopping took %v", took)
		}
		<-f.change
		if err := stop(); !errors.Is(err, ErrUnreachable) && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("a_watcher_that_does_not_read_is_dropped", func(t *testing.T) {
		f := newFeed()
		s := start(t, always(shop), streaming(f), func(s *Server) { s.timeouts.reply = 50 * time.Millisecond })
		conn := dial(t, s)
		fmt.Fprint(conn, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
		large := refusedFrame
		large.What = strings.Repeat("x", 60<<10)
		for dropped := false; !dropped; {
			select {
			case f.events <- large:
			case <-f.change:
				dropped = true
			}
		}
		awaitHangUp(t, conn)
	})
	t.Run("there_are_few_watchers", func(t *testing.T) {
		f := newFeed()
		s := start(t, always(shop), streaming(f))
		for range maxWatchers {
			watch(t, s)
		}
		err := NewClient(s.socket).Events(t.Context(), nil, func() { t.Error("one more watches") }, nil)
		if err == nil || !strings.Contains(err.Error(), "end one of them") || errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
	})
	t.Run("of_a_name_that_nobody_has_there_are_none", func(t *testing.T) {
		f := newFeed()
		s := start(t, always(shop), streaming(f))
		err := NewClient(s.socket).Events(t.Context(), []string{"shop-bd-1"}, func() { t.Error("it watches") }, nil)
		if !errors.Is(err, ErrUnknownContainer) || !strings.Contains(err.Error(), "shop-db-1") || f.opened > 0 {
			t.Error(err)
		}
		if err := NewClient(s.socket).Events(t.Context(), []string{strings.Repeat("x", maxQuery)}, nil, nil); err == nil || !strings.Contains(err.Error(), "fewer") {
			t.Error(err)
		}
	})
	t.Run("an_agent_without_them_says_so", func(t *testing.T) {
		s := start(t, always(shop))
		if code, body := ask(t, s, "GET", "/v1/events"); code != 501 || body["code"] != "no_events" {
			t.Errorf("%d %v", code, body)
		}
	})
	t.Run("what_the_watcher_fails_by_ends_it", func(t *testing.T) {
		f := newFeed()
		s := start(t, always(shop), streaming(f))
		full := errors.New("no space")
		ended := make(chan error, 1)
		go func() {
			ended <- NewClient(s.socket).Events(context.Background(), nil, func() {}, func(Event) error { return full })
		}()
		f.events <- refusedFrame
		if err := <-ended; !errors.Is(err, full) {
			t.Error(err)
		}
	})
}

func TestEvents_of_a_strange_agent(t *testing.T) {
	say := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, text)
		}
	}
	const head = "HTTP/1.1 200 OK\r\n\r\n"
	for name, test := range map[string]struct {
		text        string
		unreachable bool
		want        string
	}{
		"that_hangs_up":           {"", true, "closed the connection"},
		"that_hangs_up_in_a_line": {head + `{"type": "viol`, true, "closed the connection"},
		"that_speaks_HTML":        {head + "<html>\n", false, "is it a netguard agent?"},
		"that_refuses_in_HTML":    {"HTTP/1.1 403 Forbidden\r\n\r\n<html>", false, "is it a netguard agent?"},
		"whose_line_has_no_end":   {head + strings.Repeat(" ", maxEvent+1), false, "larger than"},
		"that_is_older":           {"HTTP/1.1 404 Not Found\r\n\r\n" + `{"code": "unknown_request", "error": "the agent does not know the request"}`, false, "restart it"},
	} {
		t.Run(name, func(t *testing.T) {
			err := impostor(t, say(test.text)).Events(t.Context(), nil, func() {}, func(Event) error { return nil })
			if err == nil || errors.Is(err, ErrUnreachable) != test.unreachable || !strings.Contains(err.Error(), test.want) {
				t.Error(err)
			}
		})
	}
	t.Run("that_does_not_answer", func(t *testing.T) {
		client := impostor(t, func(c net.Conn) { io.Copy(io.Discard, c) })
		client.http.Timeout = 20 * time.Millisecond
		err := client.Events(t.Context(), nil, func() {}, nil)
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "in time") {
			t.Error(err)
		}
	})
}

func TestEvent_About(t *testing.T) {
	e := Event{Type: EventDenied, Container: "db", ID: "bb22", SharedBy: []string{"sidecar"}, From: &Peer{Container: "web"}, To: &Peer{Container: "db"}}
	for _, name := range []string{"db", "/db", "bb", "BB2", "sidecar", "web"} {
		if !e.About([]string{"x", name}) {
			t.Errorf("not about %q", name)
		}
	}
	for _, name := range []string{"", "/", "d", "bb222", "we"} {
		if e.About([]string{name}) {
			t.Errorf("about %q", name)
		}
	}
	if (Event{Container: "db"}).About([]string{"web"}) || !(Event{}).About(nil) || !(Event{Type: EventLost}).About([]string{"web"}) {
		t.Error("without peers or names")
	}
}
