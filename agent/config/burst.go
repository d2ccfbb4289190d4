package config

import (
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long the events of one save are gathered. An editor truncates, writes,
	// renames and sets modes within a few milliseconds.
	settle = 50 * time.Millisecond
	// settleWhole is how long to wait for another event where all files are whole.
	settleWhole = 10 * time.Millisecond
)

// burst is the events of one save, or of some that follow each other.
type burst struct {
	began time.Time
	// away is the file that the last event moved away: the next event says where to.
	away string
	// partial are the files that somebody may still be writing.
	partial map[string]bool
}

// add adds an event, and tells how long to wait for the next one. A file that was written
// under another name and then renamed is whole, as careful editors leave it.
func (b *burst) add(e fsnotify.Event, now time.Time) time.Duration {
	if b.partial == nil {
		b.began, b.partial = now, map[string]bool{}
	}
	if e.Has(fsnotify.Create) && b.away != "" {
		delete(b.partial, b.away)
		b.away = ""
	} else {
		b.partial[e.Name] = true
		b.away = ""
		if e.Has(fsnotify.Rename) {
			b.away = e.Name
		}
	}
	left := max(0, b.began.Add(settle).Sub(now))
	if len(b.partial) == 0 {
		return min(left, settleWhole)
	}
	return left
}
