package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse says that another agent lives at the socket.
var ErrInUse = errors.New("stop it first (systemctl stop netguard), there can be one on a host")

const (
	dirMode    = 0o755
	socketMode = 0o660
	lockMode   = 0o600
)

// place is the control socket, held so that no other agent takes it. The lock file beside it
// decides who has the socket. Without the lock, an agent would look whether somebody answers,
// then remove the file and bind. Two agents that start together would then remove each other's
// socket.
type place struct {
	net.Listener
	socket string
	made   os.FileInfo
	lock   *os.File
}

// listen takes the socket. What a dead agent left there is removed.
func listen(socket string) (*place, error) {
	if err := makeDir(filepath.Dir(socket)); err != nil {
		return nil, fmt.Errorf("make directory of control socket: %w", err)
	}
	lock, err := claim(socket)
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	p := &place{socket: socket, lock: lock}
	if err := p.bind(); err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", errors.Join(err, p.unlock()))
	}
	return p, nil
}

// makeDir makes the directory if it does not exist. It does not change the mode of an existing
// one.
func makeDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), dirMode); err != nil {
		return err
	}
	if err := os.Mkdir(dir, dirMode); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return os.Chmod(dir, dirMode) // whatever the umask took away
}

// claim locks the file beside the socket.
func claim(socket string) (*os.File, error) {
	name := socket + ".lock"
	for range 100 {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, lockMode)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			defer f.Close()
			return nil, taken(socket, f)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		// The agent before may have removed the file between our open and our lock. Then nobody
		// else will ever see this lock, so try again.
		if !isAt(f, name) {
			f.Close()
			continue
		}
		if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
			f.Close()
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		return f, nil
	}
	return nil, fmt.Errorf("lock %s: it is removed again and again: who does that?", name)
}

func writePID(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func isAt(f *os.File, name string) bool {
	held, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(name)
	return err == nil && os.SameFile(held, there)
}

// taken says which process has the lock, and whether it answers.
func taken(socket string, lock *os.File) error {
	pid, answers := listener(socket)
	if !answers {
		text, err := io.ReadAll(io.NewSectionReader(lock, 0, 32))
		if err == nil {
			pid, _ = strconv.Atoi(string(bytes.TrimSpace(text)))
		}
	}
	who := "another netguard agent"
	if pid > 0 {
		who += fmt.Sprintf(" (pid %d)", pid)
	}
	if answers {
		return fmt.Errorf("%s answers at %s: %w", who, socket, ErrInUse)
	}
	return fmt.Errorf("%s holds %s.lock and does not answer (it starts, stops or hangs): %w", who, socket, ErrInUse)
}

// listener tells whether somebody listens at the socket, and who.
func listener(socket string) (pid int, answers bool) {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		// EAGAIN is a full backlog, so a living process listens.
		return 0, errors.Is(err, unix.EAGAIN)
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, true
	}
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid, true
}

// bind makes the socket. The lock is held.
func (p *place) bind() error {
	info, err := os.Lstat(p.socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket: remove it, or name another place with --socket", p.socket)
	default:
		// An agent may live here without the lock, if somebody removed the lock's file.
		if pid, answers := listener(p.socket); answers {
			return fmt.Errorf("a process (pid %d) without a lock answers at %s: %w", pid, p.socket, ErrInUse)
		}
		if err := os.Remove(p.socket); err != nil {
			return err
		}
	}
	// bind(2) gives the file the mode of the descriptor, less the umask. So there is no moment
	// in which anybody may connect.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), socketMode) })
		return errors.Join(err, failed)
	}}
	l, err := config.Listen(context.Background(), "unix", p.socket)
	if err != nil {
		return err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it would not look whose file it is
	p.Listener = l
	if err = os.Chmod(p.socket, socketMode); err == nil { // what the umask took away
		p.made, err = os.Lstat(p.socket)
	}
	if err != nil {
		l.Close()
		os.Remove(p.socket)
		return err
	}
	return nil
}

// release gives the socket back: it removes the socket's file, then the lock's.
func (p *place) release() error {
	p.Listener.Close() // http.Server may have
	var failed error
	if there, err := os.Lstat(p.socket); err == nil && os.SameFile(there, p.made) {
		failed = os.Remove(p.socket)
	}
	if err := errors.Join(failed, p.unlock()); err != nil {
		return fmt.Errorf("remove control socket: %w", err)
	}
	return nil
}

func (p *place) unlock() error {
	defer p.lock.Close()
	if !isAt(p.lock, p.lock.Name()) {
		return nil
	}
	// Remove it while it is locked: a process that opened it meanwhile sees that it is gone.
	return os.Remove(p.lock.Name())
}
