package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// frame sends and hears whole Ethernet frames:
//
//	frame send IFACE HEX [COUNT [INTERVAL]]   this frame
//	frame flood IFACE HEX DURATION            this frame, each time with a new source MAC
//	frame listen IFACE FILTER DURATION        incoming frames, in promiscuous mode
//
// IFACE is eth0 in most containers. HEX may hold blanks.
func frame(ctx context.Context, args []string) error {
	a := arguments{rest: args}
	switch a.oneOf("mode", "send", "flood", "listen") {
	case "send":
		return frameSend(ctx, &a)
	case "flood":
		return frameFlood(ctx, &a)
	case "listen":
		return frameListen(ctx, &a)
	}
	return a.err
}

type framesSent struct {
	Sent   int64  `json:"sent"`
	Errors int64  `json:"errors"`
	Error  string `json:"error,omitempty"` // the last one
}

func (f *framesSent) write(fd int, frame []byte) {
	if _, err := unix.Write(fd, frame); err != nil {
		f.Errors++
		f.Error = err.Error()
		return
	}
	f.Sent++
}

func frameSend(ctx context.Context, a *arguments) error {
	iface, data := a.text("interface"), a.frame()
	count, interval := a.number("count", 1), a.duration("interval", 0)
	if err := a.done(); err != nil {
		return err
	}
	fd, err := openPacket(iface, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var total framesSent
	for range count {
		total.write(fd, data)
		if interval > 0 {
			select {
			case <-time.After(interval):
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	print(total)
	if total.Sent == 0 {
		return errNo
	}
	return nil
}

func frameFlood(ctx context.Context, a *arguments) error {
	iface, data, duration := a.text("interface"), a.frame(), a.duration("duration")
	if err := a.done(); err != nil {
		return err
	}
	fd, err := openPacket(iface, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	var total framesSent
	for ctx.Err() == nil {
		rand.Read(data[6:12])
		data[6] = data[6]&0xfc | 0x02 // one host's, locally administered
		total.write(fd, data)
	}
	print(total)
	return nil
}

// frame reads a frame in hexadecimal.
func (a *arguments) frame() []byte {
	data, err := hex.DecodeString(strings.NewReplacer(" ", "", ":", "", "\n", "").Replace(a.text("frame")))
	if a.err == nil && err != nil {
		a.err = fmt.Errorf("%w: frame: %w", errUsage, err)
	}
	if a.err == nil && len(data) < 14 {
		a.err = fmt.Errorf("%w: a frame of %d bytes is shorter than its header, 14", errUsage, len(data))
	}
	return data
}

// openPacket opens a packet socket on an interface. With the protocol 0 it
// receives nothing.
func openPacket(iface string, protocol uint16) (int, error) {
	link, err := net.InterfaceByName(iface)
	if err != nil {
		return 0, fmt.Errorf("find interface %s: %w", iface, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open packet socket: %w", err)
	}
	addr := &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: link.Index}
	if err := unix.Bind(fd, addr); err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("bind packet socket to %s: %w", iface, err)
	}
	return fd, nil
}
