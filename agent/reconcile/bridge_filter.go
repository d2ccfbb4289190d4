package reconcile

import (
	"log/slog"
	"maps"
	"time"

	"netguard/agent/pace"
)

// bridgeFilter makes bridges hand their frames to the rules. It is part of the loop's
// goroutine.
type bridgeFilter struct {
	log   *slog.Logger
	plane PolicyPlane
	now   func() time.Time

	set     map[string]bool // the bridges as they were set last; nil if that is unknown
	unsure  bool            // one of them may have been changed
	err     error           // why policies do not count within bridges
	retry   pace.Pace       // while err is not nil
	contest contention
}

func newBridgeFilter(log *slog.Logger, plane PolicyPlane, now func() time.Time) bridgeFilter {
	return bridgeFilter{log: log, plane: plane, now: now, retry: pace.Pace{MinRetry: verifySoon, MaxRetry: PoliceEvery, Clock: now}}
}

// touched makes a bridge be checked, if it hands its frames to the rules.
func (b *bridgeFilter) touched(bridge string) { b.unsure = b.unsure || b.set[bridge] }

// next is when to set the bridges again; zero if there is no reason. dirty and inForce are
// about the rules that get the frames.
func (b *bridgeFilter) next(dirty, inForce bool) (next time.Time) {
	if b.unsure && !dirty {
		if next = b.contest.until(); next.IsZero() {
			next = b.now()
		}
	}
	if b.err != nil && inForce {
		next = pace.Soonest(next, b.retry.Next())
	}
	return next
}

func (b *bridgeFilter) due(dirty, inForce bool) bool {
	next := b.next(dirty, inForce)
	return !next.IsZero() && !b.now().Before(next)
}

// apply sets the bridges if they differ from what was set last, if one of them may have been
// changed, or if again is set. began says that a bridge may have begun to hand over its frames.
// news says that the error changed.
func (b *bridgeFilter) apply(wish map[string]bool, again bool) (began, news bool) {
	same := b.set != nil && maps.Equal(b.set, wish)
	doubted := b.unsure && !b.now().Before(b.contest.until())
	if same && !again && !doubted {
		return false, false
	}
	b.unsure = false
	off, err := b.plane.Bridges(wish)
	now := b.now()
	if len(off) == 0 {
		b.contest.calm(b.log, now)
	} else if !b.contest.drifted(b.log, "what bridges hand to iptables", now, off, nil) {
		b.log.Warn("bridges were changed by somebody else to hand nothing to iptables; restored", "bridges", off)
	}
	if news = another(b.err, err); news && err != nil {
		b.log.Error("policies do not count within bridges", "error", err)
	}
	began = !same || len(off) > 0
	if b.err = err; err != nil {
		b.set = nil
		b.retry.Failed()
		return began, news
	}
	b.set = wish
	b.retry.Done()
	return began, news
}
