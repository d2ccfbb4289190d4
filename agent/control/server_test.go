package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(envVictim); socket != "" {
		victim(socket)
	}
	goleak.VerifyTestMain(m)
}

// source is a Source whose answer the test decides.
type source func(context.Context) (Status, error)

func (f source) Status(ctx context.Context) (Status, error) { return f(ctx) }

func always(s Status) source {
	return func(context.Context) (Status, error) { return s, nil }
}

var shop = Status{
	Mode: "enforce", InSync: true,
	Endpoints: []Endpoint{
		{Container: "shop-web-1", ID: "aa11", Network: "front", SharedBy: []string{"sidecar"}, State: Admitted},
		{Container: "shop-db-1", ID: "bb22", Network: "back", State: Admitted},
		{Container: "shop-db-1", ID: "bb22", Network: "admin", State: Quarantined},
		{Container: "aa", ID: "cc33", Network: "back", State: Admitted},
	},
}

// start serves at a socket of its own until the test ends.
func start(t *testing.T, src Source, change ...func(*Server)) *Server {
	t.Helper()
	s := NewServer(filepath.Join(t.TempDir(), "run", "ng.sock"), src, "v1.2.3", slog.New(slog.DiscardHandler))
	for _, c := range change {
		c(s)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("serve ended with %v", err)
		}
		if left, _ := os.ReadDir(filepath.Dir(s.socket)); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	select {
	case <-s.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return s
}

// dial opens a connection that the test speaks on itself.
func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// awaitHangUp waits, without reading, until the other side has closed.
func awaitHangUp(t *testing.T, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}, 10_000)
		if n != 1 || err != nil {
			t.Error("the connection is not closed", err)
		}
	})
}

func ask(t *testing.T, s *Server, method, path string) (int, map[string]any) {
	t.Helper()
	conn := dial(t, s)
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method, path)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body map[string]any
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body
}

func TestServer(t *testing.T) {
	t.Run("empty_lists_are_not_null", func(t *testing.T) {
		s := start(t, always(Status{}))
		code, body := ask(t, s, "GET", "/v1/status")
		if code != 200 || body["endpoints"] == nil || body["findings"] == nil {
			t.Errorf("%d %v", code, body)
		}
	})
	t.Run("tells_its_version", func(t *testing.T) {
		v, err := NewClient(start(t, always(shop)).socket).Version(t.Context())
		if err != nil || v.Version != "v1.2.3" {
			t.Errorf("%v, %v", v, err)
		}
	})
	t.Run("refuses_what_it_does_not_know_in_JSON", func(t *testing.T) {
		s := start(t, always(shop))
		for _, request := range [][2]string{{"GET", "/v9/x"}, {"POST", "/v1/status"}, {"GET", "/"}} {
			code, body := ask(t, s, request[0], request[1])
			if code != 404 || body["code"] != codeUnknownRequest {
				t.Errorf("%v: %d %v", request, code, body)
			}
		}
	})
	t.Run("passes_on_the_source's_fault", func(t *testing.T) {
		s := start(t, source(func(context.Context) (Status, error) { return Status{}, errors.New("netlink is gone") }))
		_, err := NewClient(s.socket).Status(t.Context())
		if err == nil || errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "netlink is gone") {
			t.Error(err)
		}
	})
	t.Run("bounds_the_time_of_the_source", func(t *testing.T) {
		s := start(t, source(func(ctx context.Context) (Status, error) {
			<-ctx.Done()
			return Status{}, ctx.Err()
		}), func(s *Server) { s.timeouts.source = 20 * time.Millisecond })
		code, body := ask(t, s, "GET", "/v1/status")
		if code != 500 || body["code"] != codeFailed {
			t.Errorf("%d %v", code, body)
		}
	})
	t.Run("lets_few_read_the_kernel_at_a_time", func(t *testing.T) {
		var now, most atomic.Int32
		full, free := make(chan struct{}, 100), make(chan struct{})
		s := start(t, source(func(context.Context) (Status, error) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			full <- struct{}{}
			<-free
			return shop, nil
		}))
		const askers = 3 * maxReading
		answers := make(chan error, askers)
		for range askers {
			go func() {
				_, err := NewClient(s.socket).Status(context.Background())
				answers <- err
			}()
		}
		for range maxReading {
			<-full
		}
		close(free)
		for range askers {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		if most.Load() != maxReading {
			t.Errorf("%d at a time", most.Load())
		}
	})
	t.Run("bounds_the_header", func(t *testing.T) {
		s := start(t, always(shop))
		conn := dial(t, s)
		go fmt.Fprintf(conn, "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 4*maxHeader))
		line, _ := bufio.NewReader(conn).ReadString('\n')
		if !strings.Contains(line, "431") {
			t.Error(line)
		}
	})
}

func TestServer_with_bad_clients(t *testing.T) {
	many := Status{Endpoints: make([]Endpoint, 20000)} // 10 MB of JSON, a socket holds 200 kB
	t.Run("one_that_never_reads_is_cut_off_and_blocks_nobody", func(t *testing.T) {
		s := start(t, always(many), func(s *Server) { s.timeouts.reply = 100 * time.Millisecond })
		conn := dial(t, s)
		io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := conn.Read(make([]byte, 1)); err != nil { // its answer is on the way
			t.Fatal(err)
		}
		if _, err := NewClient(s.socket).Version(t.Context()); err != nil {
			t.Error(err)
		}
		awaitHangUp(t, conn)
		rest, _ := io.Copy(io.Discard, conn)
		if rest > 1<<20 {
			t.Errorf("%d bytes were kept for it", rest)
		}
	})
	t.Run("a_silent_one_is_cut_off", func(t *testing.T) {
		s := start(t, always(shop), func(s *Server) { s.timeouts.header = 20 * time.Millisecond })
		conn := dial(t, s)
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
	})
	t.Run("too_many_cost_the_oldest_its_place", func(t *testing.T) {
		s := start(t, always(shop))
		oldest := dial(t, s)
		for range 3 * maxConns {
			dial(t, s)
		}
		if _, err := oldest.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		if got, err := NewClient(s.socket).Status(t.Context()); err != nil || len(got.Endpoints) != len(shop.Endpoints) {
			t.Errorf("%v, %v", got, err)
		}
	})
	t.Run("one_that_leaves_ends_the_reading", func(t *testing.T) {
		began, ended := make(chan struct{}), make(chan struct{})
		s := start(t, source(func(ctx context.Context) (Status, error) {
			close(began)
			<-ctx.Done()
			close(ended)
			return Status{}, ctx.Err()
		}))
		conn := dial(t, s)
		io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
		<-began
		conn.Close()
		<-ended
	})
}
