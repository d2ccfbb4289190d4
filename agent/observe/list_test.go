package observe

import (
	"testing"
	"time"
)

func TestListAfter(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		10 * time.Millisecond:  30 * time.Second,
		150 * time.Millisecond: 75 * time.Second,
		2 * time.Second:        5 * time.Minute,
		20 * time.Second:       1000 * time.Second,
	} {
		if got := listAfter(took); got != want {
			t.Errorf("after %v it rests %v, want %v", took, got, want)
		}
	}
}

// While Docker does not list an endpoint, everything is read again within five seconds, however
// long that lasts, unless a reading takes long.
func TestListAgain(t *testing.T) {
	lacks := time.Unix(1e9, 0)
	for _, c := range []struct{ since, took, want time.Duration }{
		{500 * time.Millisecond, 0, LackingFor},
		{2 * time.Second, 0, 3 * time.Second},
		{6 * time.Second, 10 * time.Millisecond, 9 * time.Second},
		{time.Minute, 10 * time.Millisecond, 65 * time.Second},
		{time.Hour, 200 * time.Millisecond, time.Hour + 5*time.Second},
		{time.Hour, time.Second, time.Hour + 20*time.Second},
	} {
		if got := (wanted{lacks: lacks}).relist(lacks.Add(c.since), c.took).Sub(lacks); got != c.want {
			t.Errorf("lacking for %v, read in %v: read again after %v, want %v", c.since, c.took, got, c.want)
		}
	}
	if got := (wanted{}).relist(lacks, 0); !got.IsZero() {
		t.Errorf("nothing lacks: read again at %v", got)
	}
}
