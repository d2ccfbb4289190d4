package httpd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves until the test ends it with stop.
func start(t *testing.T, conns int, handle http.HandlerFunc) (address string, stop func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, &http.Server{Handler: handle}, l, Bounds{Conns: conns, Stop: 20 * time.Millisecond})
	}()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { stop() })
	return l.Addr().String(), stop
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func ask(t *testing.T, address string) *http.Response {
	t.Helper()
	conn := dial(t, address)
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, conn) // until the server has closed it
	return response
}

func TestServe(t *testing.T) {
	hello := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }
	t.Run("closes_after_each_answer", func(t *testing.T) {
		address, _ := start(t, 2, hello)
		if r := ask(t, address); r.StatusCode != 200 || !r.Close {
			t.Errorf("%+v", r)
		}
	})
	t.Run("the_newest_takes_the_oldest's_place", func(t *testing.T) {
		address, _ := start(t, 2, hello)
		first, second := dial(t, address), dial(t, address)
		third := dial(t, address)
		if _, err := first.Read(make([]byte, 1)); err == nil {
			t.Error("the oldest is still open")
		}
		for _, conn := range []net.Conn{second, third} {
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("who_loses_his_place_is_waited_for_no_more", func(t *testing.T) {
		began, ended := make(chan struct{}), make(chan struct{})
		address, _ := start(t, 1, func(_ http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost { // its body never comes
				close(began)
				<-r.Context().Done()
				close(ended)
			}
		})
		fmt.Fprint(dial(t, address), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
		<-began
		ask(t, address)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("the handler of a connection that is closed goes on")
		}
	})
	t.Run("many_one_after_another_take_nobody's_place", func(t *testing.T) {
		address, _ := start(t, 2, hello)
		patient := dial(t, address)
		for range 20 {
			ask(t, address)
		}
		fmt.Fprint(patient, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(patient), nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("one_that_is_kept_gives_its_place_to_nobody_and_takes_none", func(t *testing.T) {
		kept := make(chan struct{})
		address, _ := start(t, 2, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/kept" {
				return
			}
			Keep(r.Context())
			Keep(r.Context()) // twice is once
			kept <- struct{}{}
			<-kept
			io.WriteString(w, "hello")
		})
		conn := dial(t, address)
		fmt.Fprint(conn, "GET /kept HTTP/1.1\r\nHost: x\r\n\r\n")
		<-kept
		first, second := dial(t, address), dial(t, address)
		ask(t, address) // it takes the place of the first
		if _, err := first.Read(make([]byte, 1)); err == nil {
			t.Error("it holds a place")
		}
		kept <- struct{}{}
		if r, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || r.StatusCode != 200 {
			t.Error(err)
		}
		fmt.Fprint(second, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(second), nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("returns_after_the_last_handler", func(t *testing.T) {
		began, ended := make(chan struct{}), false
		address, stop := start(t, 2, func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
			ended = true // a race unless Serve waits
		})
		fmt.Fprint(dial(t, address), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		<-began
		if err := stop(); !errors.Is(err, context.Canceled) || !ended {
			t.Error(err, ended)
		}
	})
	t.Run("does_not_wait_for_the_silent", func(t *testing.T) {
		address, stop := start(t, 2, hello)
		silent := dial(t, address)
		ask(t, address)
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := silent.Read(make([]byte, 1)); err == nil {
			t.Error("the silent one is still served")
		}
	})
	t.Run("a_listener_that_breaks_is_an_error", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		err = Serve(t.Context(), &http.Server{}, l, Bounds{Conns: 1})
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}
