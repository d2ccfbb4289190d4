package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// asked is a loop that runs what it is asked, until it has ended.
type asked struct{ ended, stopped, anew bool }

func (a *asked) Ask(_ context.Context, f func()) error {
	if a.ended {
		return errors.New("it has ended")
	}
	f()
	return nil
}

func (a *asked) Stop() { a.stopped = true }
func (a *asked) Anew() { a.anew = true }

func TestCleaner(t *testing.T) {
	made := func(t *testing.T, err error) (*asked, *cleaner, context.Context) {
		ctx, end := context.WithCancelCause(t.Context())
		loop := &asked{}
		return loop, &cleaner{loop: loop, log: slog.New(slog.DiscardHandler), end: end, clean: func(context.Context) error { return err }}, ctx
	}
	t.Run("asked_again_while_the_agent_ends_says_that_all_is_clean", func(t *testing.T) {
		loop, c, ctx := made(t, nil)
		if err := c.Cleanup(t.Context()); err != nil || !loop.stopped || !errors.Is(context.Cause(ctx), errCleaned) {
			t.Fatal(err, loop, context.Cause(ctx))
		}
		loop.ended = true
		if err := c.Cleanup(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("of_an_agent_that_ends_otherwise_says_that_nothing_was_done", func(t *testing.T) {
		loop, c, _ := made(t, nil)
		loop.ended = true
		if err := c.Cleanup(t.Context()); err == nil || !strings.Contains(err.Error(), "it has ended") {
			t.Error(err)
		}
	})
	t.Run("that_fails_leaves_the_agent_running", func(t *testing.T) {
		loop, c, ctx := made(t, errors.New("a table is locked"))
		if err := c.Cleanup(t.Context()); err == nil || loop.stopped || !loop.anew || ctx.Err() != nil {
			t.Error(err, loop, ctx.Err())
		}
	})
}
