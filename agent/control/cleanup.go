package control

import (
	"context"
	"errors"
	"net/http"
	"time"
)

const (
	// cleanupTimeout bounds a clean-up: rules, sets, and the ports of a big host.
	cleanupTimeout = time.Minute
	// cleanupAnswerTimeout is longer. An agent that cleans up must not seem to be unreachable.
	cleanupAnswerTimeout = 90 * time.Second
)

// Cleaner removes all that is netguard's from the kernel, and makes the agent end.
type Cleaner interface {
	Cleanup(ctx context.Context) error
}

var errNoCleaner = errors.New("this agent does not clean up")

// Cleans makes the server pass clean-up requests to c. Call it before Serve.
func (s *Server) Cleans(c Cleaner) { s.cleaner = c }

func (s *Server) cleanup(r *http.Request) (any, error) {
	if s.cleaner == nil {
		return nil, errNoCleaner
	}
	// Half a clean-up helps nobody, so it goes on even if the client goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), cleanupTimeout)
	defer cancel()
	if err := s.cleaner.Cleanup(ctx); err != nil {
		return nil, err
	}
	return struct{}{}, nil
}

// Cleanup has the agent take everything of netguard's out of the kernel, and end. The error is
// ErrUnreachable, or what the agent says.
func (c *Client) Cleanup(ctx context.Context) error {
	patient := *c
	patient.http.Timeout = max(patient.http.Timeout, cleanupAnswerTimeout)
	var nothing struct{}
	return patient.ask(ctx, http.MethodPost, "/v1/cleanup", "", nil, &nothing)
}
