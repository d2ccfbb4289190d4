package reconcile

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
)

const (
	// There is contention when another program changes the same thing many times in a row:
	// fastAfter times with less than fastPace between, as a program that undoes each repair, or
	// slowAfter times with less than slowPace between, as people may do. slowPace is longer
	// than the time between two checks of what the kernel does not report.
	fastAfter = 5
	fastPace  = time.Second
	slowAfter = 20
	slowPace  = 15 * time.Second
	// Changes within oneRun count as one run: a tool may work piece by piece, while netguard
	// already repairs.
	oneRun = 100 * time.Millisecond
	// During a contention, netguard waits minRest before it repairs again. The wait doubles
	// with each repair, up to maxRest. So long may last any change that the kernel does not
	// report.
	minRest = 500 * time.Millisecond
	maxRest = 10 * time.Second
	// contentionOver is the shortest time without a change that ends a contention.
	contentionOver = 5 * time.Second
	// contentionPause is the time between two passes while any contention lasts.
	contentionPause = 50 * time.Millisecond
	// maxStreaks bounds how many changed things are remembered.
	maxStreaks = 256
)

// contention recognises that another program changes the same thing again and again, and
// slows the repair down: a host must not spend its time on two programs that undo each
// other's work. It never stops the repair. The zero value is ready.
type contention struct {
	streaks map[string]streak

	what  string    // what it is about; "" if there is no contention
	thing string    // the changed thing that was found most often
	by    []string  // the programs, if the kernel names them
	begun time.Time // of the first change
	last  time.Time // of the last change
	count int       // of changes
	wait  time.Duration
}

// streak is how often in a row, and since when, one thing was changed.
type streak struct {
	n           int
	runs, fast  int // runs of changes; those in fast succession
	first, last time.Time
	run         time.Time // when the last run was first noticed
}

// contends tells whether the streak is a contention.
func (s streak) contends() bool { return s.fast >= fastAfter || s.runs >= slowAfter }

// on tells whether there is contention.
func (f *contention) on() bool { return f.what != "" }

// until is the earliest time to check and repair again.
func (f *contention) until() time.Time {
	if !f.on() {
		return time.Time{}
	}
	return f.last.Add(f.wait)
}

// over is when the contention ends if nothing is changed until then.
func (f *contention) over() time.Time { return f.last.Add(max(2*f.wait, contentionOver)) }

// next is when the contention is a reason to check, or limit if that is sooner.
func (f *contention) next(now, limit time.Time) time.Time {
	if !f.on() {
		return limit
	}
	next := f.until()
	if !now.Before(next) {
		next = f.over()
	}
	if limit.Before(next) {
		return limit
	}
	return next
}

// drifted notes that other programs changed things, which are put back now. It logs the begin
// of a contention. It tells whether there is one: then the caller need not log the change.
func (f *contention) drifted(log *slog.Logger, what string, now time.Time, things, by []string) bool {
	for thing, s := range f.streaks {
		if now.Sub(s.last) > slowPace {
			delete(f.streaks, thing)
		}
	}
	if f.streaks == nil {
		f.streaks = map[string]streak{}
	}
	var most string
	for _, thing := range things {
		s, known := f.streaks[thing]
		if !known && len(f.streaks) >= maxStreaks {
			continue
		}
		if s.n == 0 {
			s.first = now
		}
		if now.Sub(s.last) > fastPace {
			s.fast = 0
		}
		if now.Sub(s.run) >= oneRun {
			s.runs, s.fast, s.run = s.runs+1, s.fast+1, now
		}
		s.n, s.last = s.n+1, now
		f.streaks[thing] = s
		if s.n > f.streaks[most].n || most == "" {
			most = thing
		}
	}
	if f.on() {
		f.count, f.last, f.by = f.count+1, now, by
		f.wait = min(2*f.wait, maxRest)
		return true
	}
	s := f.streaks[most]
	if !s.contends() {
		return false
	}
	f.what, f.thing, f.by, f.begun, f.last, f.count, f.wait = what, most, by, s.first, now, s.n, minRest
	log.Warn("another program changes the same thing again and again; it is put back less often from now on",
		"about", what, "changes", most, "times", s.n, "by", names(by))
	return true
}

// calm notes that a check found no change. It ends a contention after long enough without one.
func (f *contention) calm(log *slog.Logger, now time.Time) {
	if !f.on() || now.Before(f.over()) {
		return
	}
	log.Info("nobody changes it any more; what is changed is put back at once again",
		"about", f.what, "times", f.count, "for", f.last.Sub(f.begun).Round(time.Second))
	*f = contention{}
}

// finding is the message to the operator; "" if there is no contention.
func (f *contention) finding() string {
	if !f.on() {
		return ""
	}
	who := ""
	if len(f.by) > 0 {
		who = fmt.Sprintf(" (the kernel names %s)", strings.Join(f.by, ", "))
	}
	return fmt.Sprintf("another program%s keeps changing %s: %s; put back %d times since %s, now every %v at most: find that program (netguard doctor names those that it knows) and stop it",
		who, f.what, f.thing, f.count, f.begun.UTC().Format(time.RFC3339), f.wait)
}
