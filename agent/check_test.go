package agent

import (
	"testing"
	"time"
)

func TestCheckDue(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	after := func(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }
	t.Run("when_its_time_has_come", func(t *testing.T) {
		c := check{at: noon}
		if c.due(after(-1), time.Time{}) || !c.due(noon, time.Time{}) {
			t.Error("not at its time")
		}
	})
	t.Run("not_while_containers_come", func(t *testing.T) {
		c := check{at: noon}
		if c.due(noon, after(-10)) || !c.at.Equal(after(490)) {
			t.Errorf("it is put off until %v", c.at)
		}
		if !c.due(c.at, after(-10)) {
			t.Error("it is not due when it is calm")
		}
	})
	t.Run("but_not_for_ever", func(t *testing.T) {
		c := check{at: noon}
		for ms := 0; ms <= 10000; ms += 100 {
			if now := after(ms); c.due(now, now) {
				if ms != 3000 {
					t.Errorf("after %d ms", ms)
				}
				return
			}
		}
		t.Error("never")
	})
}
