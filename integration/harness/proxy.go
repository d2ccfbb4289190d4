package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Proxy stands between the agent and dockerd, and changes dockerd's answers as a test
// tells it. Without a spoiler everything passes unchanged.
type Proxy struct {
	e      *Engine
	socket string
	to     *http.Transport

	mu      sync.Mutex
	server  *http.Server
	spoil   Spoiler
	changed chan struct{} // closed at the next Spoil
	mute    bool
	streams map[*stream]struct{}
	events  []string          // the engine's latest events
	told    int               // how many events there were
	answers map[string]answer // the last one to each URL
	asked   map[string]int    // by path, without version and IDs
}

type answer struct {
	header http.Header
	code   int
	body   []byte
}

// Spoiler answers a request in dockerd's place, or calls pass so that dockerd answers.
// The path has no version. A request for events reaches it once, when it begins.
type Spoiler func(w http.ResponseWriter, r *http.Request, path string, pass func())

// keepEvents is how many events are kept for Flood.
const keepEvents = 4096

// Proxy starts a proxy that lives until the test is over.
func (e *Engine) Proxy() *Proxy {
	e.tb.Helper()
	p := &Proxy{e: e, socket: e.path("proxy.sock"), changed: make(chan struct{}), streams: map[*stream]struct{}{}, answers: map[string]answer{}, asked: map[string]int{}}
	p.to = &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(e.Host(), "unix://"))
	}}
	p.Open()
	e.tb.Cleanup(p.Close)
	return p
}

// Host returns the proxy's address for Docker clients.
func (p *Proxy) Host() string { return "unix://" + p.socket }

// Open takes connections again after Close.
func (p *Proxy) Open() {
	p.e.tb.Helper()
	_ = os.Remove(p.socket) // there is none the first time
	l, err := net.Listen("unix", p.socket)
	p.e.must(err, "listen for the agent")
	server := &http.Server{Handler: http.HandlerFunc(p.serve)}
	p.mu.Lock()
	p.server = server
	p.mu.Unlock()
	go func() { _ = server.Serve(l) }() // until Close
}

// Close ends all connections and refuses new ones.
func (p *Proxy) Close() {
	p.mu.Lock()
	server := p.server
	p.mu.Unlock()
	_ = server.Close()
	p.to.CloseIdleConnections()
}

// Spoil lets s answer requests from now on; nil ends that.
func (p *Proxy) Spoil(s Spoiler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spoil = s
	close(p.changed)
	p.changed = make(chan struct{})
}

// Hang lets the requests wait for whose paths about returns true, until Spoil is called
// again. So dockerd seems to hang.
func (p *Proxy) Hang(about func(path string) bool) {
	p.Spoil(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := p.changed
	p.spoil = func(_ http.ResponseWriter, r *http.Request, path string, pass func()) {
		if !about(path) {
			pass()
			return
		}
		select {
		case <-changed:
			pass()
		case <-r.Context().Done():
		}
	}
}

// Mute drops the engine's events on connections that stay open, until it is called
// with false.
func (p *Proxy) Mute(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = yes
}

// Asked returns how many requests had a path with this beginning.
func (p *Proxy) Asked(prefix string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for path, times := range p.asked {
		if strings.HasPrefix(path, prefix) {
			n += times
		}
	}
	return n
}

// Watchers returns how many read events.
func (p *Proxy) Watchers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.streams)
}

// Cut breaks the streams of events, after part of a line if there was one.
func (p *Proxy) Cut(part string) {
	for s := range p.all() {
		s.write(part)
		s.end()
	}
}

// Events returns the engine's latest events, a line each.
func (p *Proxy) Events() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.events...)
}

// Told returns how many events the engine sent to its subscribers.
func (p *Proxy) Told() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told
}

// Flood sends these lines to all subscribers, as fast as they read.
func (p *Proxy) Flood(lines []string) {
	text := strings.Join(lines, "")
	var all sync.WaitGroup
	for s := range p.all() {
		all.Go(func() { s.write(text) })
	}
	all.Wait()
}

func (p *Proxy) all() map[*stream]struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[*stream]struct{}{}
	for s := range p.streams {
		all[s] = struct{}{}
	}
	return all
}

var version = regexp.MustCompile(`^/v[0-9.]+/`)

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	path := version.ReplaceAllString(r.URL.Path, "/")
	p.mu.Lock()
	p.asked[path]++
	spoil := p.spoil
	p.mu.Unlock()
	pass := func() { p.pass(w, r, path) }
	if spoil == nil {
		pass()
		return
	}
	spoil(w, r, path, pass)
}

// ask passes the request to dockerd.
func (p *Proxy) ask(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Scheme, out.URL.Host = "", "http", "docker"
	return p.to.RoundTrip(out)
}

func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, path string) {
	response, err := p.ask(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	for key, values := range response.Header {
		w.Header()[key] = values
	}
	if path == "/events" && response.StatusCode == http.StatusOK {
		p.stream(w, r, response.Body)
		return
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	p.mu.Lock()
	p.answers[r.URL.Path+"?"+r.URL.RawQuery] = answer{response.Header, response.StatusCode, body}
	p.mu.Unlock()
	w.WriteHeader(response.StatusCode)
	_, _ = w.Write(body) // the agent may be gone
}

// stream is one subscriber of events.
type stream struct {
	mu   sync.Mutex
	w    http.ResponseWriter
	over bool
	end  context.CancelFunc
}

func (s *stream) write(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || text == "" {
		return
	}
	at := http.NewResponseController(s.w)
	_ = at.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(s.w, text); errors.Join(err, at.Flush()) != nil {
		s.end()
	}
}

func (p *Proxy) stream(w http.ResponseWriter, r *http.Request, body io.Reader) {
	ctx, end := context.WithCancel(r.Context())
	defer end()
	s := &stream{w: w, end: end}
	w.WriteHeader(http.StatusOK)
	if http.NewResponseController(w).Flush() != nil {
		return
	}
	p.mu.Lock()
	p.streams[s] = struct{}{}
	p.mu.Unlock()
	go func() {
		defer end()
		lines := bufio.NewReader(body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			p.mu.Lock()
			p.told++
			p.events = append(p.events[max(0, len(p.events)-keepEvents):], line)
			mute := p.mute
			p.mu.Unlock()
			if !mute {
				s.write(line)
			}
		}
	}()
	<-ctx.Done()
	p.mu.Lock()
	delete(p.streams, s)
	p.mu.Unlock()
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	panic(http.ErrAbortHandler) // not the end of an answer, but of a connection
}

// String lists what the agent asked, for failure messages.
func (p *Proxy) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprint(p.asked)
}
