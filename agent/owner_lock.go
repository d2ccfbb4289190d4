package agent

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"netguard/agent/control"
)

// ownerLock is the address of the owner lock. It belongs to the network namespace and to no
// file system. So two agents on a host meet here even if their control sockets differ. The
// address is free again when its process dies.
const ownerLock = "@netguard/agent"

// lockOwner takes the owner lock. Until the caller closes it, no other agent can work in this
// network namespace. The error is control.ErrInUse if another agent has the lock. Any user can
// take the address, so only a process of root counts as an agent.
func lockOwner(log *slog.Logger) (io.Closer, error) {
	held, err := net.Listen("unix", ownerLock)
	if err == nil {
		return held, nil
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("look for another agent: %w", err)
	}
	who, err := whose()
	switch {
	case err != nil:
		return nil, fmt.Errorf("another netguard agent works in this network namespace (%w): %w", err, control.ErrInUse)
	case who.Uid != 0:
		log.Warn("a process that is not root's pretends to be an agent", "pid", who.Pid, "uid", who.Uid)
		return io.NopCloser(nil), nil
	}
	return nil, fmt.Errorf("another netguard agent (pid %d) works in this network namespace, with another control socket: %w", who.Pid, control.ErrInUse)
}

// whose asks the kernel who has the address.
func whose() (*unix.Ucred, error) {
	conn, err := net.DialTimeout("unix", ownerLock, time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var who *unix.Ucred
	var asked error
	err = raw.Control(func(fd uintptr) { who, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return who, errors.Join(err, asked)
}
