package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	. "netguard/integration/harness"
)

// spot is a network namespace in which connections begin and end.
type spot struct {
	name string
	Netns
}

// knock is one connection that is tried: opened, asked, answered.
type knock struct {
	from     *spot
	protocol string // tcp, udp, icmp (echo requests) or sctp (its first packet)
	to       netip.AddrPort
	source   netip.Addr // the kernel's choice if zero
	what     string     // for messages
	open     bool       // what is wanted

	word      []byte // tells this connection from all others
	fd        int    // -1 when it has ended
	connected bool
	answered  bool
	problem   error
}

const (
	// closedFor is how long nothing must come of a connection that is to be
	// refused, after all that are to be open have been answered.
	closedFor = 300 * time.Millisecond
	// openWithin is far more than an answer takes.
	openWithin = 4 * time.Second
	// again is when what has no retransmission of its own is sent again.
	again = 100 * time.Millisecond
)

// wordLen is the length of every word.
const wordLen = 16

var words atomic.Uint64

// heard are the words that have arrived at a server.
var heard sync.Map

// came tells whether anything of the connection reached a server.
func (k *knock) came() bool { _, ok := heard.Load(string(k.word)); return ok || k.answered }

func (k *knock) String() string {
	end := "no answer"
	switch {
	case k.answered:
		end = "answered"
	case k.came():
		end = "arrived, and the answer did not"
	case k.problem != nil:
		end = k.problem.Error()
	}
	return fmt.Sprintf("%s (%s, %s %s): %s", k.what, k.from.name, k.protocol, k.to, end)
}

// right tells whether what came of it is what was wanted.
func (k *knock) right() bool {
	if k.open {
		return k.answered || k.protocol == "sctp" && k.came()
	}
	return !k.came()
}

// knockAll tries all at once and returns those that did not go as wanted.
func knockAll(t testing.TB, all []*knock) (wrong []*knock) {
	t.Helper()
	places := map[*spot][]*knock{}
	for _, k := range all {
		k.word, k.fd, k.connected, k.answered, k.problem = fmt.Appendf(nil, "%016x", words.Add(1)), -1, false, false, nil
		places[k.from] = append(places[k.from], k)
	}
	defer func() {
		for _, k := range all {
			k.end(nil)
		}
	}()
	for from, ks := range places {
		err := from.Do(func() error {
			for _, k := range ks {
				if err := k.dial(); err != nil {
					k.end(err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	var sent, quiet time.Time // quiet: since when all that is to be open is
	for {
		if time.Since(sent) >= again {
			sent = time.Now()
			for _, k := range all {
				k.send()
			}
		}
		listenTo(t, all)
		waiting := slices.ContainsFunc(all, func(k *knock) bool { return k.open && !k.right() })
		if waiting {
			quiet = time.Time{}
		} else if quiet.IsZero() {
			quiet = time.Now()
		}
		if !quiet.IsZero() && time.Since(quiet) >= closedFor || time.Since(begin) > openWithin {
			break
		}
	}
	for _, k := range all {
		if !k.right() {
			wrong = append(wrong, k)
		}
	}
	return wrong
}

// mustKnock ends the test with every connection that did not go as wanted.
func mustKnock(t testing.TB, all []*knock) {
	t.Helper()
	if wrong := knockAll(t, all); len(wrong) > 0 {
		t.Fatalf("%s", describe(all, wrong))
	}
}

func describe(all, wrong []*knock) string {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%d of %d connections went wrong:", len(wrong), len(all))
	for i, k := range wrong {
		if i == 20 {
			fmt.Fprintf(&out, "\n  and %d more", len(wrong)-i)
			break
		}
		fmt.Fprintf(&out, "\n  open = %t, want %t: %s", !k.open, k.open, k)
	}
	return out.String()
}

// listenTo waits for a moment for anything to happen.
func listenTo(t testing.TB, all []*knock) {
	t.Helper()
	var polls []unix.PollFd
	var of []*knock
	for _, k := range all {
		if k.fd < 0 {
			continue
		}
		want := int16(unix.POLLIN)
		if k.protocol == "tcp" && !k.connected {
			want = unix.POLLOUT
		}
		polls, of = append(polls, unix.PollFd{Fd: int32(k.fd), Events: want}), append(of, k)
	}
	n, err := unix.Poll(polls, 20)
	if err != nil && !errors.Is(err, unix.EINTR) {
		t.Fatalf("poll: %v", err)
	}
	if n <= 0 {
		return
	}
	for i, p := range polls {
		if p.Revents != 0 {
			of[i].receive()
		}
	}
}

func (k *knock) end(why error) {
	if k.fd >= 0 {
		_ = unix.Close(k.fd)
		k.fd = -1
	}
	if why != nil {
		k.problem = why
	}
}
