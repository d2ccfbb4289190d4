package status

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"netguard/agent/control"
)

// readWithin is how long an answer waits for the kernel. Other programs can hold the
// kernel up for much longer: one that undoes netguard's work in a loop, or one that
// removes a thousand devices.
const readWithin = 4 * time.Second

// reading is what an answer says of the kernel.
type reading struct {
	at        time.Time
	inSync    bool
	guard     control.Guard
	endpoints []control.Endpoint
	unknown   []control.UnknownPort
	findings  []string
}

// kernelReader reads the kernel for one question at a time, and keeps the last reading.
type kernelReader struct {
	busy chan struct{} // holds one while a reading goes on
	last atomic.Pointer[reading]
}

func newReader() *kernelReader { return &kernelReader{busy: make(chan struct{}, 1)} }

// now reads. Where that fails or takes longer than within, now gives the reason and the
// last reading, which is nil before the first. A reading that takes longer goes on, and
// the next question waits for its end.
func (r *kernelReader) now(ctx context.Context, within time.Duration, read func(context.Context) (*reading, error)) (*reading, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	select {
	case r.busy <- struct{}{}:
	default:
		select {
		case r.busy <- struct{}{}:
		case <-ctx.Done():
			cancel()
			return r.last.Load(), fmt.Errorf("an earlier question is still being answered: %w", ctx.Err())
		}
	}
	var got *reading
	var err error
	done := make(chan struct{})
	go func() {
		defer cancel()
		if got, err = read(ctx); err == nil {
			r.last.Store(got)
		}
		<-r.busy
		close(done)
	}()
	select {
	case <-done:
		if err == nil {
			return got, nil
		}
		return r.last.Load(), err
	case <-ctx.Done():
		return r.last.Load(), fmt.Errorf("it takes longer than %v: %w", within, ctx.Err())
	}
}

// late says that a reading is an old one, and why.
func late(r *reading, err error) string {
	return fmt.Sprintf("the kernel cannot be read at the moment: %v: what is shown of it was read at %s", err, r.at.Format(time.RFC3339))
}
