package main

import (
	"context"
	"net"
	"time"
)

type blasted struct {
	Bytes   int64   `json:"bytes"`
	Packets int64   `json:"packets"` // UDP only
	Errors  int64   `json:"errors"`
	Error   string  `json:"error,omitempty"` // the last one
	Seconds float64 `json:"seconds"`
}

// blast sends as fast as it can from its first instruction on, and prints how much
// the kernel accepted. After an error it tries again. So it also finds the first moment
// at which sending is possible.
func blast(ctx context.Context, args []string) error {
	a := arguments{rest: args}
	protocol, addr := a.oneOf("protocol", "tcp", "udp"), a.text("address")
	duration := a.duration("duration")
	size := 1400
	if protocol == "tcp" {
		size = 128 << 10
	}
	size = a.number("size", size)
	if err := a.done(); err != nil {
		return err
	}
	begin := time.Now()
	ctx, cancel := context.WithDeadline(ctx, begin.Add(duration))
	defer cancel()
	var total blasted
	note := func(err error) {
		total.Errors++
		total.Error = err.Error()
	}
	payload := make([]byte, size)
	for ctx.Err() == nil {
		d := net.Dialer{Timeout: 300 * time.Millisecond}
		conn, err := d.DialContext(ctx, protocol, addr)
		if err != nil {
			note(err)
			time.Sleep(time.Millisecond)
			continue
		}
		stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
		for ctx.Err() == nil {
			n, err := conn.Write(payload)
			total.Bytes += int64(n)
			if err == nil && protocol == "udp" {
				total.Packets++
			}
			if err != nil && ctx.Err() == nil {
				note(err)
				if protocol == "tcp" {
					break // the connection is gone
				}
			}
		}
		stop()
		conn.Close()
	}
	total.Seconds = time.Since(begin).Seconds()
	print(total)
	return nil
}
