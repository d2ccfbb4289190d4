// Package pace says when work that is repeated is due again: soon after a reason for
// it, later and later while it fails, and rarely without any reason.
package pace

import "time"

// Pace is the pace of one kind of work. One goroutine owns it. Set its exported fields
// before its first use; the zero value of each is explained beside it. A new Pace is
// due at once.
type Pace struct {
	// Gather is how long after a reason the work begins, so that the reasons of one
	// moment are answered together. Zero: at once.
	Gather time.Duration
	// Every is the longest time between two runs without any reason. Zero: the work
	// waits for a reason.
	Every time.Duration
	// MinRetry is the wait after the first failure. It doubles with each further
	// failure, up to MaxRetry. Zero: a failure is tried again without a wait.
	MinRetry, MaxRetry time.Duration
	// Share keeps work that takes long below one part in Share of the time: after a reason,
	// the work waits Share times the length of its last run. Zero: no such bound.
	Share int
	// Clock tells the time. Nil: time.Now.
	Clock func() time.Time

	started bool
	at      time.Time // when the work is due; zero: when there is a reason
	held    time.Time // no reason makes it due before
	began   time.Time // the run that goes on
	took    time.Duration
	rest    time.Time     // the end of Every
	retry   time.Duration // the last wait after a failure; zero after a success
}

func (p *Pace) now() time.Time {
	if p.Clock != nil {
		return p.Clock()
	}
	return time.Now()
}

// Wake gives a reason for the work: it is due after Gather.
func (p *Pace) Wake() { p.By(p.now().Add(max(p.Gather, time.Duration(p.Share)*p.took))) }

// By makes the work due at a time, unless it is due sooner. After a failure, or after Hold, it
// does not make the work due before their wait is over.
func (p *Pace) By(at time.Time) {
	if !p.started {
		return // it is due at once
	}
	if at.Before(p.held) {
		at = p.held
	}
	if p.at.IsZero() || at.Before(p.at) {
		p.at = at
	}
}

// Now makes the work due at once, whatever it waits for.
func (p *Pace) Now() { p.started, p.held, p.retry = false, time.Time{}, 0 }

// Hold puts the work off until a time: no reason makes it due before.
func (p *Pace) Hold(until time.Time) {
	p.held = until
	if !p.started {
		p.started, p.at = true, until
	}
	if !p.at.IsZero() && p.at.Before(until) {
		p.at = until
	}
}

// Due tells whether the work is due.
func (p *Pace) Due() bool { return !p.started || !p.at.IsZero() && !p.now().Before(p.at) }

// Ahead makes the work due now if only Every would make it due, and within by. So its owner can
// do it together with other work.
func (p *Pace) Ahead(by time.Duration) {
	if now := p.now(); p.started && !p.at.IsZero() && p.at.Equal(p.rest) && !now.Before(p.at.Add(-by)) && now.Before(p.at) {
		p.at = now
	}
}

// Begin notes that a run begins: Share counts from here. Reasons that come during the
// run count for the next one.
func (p *Pace) Begin() {
	p.started, p.began, p.at = true, p.now(), time.Time{}
}

// Done notes that the run succeeded.
func (p *Pace) Done() {
	p.end()
	p.retry, p.held = 0, time.Time{}
	if p.Every > 0 {
		p.rest = p.now().Add(p.Every)
		p.By(p.rest)
	}
}

// Failed notes that the run failed. The next try waits twice as long as the last try waited.
func (p *Pace) Failed() {
	p.end()
	p.retry = min(max(2*p.retry, p.MinRetry), max(p.MaxRetry, p.MinRetry))
	p.held = p.now().Add(p.retry)
	p.at = p.held
}

// Hasten limits the wait of work that just failed to most. A reason may make the work due
// sooner, but not before least is over.
func (p *Pace) Hasten(least, most time.Duration) {
	now := p.now()
	p.retry = min(p.retry, most)
	p.at, p.held = now.Add(p.retry), now.Add(least)
}

func (p *Pace) end() {
	if !p.started {
		p.Begin()
	}
	p.took = 0
	if !p.began.IsZero() {
		p.took = p.now().Sub(p.began)
	}
}

// Failing tells whether the last run failed.
func (p *Pace) Failing() bool { return !p.held.IsZero() && p.retry > 0 }

// Next is when the work is due; zero while it waits for a reason.
func (p *Pace) Next() time.Time {
	if !p.started {
		return p.now()
	}
	return p.at
}

// Soonest is the first of some times; zero where none is set.
func Soonest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
