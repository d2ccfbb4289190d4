package link

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	p := pace{rooms: map[int]room{}, late: map[int]struct{}{}}
	start := time.Unix(1000, 0)
	looked := map[int]int{}
	// A thousand messages a second about one port, and a few about another.
	for ms := range 10_000 {
		now := start.Add(time.Duration(ms) * time.Millisecond)
		for index := range p.take(now) {
			looked[index]++
		}
		if p.now(1, now) {
			looked[1]++
		}
		if ms%2000 == 0 && p.now(2, now) {
			looked[2]++
		}
	}
	if looked[1] < atOnce+7 || looked[1] > atOnce+10 {
		t.Errorf("the busy port was looked at %d times", looked[1])
	}
	if looked[2] != 5 {
		t.Errorf("the calm one was looked at %d times, of 5", looked[2])
	}
	// What was put off last is not forgotten.
	if late := p.take(start.Add(time.Minute)); len(late) != 1 {
		t.Errorf("late are %v", late)
	}
	for range atOnce - 1 {
		if !p.now(1, start.Add(time.Minute)) {
			t.Fatal("after a calm minute it is not looked at at once")
		}
	}
	p.keep(map[int]struct{}{2: {}})
	if len(p.rooms) != 1 {
		t.Errorf("rooms of links that are gone: %v", p.rooms)
	}
}
