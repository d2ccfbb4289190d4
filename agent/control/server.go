package control

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"netguard/agent/control/httpd"
)

// Source knows what is enforced. Status reads the kernel; it returns soon after
// its context ends, and may be called by several at a time.
type Source interface {
	Status(ctx context.Context) (Status, error)
}

// What one client can make the agent hold or wait for.
const (
	maxConns   = 32
	maxHeader  = 64 << 10 // the names of `netguard status $(docker ps -q)` are in it
	maxBody    = 1 << 20
	maxReading = 4 // how many status and explain requests are answered at a time
)

type timeouts struct {
	header, source, plan, reply, stop time.Duration
}

var usual = timeouts{header: 5 * time.Second, source: 10 * time.Second, plan: time.Minute, reply: 5 * time.Second, stop: 2 * time.Second}

// Server answers at the control socket.
type Server struct {
	socket   string
	source   Source
	policies PolicySource // nil without
	cleaner  Cleaner      // nil without
	events   EventSource  // nil without
	version  string
	log      *slog.Logger
	timeouts timeouts
	reading  chan struct{} // a slot each
	planning chan struct{}
	watching chan struct{}
	ready    chan struct{}
	at       *place
}

// NewServer makes a server; version is what it answers to /v1/version.
func NewServer(socket string, source Source, version string, log *slog.Logger) *Server {
	return &Server{
		socket: socket, source: source, version: version, log: log,
		timeouts: usual,
		reading:  make(chan struct{}, maxReading),
		planning: make(chan struct{}, 1),
		watching: make(chan struct{}, maxWatchers),
		ready:    make(chan struct{}),
	}
}

// Ready is closed when the server answers.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Listen takes the socket, so that an agent can know that it is the only one
// before it touches the kernel. Requests wait until Serve. The error is ErrInUse
// when another agent lives there. Close, or Serve's end, gives the socket back.
func (s *Server) Listen() error {
	if s.at != nil {
		return nil
	}
	at, err := listen(s.socket)
	if err != nil {
		return err
	}
	s.at = at
	return nil
}

// Close gives back a socket that was taken with Listen and never served.
func (s *Server) Close() error {
	if s.at == nil {
		return nil
	}
	at := s.at
	s.at = nil
	return at.release()
}

// Serve answers until ctx ends, and returns ctx's error then. The socket's file
// is gone and no request is being answered when it returns. It can be called once.
func (s *Server) Serve(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	defer func() {
		if err := s.Close(); err != nil {
			s.log.Warn("control socket is left behind", "error", err)
		}
	}()
	server := &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: s.timeouts.header,
		ReadTimeout:       2 * s.timeouts.header,
		// Once an answer is there, reply gives the client less.
		WriteTimeout:   2*s.timeouts.header + s.timeouts.source + s.timeouts.reply,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	close(s.ready) // the kernel takes connections since Listen
	err := httpd.Serve(ctx, server, s.at, httpd.Bounds{Conns: maxConns, Stop: s.timeouts.stop})
	if ctx.Err() == nil {
		return fmt.Errorf("serve control socket %s: %w", s.socket, err)
	}
	return err
}
