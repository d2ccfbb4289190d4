package link

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	// atOnce is how many messages about one port are handled without a pause: more than
	// it takes to set up a port. After these, the port is read once in each pacing,
	// however many messages come. A container can cause any number: it moves its end
	// between namespaces of its own.
	atOnce = 20
	pacing = time.Second
)

// pace limits how often a link is read.
type pace struct {
	rooms map[int]room
	late  map[int]struct{} // links that wait
	due   time.Time        // when these are read; zero if there are none
}

// room is how many times a link could still be read at one moment.
type room struct {
	left int
	at   time.Time
}

// now tells whether a link may be read now. Otherwise the link waits.
func (p *pace) now(index int, now time.Time) bool {
	r := p.room(index, now)
	_, waits := p.late[index]
	may := r.left > 0 && !waits
	switch {
	case may:
		r.left--
	case !waits:
		p.wait(index, now)
	}
	p.rooms[index] = r
	return may
}

// wait makes a link be read later.
func (p *pace) wait(index int, now time.Time) {
	p.late[index] = struct{}{}
	if p.due.IsZero() {
		p.due = now.Add(pacing)
	}
}

// room gives the room that a link has now.
func (p *pace) room(index int, now time.Time) room {
	r, ok := p.rooms[index]
	if !ok {
		return room{atOnce, now}
	}
	if more := int(now.Sub(r.at) / pacing); more > 0 {
		r.left, r.at = min(atOnce, r.left+more), r.at.Add(time.Duration(more)*pacing)
	}
	return r
}

// take gives the links that have waited long enough.
func (p *pace) take(now time.Time) map[int]struct{} {
	if p.due.IsZero() || now.Before(p.due) {
		return nil
	}
	late := p.late
	p.late, p.due = map[int]struct{}{}, time.Time{}
	for index := range late {
		r := p.room(index, now)
		r.left = max(0, r.left-1)
		p.rooms[index] = r
	}
	return late
}

// forget is for a link that is gone.
func (p *pace) forget(index int) {
	delete(p.rooms, index)
	delete(p.late, index)
}

// keep forgets all links but those that are here.
func (p *pace) keep(here map[int]struct{}) {
	for index := range p.rooms {
		if _, ok := here[index]; !ok {
			p.forget(index)
		}
	}
}

// patience ends the next read of the socket when links that wait, or are muted, are due.
func (t *Table) patience(now time.Time) {
	t.refresh.Lock()
	defer t.refresh.Unlock()
	var tv unix.Timeval // zero is for ever
	due := t.pace.due
	if muted := t.flood.due(); due.IsZero() || !muted.IsZero() && muted.Before(due) {
		due = muted
	}
	if !due.IsZero() {
		tv = unix.NsecToTimeval(max(due.Sub(now), time.Millisecond).Nanoseconds())
	}
	_ = t.events.SetReceiveTimeout(&tv) // it only stores the value, and never fails
}

// catchUp reads the links that waited or were muted, and tells whether the hint grew.
func (t *Table) catchUp(now time.Time) bool {
	t.refresh.Lock()
	defer t.refresh.Unlock()
	grew := t.unmute(now)
	late := t.pace.take(now)
	for index := range late {
		t.follow(index)
		t.mark(index)
	}
	return grew || len(late) > 0
}
