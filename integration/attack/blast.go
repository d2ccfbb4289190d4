package attack

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is the number of frames in one system call.
const batch = 64

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// Blast sends a frame as fast as it can for a time, many in one system call, and
// returns how many the kernel accepted.
func (p *Port) Blast(frame []byte, d time.Duration) (int, error) {
	part := unix.Iovec{Base: &frame[0]}
	part.SetLen(len(frame))
	messages := make([]message, batch)
	for i := range messages {
		messages[i].header.Iov = &part
		messages[i].header.SetIovlen(1)
	}
	total := 0
	for until := time.Now().Add(d); time.Now().Before(until); {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&messages[0])), batch, 0, 0, 0)
		switch {
		case errno == 0:
			total += int(n)
		case errors.Is(errno, unix.EAGAIN), errors.Is(errno, unix.ENOBUFS), errors.Is(errno, unix.EINTR):
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLOUT}}, 10)
		default:
			return total, fmt.Errorf("send: %w", errno)
		}
	}
	runtime.KeepAlive(&part)
	runtime.KeepAlive(frame)
	return total, nil
}
