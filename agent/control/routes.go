package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"netguard/internal/plain"
)

// routes is the API: each command that needs the agent has its line here. A reply is one JSON
// document. A stream is one JSON document a line, with a deadline for each write (see
// http.ResponseController).
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/status", s.question(s.status))
	mux.Handle("GET /v1/version", s.question(s.versions))
	mux.Handle("GET /v1/policy/explain", s.question(s.explain))
	mux.Handle("POST /v1/policy/plan", http.MaxBytesHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		plan := func(r *http.Request) (any, error) { return s.plan(http.NewResponseController(w), r) }
		reply(plan, s.timeouts.reply).ServeHTTP(w, r)
	}), maxPlan))
	mux.Handle("POST /v1/cleanup", s.question(s.cleanup))
	mux.Handle("GET /v1/events", http.MaxBytesHandler(http.HandlerFunc(s.stream), maxBody))
	mux.Handle("/", s.question(unknown))
	return mux
}

// question makes the handler of a request that is all in its first line.
func (s *Server) question(answer func(*http.Request) (any, error)) http.Handler {
	return http.MaxBytesHandler(reply(answer, s.timeouts.reply), maxBody)
}

// begin waits for a free slot. limit is the time for the whole request, the waiting included.
// Call done at the end of the request.
func begin(r *http.Request, limit time.Duration, slots chan struct{}) (ctx context.Context, done func(), err error) {
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	select {
	case slots <- struct{}{}:
		return ctx, func() { <-slots; cancel() }, nil
	case <-ctx.Done():
		defer cancel()
		return nil, nil, fmt.Errorf("wait for others who ask the same: %w", ctx.Err())
	}
}

// status answers with the endpoints of the containers that are named, or all.
func (s *Server) status(r *http.Request) (any, error) {
	ctx, done, err := begin(r, s.timeouts.source, s.reading)
	if err != nil {
		return nil, err
	}
	defer done()
	status, err := s.source.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read status: %w", err)
	}
	status, err = status.Filter(r.URL.Query()["container"])
	if err != nil {
		return nil, err
	}
	status.fill()
	return status, nil
}

// Version is what runs behind the socket.
type Version struct {
	Version string `json:"version" yaml:"version"`
}

func (s *Server) versions(*http.Request) (any, error) { return Version{s.version}, nil }

func unknown(r *http.Request) (any, error) {
	return nil, fmt.Errorf("%w: %.20s %.100q", errUnknownRequest, r.Method, r.URL.Path)
}

var errUnknownRequest = errors.New("the agent does not know the request")

// fault is the answer to a request that failed. The codes are as stable as the other answers;
// the text is for people.
type fault struct {
	Code  string `json:"code"`
	Error string `json:"error"`
}

const (
	codeFailed         = "failed"
	codeStopping       = "stopping"
	codeUnknownRequest = "unknown_request"
)

// kinds are the errors that have a code of their own.
var kinds = []struct {
	is     error
	code   string
	status int
}{
	{ErrUnknownContainer, "unknown_container", http.StatusNotFound},
	{ErrUnknownParty, "unknown_party", http.StatusNotFound},
	{ErrBadService, "bad_service", http.StatusBadRequest},
	{ErrPolicyFaults, "policy_faults", http.StatusUnprocessableEntity},
	{errBadRequest, "bad_request", http.StatusBadRequest},
	{errTooLarge, "too_large", http.StatusRequestEntityTooLarge},
	{errNoCleaner, "no_cleanup", http.StatusNotImplemented},
	{errNoPolicies, "no_policies", http.StatusNotImplemented},
	{errNoEvents, "no_events", http.StatusNotImplemented},
	{errTooManyWatchers, "too_many_watchers", http.StatusServiceUnavailable},
	{errUnknownRequest, codeUnknownRequest, http.StatusNotFound},
}

// reply makes the handler of a request that one JSON document answers.
func reply(answer func(*http.Request) (any, error), patience time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := http.StatusOK
		body, err := answer(r)
		var text bytes.Buffer
		if err == nil {
			err = write(&text, body)
		}
		if err != nil {
			var f fault
			code, f = faultOf(r.Context(), err)
			text.Reset()
			write(&text, f) // two strings
		}
		// A client that does not read gets only what fits its socket.
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience))
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(text.Len()))
		w.WriteHeader(code)
		w.Write(text.Bytes())
	})
}

func write(to *bytes.Buffer, body any) error {
	e := json.NewEncoder(plain.Writer(to))
	e.SetEscapeHTML(false)
	return e.Encode(body)
}

func faultOf(ctx context.Context, err error) (int, fault) {
	for _, k := range kinds {
		if errors.Is(err, k.is) {
			return k.status, fault{k.code, err.Error()}
		}
	}
	if ctx.Err() != nil {
		return http.StatusServiceUnavailable, fault{codeStopping, "the agent is stopping"}
	}
	return http.StatusInternalServerError, fault{codeFailed, err.Error()}
}
