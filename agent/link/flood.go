package link

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A container with NET_ADMIN can make the kernel report ten thousand times a second that its
// port changed. To read such messages costs more than to find that they say nothing new. So a
// link is muted when it has more than heardMost messages in a window: the kernel sends no more
// of them. At the end of the window the link is read, and compared with the last message about
// it. That finds every change in between. Messages that a container cannot cause are never
// muted: about links that go, queues, FDB and neighbour entries.
const (
	// heardMost is more than it takes to set up a port.
	heardMost = 100
	window    = time.Second
	// A container may be on many networks. After idleMost messages that said nothing new,
	// about all links together, a link is muted after a few of them.
	idleMost, few = 400, 3
	// mutedMost is how many links the filter names at most. A small net.core.optmem_max
	// allows fewer.
	mutedMost = 500
)

// flood counts messages about links (RTM_NEWLINK).
type flood struct {
	counts map[int]int // by ifindex, in this window
	idle   int         // of these, those that said nothing new
	end    time.Time   // of this window; zero if there is none
	muted  map[int]struct{}
	most   int // of these
}

func newFlood() flood {
	return flood{counts: map[int]int{}, muted: map[int]struct{}{}, most: mutedMost}
}

// heard counts a message about a link, and tells whether to mute the link until the window
// ends.
func (f *flood) heard(index int, news bool, now time.Time) bool {
	if len(f.muted) == 0 && !now.Before(f.end) {
		clear(f.counts)
		f.idle, f.end = 0, now.Add(window)
	}
	f.counts[index]++
	most := heardMost
	if !news {
		if f.idle++; f.idle > idleMost {
			most = few
		}
	}
	_, muted := f.muted[index]
	return !muted && f.counts[index] >= most && len(f.muted) < f.most
}

// due is when muted links are read; zero if there are none.
func (f *flood) due() time.Time {
	if len(f.muted) == 0 {
		return time.Time{}
	}
	return f.end
}

// take gives the links that were muted until now.
func (f *flood) take(now time.Time) map[int]struct{} {
	if len(f.muted) == 0 || now.Before(f.end) {
		return nil
	}
	muted := f.muted
	f.muted, f.end = map[int]struct{}{}, time.Time{}
	return muted
}

// mute stops the kernel's messages about a link, if the filter has room for it.
func (t *Table) mute(index int) {
	t.flood.muted[index] = struct{}{}
	if !t.listen() {
		delete(t.flood.muted, index)
		t.flood.most = len(t.flood.muted)
	}
}

// unmuteGone forgets a link that is gone: another may get its index.
func (t *Table) unmuteGone(index int) {
	delete(t.flood.counts, index)
	if _, muted := t.flood.muted[index]; muted {
		delete(t.flood.muted, index)
		if !t.listen() {
			t.flood.muted[index] = struct{}{}
		}
	}
}

// listen tells the kernel which links are muted. If the kernel refuses, nothing changes.
func (t *Table) listen() bool {
	err := filter(t.events, t.flood.muted, t.own)
	if err != nil {
		t.log.Warn("messages about links cannot be muted", "links", len(t.flood.muted), "sockets", len(t.own), "error", err)
	}
	return err == nil
}

// Ignore ends the messages about queues, classes and filters that a socket of this program
// causes: the owner of the socket knows what it did.
func (t *Table) Ignore(socket uint32) {
	t.refresh.Lock()
	defer t.refresh.Unlock()
	t.own = append(t.own, socket)
	t.listen()
}

// unmute ends the muting of links, reads each of them, and tells whether the hint grew.
func (t *Table) unmute(now time.Time) bool {
	muted := t.flood.take(now)
	if len(muted) == 0 {
		return false
	}
	// Listen before reading: so no change after the reading is missed.
	if !t.listen() {
		t.flood.muted, t.flood.end = muted, now.Add(window)
	}
	grew := false
	for index := range muted {
		grew = t.lookAgain(index) || grew
	}
	return grew
}

// lookAgain asks for a link, handles the answer as a message, and tells whether the hint
// grew.
func (t *Table) lookAgain(index int) bool {
	answers, err := t.getLink(index)
	if err != nil || len(answers) == 0 {
		known := t.known(index)
		t.follow(index)
		return known && t.mark(index)
	}
	return t.linkMessage(syscall.NetlinkMessage{
		Header: syscall.NlMsghdr{Len: uint32(unix.SizeofNlMsghdr + len(answers[0])), Type: unix.RTM_NEWLINK}, Data: answers[0]})
}
