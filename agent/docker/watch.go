package docker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

const (
	minBackoff = 100 * time.Millisecond
	// maxBackoff is how long an engine that is there again may go unnoticed.
	maxBackoff = time.Second
	// steady is how long a stream lasts that is none of those that break at
	// once.
	steady = 5 * time.Second
)

var errSilent = errors.New("engine does not answer a ping")

// Watch collects hints from the engine's events until ctx ends, and then returns ctx's error.
// It returns no other error: if the engine is away, Watch tries again every 100 ms to a second.
// Whenever a stream begins, the hint is full. Watch calls wake when the hint grew and when a
// stream broke. wake must not block.
func (e *Engine) Watch(ctx context.Context, wake func()) error {
	e.mu.Lock()
	e.wake = wake
	e.mu.Unlock()
	wait := minBackoff
	reported := false
	for {
		began := time.Now()
		err := e.stream(ctx, wake, func() {
			e.log.Info("watching docker engine", "host", e.host)
			reported = false
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wake()
		// Only after a stream that lasted: an engine that breaks each stream at once must not
		// be asked for everything ten times a second.
		if time.Since(began) > steady {
			wait = minBackoff
		}
		pause := wait/2 + rand.N(wait/2) // so that many do not ask at once
		wait = min(2*wait, maxBackoff)
		if !reported {
			reported = true // once for each absence
			e.log.Warn("docker engine is not watched; trying again until it is", "host", e.host, "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// stream subscribes, and collects hints until the stream breaks.
func (e *Engine) stream(ctx context.Context, wake, began func()) error {
	c, err := e.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	// The engine answers before it has subscribed us. Since makes it send again what happens in
	// between.
	f := filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)), filters.Arg("type", string(events.NetworkEventType)))
	for _, a := range watched {
		f.Add("event", string(a))
	}
	now := time.Now()
	late := time.AfterFunc(callTimeout, func() { cancel(errSilent) })
	messages, errs := c.Events(ctx, events.ListOptions{
		Since:   fmt.Sprintf("%d.%09d", now.Unix(), now.Nanosecond()),
		Filters: f,
	})
	inTime := late.Stop()
	var pinger sync.WaitGroup
	defer func() {
		cancel(nil)
		for range errs { // closed when the client's goroutine ends
		}
		pinger.Wait()
	}()
	// A failed subscription has said so by now.
	select {
	case err := <-errs:
		return e.broken(ctx, err)
	default:
	}
	if !inTime {
		return e.broken(ctx, errSilent)
	}
	began()
	e.watching.Store(true)
	defer e.watching.Store(false)
	e.note(func(h *Hint, _ View) { h.all() })
	wake()
	pinger.Go(func() { e.ping(ctx, c, cancel) })
	for {
		select {
		case m := <-messages:
			e.note(func(h *Hint, v View) {
				h.note(m, v)
				if id := connected(m, v); id != "" {
					// The engine sends the event before its list has the new addresses.
					time.AfterFunc(listedAfter, func() { e.hurry(map[string]struct{}{id: {}}) })
				}
			})
			wake()
		case err := <-errs:
			return e.broken(ctx, err)
		}
	}
}

func (e *Engine) note(add func(*Hint, View)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	add(&e.hint, e.view)
}

// broken explains why a stream ended.
func (e *Engine) broken(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("read docker events: %w", err)
}

// ping finds out whether the engine at the other end of a silent stream still
// lives, and cancels the stream otherwise.
func (e *Engine) ping(ctx context.Context, c *caller, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(e.pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		one, done := context.WithTimeout(ctx, e.pingTimeout)
		_, err := c.Ping(one)
		done()
		if err != nil {
			cancel(fmt.Errorf("%w within %v: %w", errSilent, e.pingTimeout, err))
			return
		}
	}
}
