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
