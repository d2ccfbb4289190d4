package control

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestServer_stops(t *testing.T) {
	t.Run("with_a_request_in_its_hands", func(t *testing.T) {
		began := make(chan struct{})
		s := NewServer(filepath.Join(t.TempDir(), "ng.sock"), source(func(ctx context.Context) (Status, error) {
			close(began)
			<-ctx.Done()
			return Status{}, ctx.Err()
		}), "", slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		ended, answer := make(chan error, 1), make(chan error, 1)
		go func() { ended <- s.Serve(ctx) }()
		<-s.Ready()
		go func() {
			_, err := NewClient(s.socket).Status(context.Background())
			answer <- err
		}()
		<-began
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := <-answer; !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "stopping") {
			t.Error(err)
		}
		if _, err := os.Lstat(s.socket); !os.IsNotExist(err) {
			t.Error("the socket is left", err)
		}
	})
	t.Run("within_its_time_when_a_client_is_silent", func(t *testing.T) {
		s := NewServer(filepath.Join(t.TempDir(), "ng.sock"), always(shop), "", slog.New(slog.DiscardHandler))
		s.timeouts.stop = 20 * time.Millisecond
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx) }()
		<-s.Ready()
		conn := dial(t, s)
		// The server has accepted it when the next one is answered.
		if _, err := NewClient(s.socket).Version(ctx); err != nil {
			t.Fatal(err)
		}
		stop()
		<-ended
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the silent client is still served")
		}
	})
}
