package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"netguard/agent/control"
)

func TestCleanupAfterAnAgentThatEnds(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	busy, broken := fmt.Errorf("an agent works: %w", control.ErrInUse), errors.New("a table is locked")
	for name, test := range map[string]struct {
		ctx      context.Context
		patience time.Duration
		then     error // after the agent has ended
		calls    int
		want     error
	}{
		"it_cleans_up":                {t.Context(), time.Minute, nil, 3, nil},
		"it_fails":                    {t.Context(), time.Minute, broken, 3, broken},
		"it_does_not_wait_for_ever":   {t.Context(), 0, nil, 1, busy},
		"it_does_not_wait_if_told_so": {ended, time.Minute, nil, 1, busy},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			err := afterAgent(test.ctx, test.patience, func() error {
				if calls++; calls < 3 {
					return busy
				}
				return test.then
			})
			if !errors.Is(err, test.want) || calls != test.calls {
				t.Errorf("%v after %d calls", err, calls)
			}
		})
	}
}
