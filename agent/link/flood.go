package link

import (
	"errors"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A container with NET_ADMIN can have the kernel say ten thousand times a second that
// its port changed. To read these costs more than to find that they say nothing new, so
// the kernel keeps to itself what is beyond heardMost in a window. At the end of the
// window the link is read, and compared with what was heard last: whatever happened to
// it meanwhile is found then. What is not a container's to cause is never muted: links
// that go, queues, FDB and neighbour entries.
const (
	// heardMost is more than it takes to set up a port.
	heardMost = 100
	window    = time.Second
	// mutedMost is how many links the filter names: what the smallest usual
	// net.core.optmem_max (20 KiB) has room for, twice.
	mutedMost = 128
)

// flood counts messages about links (RTM_NEWLINK).
type flood struct {
	counts map[int]int // by ifindex, in this window
	end    time.Time   // of this window; zero if there is none
	muted  map[int]struct{}
	failed bool // the kernel refused the filter, as was told
}

func newFlood() flood { return flood{counts: map[int]int{}, muted: map[int]struct{}{}} }

// heard notes a message about a link, and says whether no more of these are to be heard
// until the window ends.
func (f *flood) heard(index int, now time.Time) bool {
	if len(f.muted) == 0 && !now.Before(f.end) {
		clear(f.counts)
		f.end = now.Add(window)
	}
	f.counts[index]++
	if _, muted := f.muted[index]; muted || f.counts[index] < heardMost || len(f.muted) >= mutedMost {
		return false
	}
	f.muted[index] = struct{}{}
	return true
}

// due is when muted links are to be looked at; zero if there are none.
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

// forget says whether the link was muted.
func (f *flood) forget(index int) bool {
	_, muted := f.muted[index]
	delete(f.muted, index)
	delete(f.counts, index)
	return muted
}

// listen has the kernel know which links are muted. Where it refuses, more is heard.
func (t *Table) listen() {
	err := filter(t.events, t.flood.muted)
	if err != nil && !t.flood.failed {
		t.log.Warn("messages about links cannot be muted", "error", err)
	}
	t.flood.failed = err != nil
}

// unmute hears of muted links again, looks at each, and says whether the hint grew.
func (t *Table) unmute(now time.Time) bool {
	muted := t.flood.take(now)
	if len(muted) == 0 {
		return false
	}
	t.listen() // before they are read: what changes from here on is heard
	grew := false
	for index := range muted {
		grew = t.lookAgain(index) || grew
	}
	return grew
}

// lookAgain asks for a link, takes the answer for a message, and says whether the hint
// grew.
func (t *Table) lookAgain(index int) bool {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: t.raw}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil || len(answers) == 0 {
		if !errors.Is(err, unix.ENODEV) {
			t.log.Warn("link cannot be read", "ifindex", index, "error", err)
		}
		t.follow(index)
		return t.mark(index)
	}
	return t.linkMessage(syscall.NetlinkMessage{
		Header: syscall.NlMsghdr{Len: uint32(unix.SizeofNlMsghdr + len(answers[0])), Type: unix.RTM_NEWLINK}, Data: answers[0]})
}
