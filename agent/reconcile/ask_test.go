package reconcile

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestAskAfterRun: a question to a loop that has ended does not wait.
func TestAskAfterRun(t *testing.T) {
	w := newWorld(t)
	ctx, end := context.WithCancel(t.Context())
	answered := make(chan error, 2)
	ask := func() { answered <- w.loop.Ask(context.WithoutCancel(ctx), func() {}) }
	begins := make(chan struct{})
	go func() {
		<-begins
		ask() // the loop may end while this waits
	}()
	go func() {
		err := w.loop.Ask(ctx, func() {
			close(begins)
			end()
		})
		if err != nil {
			t.Error(err)
		}
	}()
	if err := w.loop.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	go ask()
	for range 2 {
		select {
		case err := <-answered:
			if err != nil && !errors.Is(err, errEnded) {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("it waits")
		}
	}
}
