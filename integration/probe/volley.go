package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// volley sends UDP to all addresses in turn, from its first instruction on, until the
// duration is over. To addresses with the prefix "syn/" it sends a TCP SYN. It sends as
// fast as it can at first, then some thousand rounds a second. It goes on after errors,
// and prints how many packets the kernel accepted.
func volley(ctx context.Context, args []string) error {
	a := arguments{rest: args}
	duration := a.duration("duration")
	var shots []func() error
	for first := true; first || len(a.rest) > 0; first = false {
		shots = append(shots, a.shot("address"))
	}
	if err := a.done(); err != nil {
		return err
	}
	begin := time.Now()
	var total blasted
	for ctx.Err() == nil && time.Since(begin) < duration {
		for _, shoot := range shots {
			if err := shoot(); err != nil {
				total.Errors++
				total.Error = err.Error()
				continue
			}
			total.Packets++
		}
		if time.Since(begin) > 20*time.Millisecond {
			time.Sleep(200 * time.Microsecond)
		}
	}
	total.Seconds = time.Since(begin).Seconds()
	print(total)
	return nil
}

// shot reads an address, and returns a function that sends one packet there.
func (a *arguments) shot(name string) func() error {
	text := a.text(name)
	if addr, ok := strings.CutPrefix(text, "syn/"); ok {
		to, err := netip.ParseAddrPort(addr)
		if err != nil && a.err == nil {
			a.err = fmt.Errorf("%w: %s: %w", errUsage, name, err)
		}
		return func() error { return sendSYN(to) }
	}
	var conn net.Conn
	return func() (err error) {
		if conn == nil {
			if conn, err = net.Dial("udp", text); err != nil {
				return err
			}
		}
		_, err = conn.Write([]byte("volley"))
		return err
	}
}

// sendSYN begins a TCP connection and abandons it.
func sendSYN(to netip.AddrPort) error {
	family, addr := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port())})
	if to.Addr().Is4() {
		addr.(*unix.SockaddrInet4).Addr = to.Addr().As4()
	} else {
		family, addr = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, addr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	return nil
}
