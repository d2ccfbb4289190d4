package main

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

// attempt is the outcome of one try to reach a server.
type attempt struct {
	// Result is answered, accepted (connected, but no answer), refused,
	// unreachable, timeout or error.
	Result string  `json:"result"`
	Error  string  `json:"error,omitempty"`
	Local  string  `json:"local,omitempty"`
	TookMS float64 `json:"took_ms"`
}

// connect tries once to get an answer from an echo server, and exits with 0 if
// it did. A UDP request is sent again every 100 ms: the first one may have
// been lost during address resolution.
func connect(ctx context.Context, args []string) error {
	a := arguments{rest: args}
	protocol, addr := a.oneOf("protocol", "tcp", "udp"), a.text("address")
	timeout := a.duration("timeout", 2*time.Second)
	if err := a.done(); err != nil {
		return err
	}
	begin := time.Now()
	got := try(ctx, protocol, addr, begin.Add(timeout))
	got.TookMS = ms(time.Since(begin))
	print(got)
	if got.Result != "answered" {
		return errNo
	}
	return nil
}

func try(ctx context.Context, protocol, addr string, deadline time.Time) attempt {
	d := net.Dialer{Deadline: deadline}
	conn, err := d.DialContext(ctx, protocol, addr)
	if err != nil {
		return attempt{Result: kind(err), Error: err.Error()}
	}
	defer conn.Close()
	local := conn.LocalAddr().String()
	conn.SetDeadline(deadline)
	if protocol == "tcp" {
		if err = exchange(conn); err == nil {
			return attempt{Result: "answered", Local: local}
		}
		return attempt{Result: "accepted", Error: err.Error(), Local: local}
	}
	for {
		again := time.Now().Add(100 * time.Millisecond)
		if again.After(deadline) {
			again = deadline
		}
		conn.SetReadDeadline(again)
		if err = exchange(conn); err == nil {
			return attempt{Result: "answered", Local: local}
		}
		if !errors.Is(err, syscall.ECONNREFUSED) && time.Now().Before(deadline) && ctx.Err() == nil {
			time.Sleep(time.Until(again)) // an error came sooner than the next request is due
			continue
		}
		return attempt{Result: kind(err), Error: err.Error(), Local: local}
	}
}

// exchange sends a word and reads it back.
func exchange(conn net.Conn) error {
	const word = "who is there?"
	if _, err := conn.Write([]byte(word)); err != nil {
		return err
	}
	buf := make([]byte, len(word))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return err
	}
	if string(buf) != word {
		return errors.New("the answer is not the question's echo")
	}
	return nil
}

// kind classifies an error of the network.
func kind(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EACCES),
		errors.Is(err, syscall.EPERM):
		return "unreachable"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return "error"
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
