package events

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	vish "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"netguard/internal/asroot"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const group = 0x4e55

// namespace gives the test a network namespace of its own, in which packets to port 9
// of 127.0.0.1 are handed over and refused.
func namespace(t *testing.T) {
	t.Helper()
	asroot.Only(t)
	runtime.LockOSThread() // the thread is thrown away with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("make network namespace (root is needed): %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	lo, err := vish.LinkByName("lo")
	if err == nil {
		err = vish.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	nft(t, `table ip t {
		chain c {
			type filter hook output priority 0
			udp dport 9 log prefix "a prefix" group 20053 snaplen 64 drop
		}
	}`)
}

func nft(t *testing.T, text string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}

// send sends packets that are refused.
func send(t *testing.T, count int) {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	for range count {
		err := unix.Sendto(s, []byte("a packet of no interest that is long enough to be cut off somewhere behind its header"), 0,
			&unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}})
		if err != nil && !errors.Is(err, unix.EPERM) { // which says that it was refused
			t.Fatal(err)
		}
	}
}

// listening listens to the group until the test ends.
func listening(t *testing.T, f func(Sample)) *Listener {
	t.Helper()
	l, err := Listen(group)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx, f) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
	return l
}

// loggers is what the namespace has set of nf_log.
func loggers(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	files, err := filepath.Glob("/proc/sys/net/netfilter/nf_log/*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(f + " " + string(text))
	}
	return b.String()
}

func TestListener(t *testing.T) {
	t.Run("gives_the_beginning_of_what_was_refused", func(t *testing.T) {
		namespace(t)
		samples := make(chan Sample, 10)
		listening(t, func(s Sample) { samples <- s })
		send(t, 1)
		select {
		case s := <-samples:
			f, ok := s.Flow()
			if s.Prefix != "a prefix" || len(s.Packet) != 64 || s.Out != 1 || s.In != 0 || !ok || f.Dst != netip.MustParseAddr("127.0.0.1") || f.Port != 9 {
				t.Errorf("%+v %+v", s, f)
			}
		case <-time.After(patience):
			t.Fatal("nothing came")
		}
	})
	t.Run("leaves_the_loggers_of_the_host_as_they_are", func(t *testing.T) {
		namespace(t)
		before := loggers(t)
		l, err := Listen(group)
		if err != nil {
			t.Fatal(err)
		}
		if during := loggers(t); during != before {
			t.Errorf("%s\nwas %s", during, before)
		}
		if text, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_log"); err != nil || !strings.Contains(string(text), "20053") {
			t.Errorf("%q, %v", text, err)
		}
		l.conn.Close()
		if text, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_log"); err != nil || len(text) > 0 {
			t.Errorf("%q, %v", text, err)
		}
	})
	t.Run("there_is_one_of_a_group", func(t *testing.T) {
		namespace(t)
		listening(t, func(Sample) {})
		if _, err := Listen(group); !errors.Is(err, ErrGroupTaken) {
			t.Error(err)
		}
		other, err := Listen(group + 1)
		if err != nil {
			t.Fatal(err)
		}
		other.conn.Close()
	})
	t.Run("counts_what_there_was_no_room_for_and_goes_on", func(t *testing.T) {
		namespace(t)
		l, err := Listen(group)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.conn.SetReadBuffer(8 << 10); err != nil {
			t.Fatal(err)
		}
		const count = 5000
		send(t, count) // while nobody reads
		ctx, stop := context.WithCancel(t.Context())
		samples, ended := make(chan Sample, 2*count), make(chan error, 1)
		go func() { ended <- l.Run(ctx, func(s Sample) { samples <- s }) }()
		read, missing := 0, uint64(0)
		for deadline := time.Now().Add(patience); uint64(read)+missing < count && time.Now().Before(deadline); {
			select {
			case s := <-samples:
				read++
				missing += s.Missing
			case <-time.After(10 * time.Millisecond):
				send(t, 1) // the one that tells of those before it
			}
		}
		stop()
		<-ended
		if read == 0 || missing == 0 || uint64(read)+missing < count || l.Lost() != missing {
			t.Errorf("%d were read, %d are missing of %d (%d)", read, missing, count, l.Lost())
		}
	})
}
