package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Netns is a network namespace: the engine's host, the outside host, or a
// container's. Programs of this machine run in it.
type Netns struct {
	tb   TB
	file string // opens to the namespace
	mark string // marks processes as the engine's
	env  []string
}

const netnsDir = "/run/netns"

// createNetns makes a named namespace with its loopback up. It does what `ip netns
// add` does, but does not turn /run/netns into a permanent mount.
func createNetns(name string) error {
	path := filepath.Join(netnsDir, name)
	if err := createFile(path); err != nil {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("create namespace %s: %w", name, err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("name namespace %s: %w", name, err)
		}
		return linkUp("lo")
	})
}

func createFile(path string) error {
	for try := 1; ; try++ {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
		if err == nil {
			return file.Close()
		}
		// The last engine of another run may be removing the directory at this moment.
		if !errors.Is(err, fs.ErrNotExist) || try == 10 {
			return err
		}
	}
}

// Do runs f on a thread that is in the namespace. Goroutines that f starts are
// not in it, sockets that it opens stay in it.
func (n Netns) Do(f func() error) error {
	return onOwnThread(func() error {
		fd, err := unix.Open(n.file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open namespace %s: %w", n.file, err)
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.file, err)
		}
		return f()
	})
}

// onOwnThread runs f on a thread that returns to this process's namespace
// afterwards, or is thrown away when it cannot.
func onOwnThread(f func() error) error {
	// The thread's own file, not /proc/self's: that is the main thread's.
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open own namespace: %w", err)
	}
	defer unix.Close(home)
	result := errors.New("it ended its goroutine")
	var panicked any
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(done)
		defer func() {
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		defer func() { panicked = recover() }()
		result = f()
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return result
}

// Command returns a command that will run in the namespace.
func (n Netns) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// Not `ip netns exec`: it remounts /sys and hides the cgroups.
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.file, "--", name}, args...)...)
	cmd.Env = append(append(os.Environ(), n.env...), n.mark)
	return cmd
}
