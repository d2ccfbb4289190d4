package pace

import (
	"math/rand/v2"
	"testing"
	"time"
)

// clock is virtual time.
type clock struct{ t time.Time }

func (c *clock) now() time.Time                { return c.t }
func (c *clock) pass(d time.Duration)          { c.t = c.t.Add(d) }
func start() (*clock, func() *Pace)            { return from(time.Unix(1e9, 0)) }
func (c *clock) in(at time.Time) time.Duration { return at.Sub(c.t) }

func from(t time.Time) (*clock, func() *Pace) {
	c := &clock{t}
	return c, func() *Pace {
		return &Pace{Gather: 100 * time.Millisecond, Every: 10 * time.Second, MinRetry: time.Second, MaxRetry: 4 * time.Second, Clock: c.now}
	}
}

func run(p *Pace) { p.Begin(); p.Done() }

func TestPace(t *testing.T) {
	c, fresh := start()
	tests := map[string]struct {
		do   func(*Pace)
		want time.Duration // until it is due
	}{
		"new_is_due":                {func(*Pace) {}, 0},
		"rarely_without_a_reason":   {run, 10 * time.Second},
		"soon_after_a_reason":       {func(p *Pace) { run(p); p.Wake() }, 100 * time.Millisecond},
		"the_first_of_two_reasons":  {func(p *Pace) { run(p); p.Wake(); c.pass(60 * time.Millisecond); p.Wake() }, 40 * time.Millisecond},
		"a_reason_during_the_run":   {func(p *Pace) { p.Begin(); p.Wake(); p.Done() }, 100 * time.Millisecond},
		"a_failure_waits":           {func(p *Pace) { p.Begin(); p.Failed() }, time.Second},
		"and_no_reason_shortens_it": {func(p *Pace) { p.Begin(); p.Failed(); p.Wake() }, time.Second},
		"twice_as_long":             {func(p *Pace) { p.Begin(); p.Failed(); c.pass(time.Second); p.Begin(); p.Failed() }, 2 * time.Second},
		"up_to_a_bound": {func(p *Pace) {
			for range 9 {
				p.Begin()
				p.Failed()
			}
		}, 4 * time.Second},
		"a_success_forgets_the_failures": {func(p *Pace) { p.Begin(); p.Failed(); run(p); p.Begin(); p.Failed() }, time.Second},
		"at_once_whatever_it_waits_for":  {func(p *Pace) { p.Begin(); p.Failed(); p.Now() }, 0},
		"held_back":                      {func(p *Pace) { run(p); p.Hold(c.t.Add(time.Minute)); p.Wake() }, time.Minute},
		"by_a_time":                      {func(p *Pace) { run(p); p.By(c.t.Add(3 * time.Second)) }, 3 * time.Second},
		"what_takes_long_comes_seldom": {func(p *Pace) {
			p.Share = 10
			p.Begin()
			c.pass(500 * time.Millisecond)
			p.Done()
			p.Wake()
		}, 5 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := fresh()
			test.do(p)
			if got := c.in(p.Next()); got != test.want {
				t.Errorf("due in %v, want %v", got, test.want)
			}
			if due := p.Due(); due != (test.want == 0) {
				t.Errorf("Due says %v", due)
			}
		})
	}
}

// TestPaceAhead: work without a reason is done a little before its time, and no other work is.
func TestPaceAhead(t *testing.T) {
	c, fresh := start()
	for name, test := range map[string]struct {
		do   func(*Pace)
		wait time.Duration
		want bool
	}{
		"about_time":              {run, 9700 * time.Millisecond, true},
		"too_early":               {run, 9600 * time.Millisecond, false},
		"a_reason_gathers":        {func(p *Pace) { run(p); p.Wake() }, 99 * time.Millisecond, false},
		"a_failure_waits":         {func(p *Pace) { p.Begin(); p.Failed() }, 999 * time.Millisecond, false},
		"what_is_held_back_waits": {func(p *Pace) { run(p); p.Hold(c.t.Add(20 * time.Second)) }, 19900 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := fresh()
			test.do(p)
			next := p.Next()
			c.pass(test.wait)
			if p.Due() {
				t.Error("due before its time")
			}
			if p.Ahead(300 * time.Millisecond); p.Due() != test.want {
				t.Errorf("Due says %v", p.Due())
			}
			if !test.want && p.Next() != next {
				t.Errorf("the next time became %v, was %v", p.Next(), next)
			}
		})
	}
}

// TestPaceWithoutEvery: work that nothing gives a reason for is never due.
func TestPaceWithoutEvery(t *testing.T) {
	c, fresh := start()
	p := fresh()
	p.Every = 0
	run(p)
	c.pass(24 * time.Hour)
	if p.Due() || !p.Next().IsZero() {
		t.Errorf("due at %v", p.Next())
	}
	if got := Soonest(p.Next(), c.t.Add(time.Second), time.Time{}, c.t.Add(time.Minute)); c.in(got) != time.Second {
		t.Errorf("soonest is %v", got)
	}
}

// TestPaceNeverStops: whatever happens, a failed run is tried again within MaxRetry, and
// a reason is answered within Gather or that.
func TestPaceNeverStops(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		c, fresh := start()
		p := fresh()
		for range 100 {
			switch r.IntN(4) {
			case 0:
				p.Begin()
				p.Failed()
				if d := c.in(p.Next()); d > p.MaxRetry {
					t.Fatalf("seed %d: a failure waits %v", seed, d)
				}
			case 1:
				run(p)
			case 2:
				p.Wake()
				if d := c.in(p.Next()); d > p.MaxRetry {
					t.Fatalf("seed %d: a reason waits %v", seed, d)
				}
			default:
				c.pass(time.Duration(r.IntN(3000)) * time.Millisecond)
			}
			if p.Next().IsZero() {
				t.Fatalf("seed %d: it waits for ever", seed)
			}
		}
	}
}
