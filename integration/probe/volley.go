package main

import (
	"context"
	"net"
	"time"
)

// volley sends UDP to all addresses in turn from its first instruction on, until
// the duration is over: flat out at first, then some thousand rounds a second. It
// goes on after errors, and prints how many packets the kernel took.
func volley(ctx context.Context, args []string) error {
	a := arguments{rest: args}
	duration := a.duration("duration")
	addrs := []string{a.text("address")}
	for len(a.rest) > 0 {
		addrs = append(addrs, a.text("address"))
	}
	if err := a.done(); err != nil {
		return err
	}
	begin := time.Now()
	var total blasted
	conns := make([]net.Conn, len(addrs))
	for ctx.Err() == nil && time.Since(begin) < duration {
		for i, addr := range addrs {
			err := error(nil)
			if conns[i] == nil {
				conns[i], err = net.Dial("udp", addr)
			}
			if err == nil {
				_, err = conns[i].Write([]byte("volley"))
			}
			if err != nil {
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
