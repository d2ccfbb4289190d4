package status

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestReading(t *testing.T) {
	r := newReader()
	patient, hasty := time.Minute, time.Millisecond
	gives := func(is *reading, err error) func(context.Context) (*reading, error) {
		return func(context.Context) (*reading, error) { return is, err }
	}
	first, second := &reading{at: time.Unix(1, 0)}, &reading{at: time.Unix(2, 0)}
	fails := errors.New("netlink receive: i/o timeout")

	if is, err := r.now(t.Context(), patient, gives(nil, fails)); is != nil || !errors.Is(err, fails) {
		t.Errorf("nothing was read before: %v, %v", is, err)
	}
	if is, err := r.now(t.Context(), patient, gives(first, nil)); is != first || err != nil {
		t.Errorf("it can be read: %v, %v", is, err)
	}
	is, err := r.now(t.Context(), patient, gives(nil, fails))
	if is != first || !errors.Is(err, fails) {
		t.Errorf("it cannot be read now: %v, %v", is, err)
	}
	if text := late(is, err); !strings.Contains(text, "i/o timeout") || !strings.Contains(text, first.at.Format(time.RFC3339)) {
		t.Errorf("what is told: %q", text)
	}

	// One that hangs holds nobody up, and what it reads at last is kept.
	goOn, begun := make(chan struct{}), make(chan struct{})
	hangs := func(ctx context.Context) (*reading, error) {
		close(begun)
		<-ctx.Done() // forks end with it
		<-goOn
		return second, nil
	}
	if is, err := r.now(t.Context(), hasty, hangs); is != first || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it hangs: %v, %v", is, err)
	}
	<-begun
	if is, err := r.now(t.Context(), hasty, gives(nil, fails)); is != first || errors.Is(err, fails) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another goes on: %v, %v", is, err)
	}
	close(goOn)
	if is, err := r.now(t.Context(), patient, gives(nil, fails)); is != second || !errors.Is(err, fails) {
		t.Errorf("the one that hung is over: %v, %v", is, err)
	}
}
