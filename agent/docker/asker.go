package docker

import (
	"context"
	"sync"
	"time"
)

const (
	// askers is how many questions of one kind the engine is asked at a time.
	askers = 4
	// askAgain is how long after a failure the next reading asks again.
	askAgain = 2 * time.Second
)

// asker asks the engine in the background, and keeps its answers.
type asker[K comparable, V any] struct {
	mu    sync.Mutex // guards known, and the answers in it
	known map[K]*answer[V]
	turns chan struct{}
}

// answer is what is known of one thing. It does not change once it is answered.
type answer[V any] struct {
	about    string // the state of the thing that was asked about
	value    V      // of the last question that had no error
	err      error
	at       time.Time
	answered bool
	done     chan struct{}       // closed with the answer
	late     map[string]struct{} // containers that were read before the answer came
}

func newAsker[K comparable, V any]() asker[K, V] {
	return asker[K, V]{known: map[K]*answer[V]{}, turns: make(chan struct{}, askers)}
}

// ask asks in the background and gives the answer to wait for. It gives nil if the answer is
// known or on its way, or if asking failed less than askAgain ago. When the answer comes, ask
// calls then with it and with the value before.
func (a *asker[K, V]) ask(ctx context.Context, key K, about string, read func(context.Context) (V, error), then func(k *answer[V], before V)) *answer[V] {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := &answer[V]{about: about, done: make(chan struct{})}
	if old := a.known[key]; old != nil {
		if old.about == about && (!old.answered || old.err == nil || time.Since(old.at) < askAgain) {
			return nil
		}
		k.value = old.value
	}
	a.known[key] = k
	go func() {
		value, err := a.turn(ctx, read)
		a.mu.Lock()
		before := k.value
		if k.err, k.at, k.answered = err, time.Now(), true; err == nil {
			k.value = value
		}
		a.mu.Unlock()
		close(k.done)
		then(k, before)
	}()
	return k
}

func (a *asker[K, V]) turn(ctx context.Context, read func(context.Context) (V, error)) (none V, err error) {
	select {
	case a.turns <- struct{}{}:
	case <-ctx.Done():
		return none, ctx.Err()
	}
	defer func() { <-a.turns }()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return read(ctx)
}

// await waits for answers, no longer than patience for all of them.
func await[V any](ctx context.Context, answers []*answer[V], patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, k := range answers {
		select {
		case <-k.done:
		case <-ctx.Done():
			return
		}
	}
}

// keep forgets all but what is in use.
func (a *asker[K, V]) keep(used func(K) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range a.known {
		if !used(key) {
			delete(a.known, key)
		}
	}
}
