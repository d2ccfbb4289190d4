package control

import (
	"context"
	"testing"
	"time"
)

type cleaning func(context.Context) error

func (f cleaning) Cleanup(ctx context.Context) error { return f(ctx) }

// TestCleanup: an agent that takes long for its clean-up is not unreachable.
func TestCleanup(t *testing.T) {
	s := start(t, always(shop), func(s *Server) {
		s.Cleans(cleaning(func(context.Context) error {
			time.Sleep(200 * time.Millisecond) // longer than the client's other questions may take
			return nil
		}))
	})
	client := NewClient(s.socket)
	client.http.Timeout = 20 * time.Millisecond
	if err := client.Cleanup(t.Context()); err != nil {
		t.Error(err)
	}
}
