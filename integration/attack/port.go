package attack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Port is a packet socket on an interface. It receives incoming frames from the moment
// when it is opened.
type Port struct {
	fd int
	// buf and oob are for Receive.
	buf, oob []byte
}

// Open opens a port in the calling thread's network namespace.
func Open(iface string) (*Port, error) {
	link, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", iface, err)
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind packet socket to %s: %w", iface, err)
	}
	// A large buffer for storms. Without CAP_NET_ADMIN the limit of net.core applies.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<20)
	}
	return &Port{fd: fd, buf: make([]byte, 1<<16), oob: make([]byte, 128)}, nil
}

// Close closes the port.
func (p *Port) Close() { _ = unix.Close(p.fd) }

// Send sends frames in order: the calling thread stays on one CPU meanwhile.
func (p *Port) Send(frames ...[]byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("read CPUs: %w", err)
	}
	for cpu := range 1024 {
		if before.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("stay on a CPU: %w", err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }()
	for _, f := range frames {
		if err := p.write(f); err != nil {
			return err
		}
	}
	return nil
}

func (p *Port) write(frame []byte) error {
	for {
		_, err := unix.Write(p.fd, frame)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLOUT}}, 100)
	}
}

// Receive returns the next frame that came in, without the VLAN tag that the
// kernel has taken out, or os.ErrDeadlineExceeded. The frame is valid until the
// next one.
func (p *Port) Receive(until time.Time) ([]byte, error) { return p.next(until, false) }

// next is the next frame that came in, or that left.
func (p *Port) next(until time.Time, left bool) ([]byte, error) {
	for {
		n, _, _, from, err := unix.Recvmsg(p.fd, p.buf, p.oob, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			wait := time.Until(until)
			if wait <= 0 {
				return nil, os.ErrDeadlineExceeded
			}
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(wait.Milliseconds())+1)
		case err != nil:
			return nil, fmt.Errorf("receive: %w", err)
		default:
			ll, ok := from.(*unix.SockaddrLinklayer)
			if outgoing := ok && ll.Pkttype == unix.PACKET_OUTGOING; outgoing == left {
				return p.buf[:n], nil
			}
		}
	}
}

// Hears counts the frames that contain a mark, until a frame with the last mark comes.
func (p *Port) Hears(mark, last []byte, until time.Time) (int, error) {
	for n := 0; ; {
		f, err := p.Receive(until)
		if err != nil {
			return n, err
		}
		if bytes.Contains(f, last) {
			return n, nil
		}
		if bytes.Contains(f, mark) {
			n++
		}
	}
}

// Drain discards received frames.
func (p *Port) Drain() {
	for {
		if _, err := p.Receive(time.Time{}); err != nil {
			return
		}
	}
}
