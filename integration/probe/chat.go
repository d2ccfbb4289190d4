package main

import (
	"context"
	"net"
	"time"
)

// said is one exchange of a chat.
type said struct {
	N     int     `json:"n"`
	RTTMS float64 `json:"rtt_ms"`
	Error string  `json:"error,omitempty"`
}

// chat keeps one connection to an echo server and talks on it every interval,
// a line for each answer, until an answer takes longer than the timeout
// (exit code 1) or it is ended.
func chat(ctx context.Context, args []string) error {
	a := arguments{rest: args}
	protocol, addr := a.oneOf("protocol", "tcp", "udp"), a.text("address")
	interval, timeout := a.duration("interval", 50*time.Millisecond), a.duration("timeout", time.Second)
	if err := a.done(); err != nil {
		return err
	}
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(ctx, protocol, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := 1; ; n++ {
		begin := time.Now()
		conn.SetDeadline(begin.Add(timeout))
		err := exchange(conn)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			print(said{N: n, RTTMS: ms(time.Since(begin)), Error: err.Error()})
			return errNo
		}
		print(said{N: n, RTTMS: ms(time.Since(begin))})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
