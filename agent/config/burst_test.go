package config

import (
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Only where each file is whole, the wait is short.
func TestBurst(t *testing.T) {
	const created, written, moved, removed = fsnotify.Create, fsnotify.Write, fsnotify.Rename, fsnotify.Remove
	type event struct {
		file string
		op   fsnotify.Op
	}
	for name, c := range map[string]struct {
		events []event
		after  time.Duration // since the first
		want   time.Duration
	}{
		"written_in_place":            {events: []event{{"a", written}}, want: settle},
		"written_in_place_for_long":   {events: []event{{"a", written}, {"a", written}}, after: 30 * time.Millisecond, want: 20 * time.Millisecond},
		"no_wait_is_negative":         {events: []event{{"a", written}, {"a", written}}, after: time.Second},
		"made":                        {events: []event{{"a", created}, {"a", written}}, want: settle},
		"removed":                     {events: []event{{"a", removed}}, want: settle},
		"moved_away":                  {events: []event{{"a", moved}}, want: settle},
		"moved_in_from_elsewhere":     {events: []event{{"a", created}}, want: settle},
		"replaced":                    {events: []event{{".a", created}, {".a", written}, {".a", moved}, {"a", created}}, want: settleWhole},
		"replaced_when_time_is_up":    {events: []event{{".a", written}, {".a", moved}, {"a", created}}, after: 45 * time.Millisecond, want: 5 * time.Millisecond},
		"two_are_replaced":            {events: []event{{".a", moved}, {"a", created}, {".b", written}, {".b", moved}, {"b", created}}, want: settleWhole},
		"another_is_written_meantime": {events: []event{{"b", written}, {".a", moved}, {"a", created}}, want: settle},
		"saved_beside_a_backup":       {events: []event{{"a", moved}, {"a~", created}, {"a", created}, {"a", written}}, want: settle},
		"a_move_and_another_file":     {events: []event{{"a", moved}, {"b", written}, {"c", created}}, want: settle},
		"lost_events":                 {events: []event{{".a", moved}, {"a", created}, {}}, want: settle},
	} {
		t.Run(name, func(t *testing.T) {
			var b burst
			began := time.Now()
			var got time.Duration
			for i, e := range c.events {
				now := began
				if i > 0 {
					now = now.Add(c.after)
				}
				got = b.add(fsnotify.Event{Name: e.file, Op: e.op}, now)
			}
			if got != c.want {
				t.Errorf("waits %v, want %v", got, c.want)
			}
		})
	}
}
