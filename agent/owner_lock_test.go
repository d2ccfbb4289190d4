package agent

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"netguard/agent/control"
	"netguard/internal/asroot"
)

// apart runs f in a network namespace of its own, as the user uid.
func apart(t *testing.T, f func(as func(uid int, f func()))) {
	t.Helper()
	asroot.Only(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and thrown away
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		f(func(uid int, f func()) {
			none := ^uintptr(0)
			if _, _, err := unix.RawSyscall(unix.SYS_SETRESUID, none, uintptr(uid), none); err != 0 {
				t.Error(err)
				return
			}
			f()
			if _, _, err := unix.RawSyscall(unix.SYS_SETRESUID, none, 0, none); err != 0 {
				t.Error(err)
			}
		})
	}()
	<-done
}

func TestOwnerLock(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	apart(t, func(as func(int, func())) {
		first, err := lockOwner(quiet)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := lockOwner(quiet); !errors.Is(err, control.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("agent (pid %d)", os.Getpid())) {
			t.Errorf("a second one: %v", err)
		}
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		again, err := lockOwner(quiet)
		if err != nil {
			t.Errorf("after the first: %v", err)
			return
		}
		again.Close()

		as(65534, func() {
			l, err := net.Listen("unix", ownerLock)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { l.Close() })
		})
		var log bytes.Buffer
		if held, err := lockOwner(slog.New(slog.NewTextHandler(&log, nil))); err != nil || !strings.Contains(log.String(), "uid=65534") {
			t.Errorf("a stranger keeps the agent from starting: %v, %s", err, &log)
		} else {
			held.Close()
		}
	})
	apart(t, func(func(int, func())) { // another host
		held, err := lockOwner(quiet)
		if err != nil {
			t.Error(err)
			return
		}
		held.Close()
	})
}
