package control

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// cleanupTimeout bounds a clean-up: rules, sets, and the ports of a big host.
const cleanupTimeout = time.Minute

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
