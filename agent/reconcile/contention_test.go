package reconcile

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// ring is a contention as the loop has it: something is changed, looked at when it may
// be, and put back.
type ring struct {
	contention
	log   bytes.Buffer
	now   time.Time
	looks []time.Duration // after the beginning, those that found something
	lines int             // of single changes
}

var ringBegun = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newRing() *ring { return &ring{now: ringBegun} }

func (r *ring) logger() *slog.Logger { return slog.New(slog.NewTextHandler(&r.log, nil)) }

// attacked has somebody change a thing each time as soon as it was put back, for so
// long; sooner than soon it is not noticed.
func (r *ring) attacked(d, soon time.Duration, thing string) {
	for end := r.now.Add(d); ; {
		next := r.now.Add(soon)
		if until := r.until(); until.After(next) {
			next = until
		}
		if next.After(end) {
			r.now = end
			return
		}
		r.now = next
		r.looks = append(r.looks, r.now.Sub(ringBegun))
		if !r.drifted(r.logger(), "the rules", r.now, []string{thing}, []string{"evil"}) {
			r.lines++
		}
	}
}

// left has nobody change anything for so long, and looks when there is a reason.
func (r *ring) left(d, usual time.Duration) {
	for end := r.now.Add(d); ; {
		next := r.next(r.now, r.now.Add(usual))
		if !next.After(r.now) {
			next = r.now.Add(time.Millisecond)
		}
		if next.After(end) {
			r.now = end
			return
		}
		r.now = next
		r.calm(r.logger(), r.now)
	}
}

func TestFight(t *testing.T) {
	t.Run("what_is_changed_once_or_at_a_normal_pace_is_put_back_at_once", func(t *testing.T) {
		r := newRing()
		r.attacked(4*100*time.Millisecond, 100*time.Millisecond, "x")
		if r.on() || r.lines != 4 {
			t.Errorf("a contention after %d changes: %s", r.lines, r.finding())
		}
		r.attacked(time.Hour, 16*time.Second, "x")
		r.attacked(15*2*time.Second, 2*time.Second, "x")
		if r.on() || r.finding() != "" || !r.until().IsZero() {
			t.Errorf("a contention over what changes every 16 s, or 15 times: %s", r.finding())
		}
	})
	t.Run("different_things_are_no_fight", func(t *testing.T) {
		r := newRing()
		for i := range 1000 {
			r.now = r.now.Add(10 * time.Millisecond)
			r.drifted(r.logger(), "the guard", r.now, []string{fmt.Sprint("port ", i)}, nil)
		}
		if r.on() {
			t.Error(r.finding())
		}
		if len(r.streaks) > maxStreaks {
			t.Errorf("%d things are remembered", len(r.streaks))
		}
	})
	t.Run("one_run_of_a_tool_is_no_fight", func(t *testing.T) {
		r := newRing()
		for range 50 { // it deletes many things, and those that were put back meanwhile
			r.now = r.now.Add(2 * time.Millisecond)
			r.drifted(r.logger(), "the guard", r.now, []string{"neighbour"}, nil)
		}
		if r.on() {
			t.Error(r.finding())
		}
		r.attacked(time.Second, 10*time.Millisecond, "neighbour")
		if !r.on() {
			t.Errorf("changed for a second as fast as it goes, and no contention after %d times", r.streaks["neighbour"].n)
		}
	})
	t.Run("a_fight_is_backed_off_from_and_never_given_up", func(t *testing.T) {
		r := newRing()
		r.attacked(10*time.Minute, 100*time.Millisecond, "x")
		var gaps []time.Duration
		for i := range r.looks[1:] {
			gaps = append(gaps, r.looks[i+1]-r.looks[i])
		}
		const at = 100 * time.Millisecond
		want := []time.Duration{at, at, at, at, minRest, 2 * minRest, 4 * minRest, 8 * minRest, 16 * minRest, maxRest, maxRest}
		for i, w := range want {
			if gaps[i] != w {
				t.Fatalf("put back after %v, want %v", gaps[:len(want)], want)
			}
		}
		if last := r.looks[len(r.looks)-1]; last < 10*time.Minute-maxRest-time.Second {
			t.Errorf("the last time it was put back was after %v", last)
		}
		if n := len(r.looks); n > 5+5+60 || r.count != n {
			t.Errorf("put back %d times, counted %d", n, r.count)
		}
		if lines := strings.Count(r.log.String(), "\n"); lines != 1 || r.lines != 4 {
			t.Errorf("%d lines about single changes, and\n%s", r.lines, &r.log)
		}
		for _, word := range []string{"evil", "the rules", ": x;", "2026-01-01T00:00:00Z", "10s", "netguard doctor"} {
			if !strings.Contains(r.finding(), word) {
				t.Errorf("the finding has no %q: %s", word, r.finding())
			}
		}
	})
	t.Run("it_ends_when_nobody_changes_anything", func(t *testing.T) {
		for _, long := range []time.Duration{time.Second, time.Minute} {
			r := newRing()
			r.attacked(long, 100*time.Millisecond, "x")
			if !r.on() {
				t.Fatal("no contention")
			}
			last := r.last
			over := r.over()
			r.left(over.Sub(r.now)-time.Millisecond, 10*time.Second)
			if !r.on() {
				t.Errorf("over after %v", r.now.Sub(last))
			}
			r.left(2*time.Millisecond, 10*time.Second)
			if r.on() || r.finding() != "" {
				t.Errorf("not over %v after the last change", r.now.Sub(last))
			}
			if quiet := over.Sub(last); quiet < contentionOver || quiet > 2*maxRest {
				t.Errorf("over after %v", quiet)
			}
			if lines := strings.Count(r.log.String(), "\n"); lines != 2 {
				t.Errorf("the log has %d lines:\n%s", lines, &r.log)
			}
			// And what is changed now is put back at once.
			r.looks, r.lines = nil, 0
			r.attacked(400*time.Millisecond, 100*time.Millisecond, "x")
			if r.lines != 4 {
				t.Errorf("put back %d times in 400 ms", r.lines)
			}
		}
	})
	t.Run("it_lasts_where_only_a_regular_look_finds_out", func(t *testing.T) {
		r := newRing()
		r.attacked(10*time.Minute, PoliceEvery, "x")
		if !r.on() || r.count != 60 {
			t.Errorf("%d changes, %q", r.count, r.finding())
		}
		if lines := strings.Count(r.log.String(), "\n"); lines != 1 {
			t.Errorf("it begins and ends:\n%s", &r.log)
		}
	})
}
