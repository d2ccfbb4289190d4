package harness_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netguard/integration/harness"
	"netguard/integration/remains"
)

// victim is the variable that says to this program, started again, how it shall
// end.
const victim = "NETGUARD_TEST_VICTIM"

// fill starts an engine that has some of everything that could be left.
func fill(t harness.TB) *harness.Engine {
	e := harness.Start(t, harness.WithOutside(), harness.WithIPv6())
	e.Network("backend", harness.Subnet("10.7.0.0/24"))
	e.Run("busy", harness.On("backend"), harness.Doing("serve", "tcp", ":80"), harness.Publish("8080:80"))
	e.Run("privileged", harness.Privileged(), harness.Restarting("always"))
	e.Run("frozen", harness.On("backend")).Pause()
	e.Create("never-started")
	e.Outside.Serve("udp", ":53")
	e.Run("inside").Inside().Serve("tcp", ":1")
	return e
}

// TestVictim is not a test but what TestRemains kills.
func TestVictim(t *testing.T) {
	how := os.Getenv(victim)
	if how == "" {
		return
	}
	e := fill(t)
	fmt.Println("ready", harness.Reaper(), e.Name())
	if how == "panic" {
		panic("as a broken test does")
	}
	select {} // until it is killed, or the time is over
}

func TestRemains(t *testing.T) {
	links := linkNames(t)
	t.Run("nothing is left after a test", func(t *testing.T) {
		var record remains.Record
		var sockets []string
		if t.Run("that passes", func(t *testing.T) {
			e := fill(t)
			record = e.Record()
			sockets = record.ShimSockets()
		}) {
			checkGone(t, record, sockets)
		}
	})
	for how, end := range map[string]func(*os.Process) error{
		"killed":      func(p *os.Process) error { return p.Kill() },
		"interrupted": func(p *os.Process) error { return p.Signal(os.Interrupt) },
		"panic":       func(*os.Process) error { return nil },
		"time-out":    func(*os.Process) error { return nil },
	} {
		t.Run("nothing is left after the end by "+how, func(t *testing.T) {
			timeout := "1m"
			if how == "time-out" {
				timeout = "10s"
			}
			cmd := exec.Command(os.Args[0], "-test.run", "^TestVictim$", "-test.timeout", timeout)
			cmd.Env = append(os.Environ(), victim+"="+how)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			reaper, record, sockets := awaitVictim(t, bufio.NewScanner(out))
			if err := end(cmd.Process); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			awaitEnd(t, reaper)
			t.Logf("the reaper was done after %v", time.Since(begin))
			checkGone(t, record, sockets)
		})
	}
	if after := linkNames(t); after != links {
		t.Errorf("the machine's own interfaces should be the same: %s, were %s", after, links)
	}
}

// awaitVictim waits until the victim has made all, and returns a pidfd of its
// reaper, and what is on record.
func awaitVictim(t *testing.T, lines *bufio.Scanner) (reaper int, r remains.Record, sockets []string) {
	t.Helper()
	var printed []string
	for lines.Scan() {
		printed = append(printed, lines.Text())
		var pid int
		var name string
		if n, _ := fmt.Sscanf(lines.Text(), "ready %d %s", &pid, &name); n != 2 {
			continue
		}
		r, err := remains.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		if reaper, err = unix.PidfdOpen(pid, 0); err != nil {
			t.Fatalf("open reaper: %v", err)
		}
		t.Cleanup(func() { unix.Close(reaper) })
		// The test would prove nothing if it looked for the wrong things.
		sockets = r.ShimSockets()
		if left, err := r.Left(); err != nil || len(left) < 20 || len(sockets) < 4 {
			t.Fatalf("there should be much more now: %v, %v, %v", left, sockets, err)
		}
		return reaper, r, sockets
	}
	t.Fatalf("the victim did not get ready:\n%s", strings.Join(printed, "\n"))
	return 0, r, nil
}

func awaitEnd(t *testing.T, pidfd int) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 40_000)
		if err == unix.EINTR {
			continue
		}
		if n != 1 || err != nil {
			t.Fatalf("the reaper does not end: %v", err)
		}
		return
	}
}

func checkGone(t *testing.T, r remains.Record, sockets []string) {
	t.Helper()
	left, err := r.Left()
	if err != nil {
		t.Error(err)
	}
	for _, socket := range sockets {
		if _, err := os.Lstat(socket); err == nil {
			left = append(left, "socket "+socket)
		}
	}
	if len(left) > 0 {
		t.Errorf("left over:\n%s", strings.Join(left, "\n"))
	}
}

func linkNames(t *testing.T) string {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, link := range links {
		names = append(names, link.Name)
	}
	return strings.Join(names, " ")
}
