package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// rudeness is a way in which a client of the control socket behaves badly. It
// returns when the agent has had enough of it, or when ctx ends.
type rudeness func(ctx context.Context, conn net.Conn)

var rude = map[string]rudeness{
	"it_says_nothing": func(ctx context.Context, conn net.Conn) { ended(ctx, conn) },
	"it_speaks_slowly": func(ctx context.Context, conn net.Conn) {
		for _, b := range []byte("GET /v1/status HTTP/1.1\r\nHost: " + strings.Repeat("x", 1000)) {
			if _, err := conn.Write([]byte{b}); err != nil {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond): // that is what is slow about it
			}
		}
	},
	"it_never_reads_its_answer": func(ctx context.Context, conn net.Conn) {
		_, _ = io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n") // it may be refused
		ended(ctx, conn)
	},
	"it_never_reads_events": func(ctx context.Context, conn net.Conn) {
		_, _ = io.WriteString(conn, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n") // it may be refused
		ended(ctx, conn)
	},
	"it_sends_a_body_without_end": func(_ context.Context, conn net.Conn) {
		_, err := io.WriteString(conn, "POST /v1/policy/plan HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		chunk := "10000\r\n" + strings.Repeat("x", 0x10000) + "\r\n"
		for err == nil {
			_, err = io.WriteString(conn, chunk)
		}
	},
	"it_promises_a_body": func(ctx context.Context, conn net.Conn) {
		_, _ = io.WriteString(conn, "POST /v1/policy/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n{") // it may be refused
		ended(ctx, conn)
	},
	"it_sends_headers_without_end": func(_ context.Context, conn net.Conn) {
		_, err := io.WriteString(conn, "GET /v1/status HTTP/1.1\r\n")
		for err == nil {
			_, err = io.WriteString(conn, "X: "+strings.Repeat("x", 4096)+"\r\n")
		}
	},
	"it_speaks_no_HTTP": func(ctx context.Context, conn net.Conn) {
		_, _ = io.WriteString(conn, strings.Repeat("\x16\x03\x01\x00", 1000)) // it may be refused
		ended(ctx, conn)
	},
	"it_hangs_up": func(_ context.Context, conn net.Conn) {
		_, _ = io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n") // it may be refused
	},
}

// ended waits, without reading much, until the other side has closed.
func ended(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	for one := make([]byte, 1); ; {
		if _, err := conn.Read(one); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second): // a byte a second is not reading
		}
	}
}

// TestStormOfClients has a thousand clients behave badly at the control socket,
// while containers come and one of them violates.
func TestStormOfClients(t *testing.T) {
	t.Parallel()
	e := Start(t)
	a := e.Agent(AgentFlags("--metrics", stormMetrics))
	e.Network("net", Subnet("198.18.91.0/24"))
	client := control.NewClient(a.Socket)
	liar := enter(t, e.Run("liar", On("net")), "net")
	a.AwaitEndpoint(liar.Container, "net", control.Admitted)
	before := holdingOf(t, e, a)

	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var refused atomic.Int64
	for range 1000 / len(rude) {
		for _, f := range rude {
			all.Go(func() {
				conn, err := net.Dial("unix", a.Socket)
				if err != nil {
					refused.Add(1) // the backlog is full
					return
				}
				defer conn.Close()
				f(ctx, conn)
			})
		}
	}
	flood := make(chan struct{})
	all.Go(func() { // events for those who do not read them
		frames := make([][]byte, 50)
		for i := range frames {
			frames[i] = announcing(liar.MAC, e.ExistingNetwork("net").Gateway4)
		}
		for {
			select {
			case <-flood:
				return
			case <-time.After(100 * time.Millisecond): // paced, the machine has other things to do
			}
			if err := liar.port.Send(frames...); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 3 {
		began := time.Now()
		c := e.Run(fmt.Sprintf("c%d", i), On("net"), Label(egressRate, "10mbit"))
		for {
			s, err := client.Status(t.Context())
			if err == nil && limited(c, "net", 0, 10e6)(s) {
				break
			}
			if err != nil && !errors.Is(err, control.ErrUnreachable) {
				t.Fatal(err)
			}
			if time.Since(began) > 20*time.Second {
				t.Fatalf("%s is not admitted: %v", c.Name, err)
			}
		}
		t.Logf("%s was admitted after %v", c.Name, time.Since(began).Round(time.Millisecond))
		h := holdingOf(t, e, a)
		t.Logf("the agent holds %+v", h)
		// 32 connections, 8 watchers, 16 of metrics, and what a connection takes.
		if h.files > before.files+70 || h.goroutines > before.goroutines+250 || h.rss > before.rss+100 {
			t.Errorf("the agent held %+v and holds %+v", before, h)
		}
	}
	close(flood)
	cancel()
	all.Wait()
	t.Logf("%d were refused at the door", refused.Load())
	before.back(t, e, a)
}
