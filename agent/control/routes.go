package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// routes is the API. Each verb of the command line that needs the agent has its
// line here: a reply is one JSON document, a stream (with a deadline for each
// write, see http.ResponseController) is one JSON document a line.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/status", reply(s.status, s.timeouts.reply))
	mux.Handle("GET /v1/version", reply(s.versions, s.timeouts.reply))
	mux.Handle("/", reply(unknown, s.timeouts.reply))
	return mux
}

// status answers with the endpoints of the containers that are named, or all.
func (s *Server) status(r *http.Request) (any, error) {
	ctx, cancel := context.WithTimeout(r.Context(), s.timeouts.source)
	defer cancel()
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for others who ask for the status: %w", ctx.Err())
	}
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

// fault is the answer when there is no other. The codes are as stable as the
// answers; the text is for people.
type fault struct {
	Code  string `json:"code"`
	Error string `json:"error"`
}

const (
	codeFailed           = "failed"
	codeStopping         = "stopping"
	codeUnknownContainer = "unknown_container"
	codeUnknownRequest   = "unknown_request"
)

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
		// A client that does not read is left alone with what fits its socket.
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		w.Write(text.Bytes())
	})
}

func write(to *bytes.Buffer, body any) error {
	e := json.NewEncoder(to)
	e.SetEscapeHTML(false)
	return e.Encode(body)
}

func faultOf(ctx context.Context, err error) (int, fault) {
	switch {
	case errors.Is(err, ErrUnknownContainer):
		return http.StatusNotFound, fault{codeUnknownContainer, err.Error()}
	case errors.Is(err, errUnknownRequest):
		return http.StatusNotFound, fault{codeUnknownRequest, err.Error()}
	case ctx.Err() != nil:
		return http.StatusServiceUnavailable, fault{codeStopping, "the agent is stopping"}
	}
	return http.StatusInternalServerError, fault{codeFailed, err.Error()}
}
