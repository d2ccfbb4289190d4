package scale

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"netguard/integration/harness"
)

// answer echoes on the host until the test is over, in UDP and TCP.
func answer(b testing.TB, e *harness.Engine, port int) {
	b.Helper()
	var conn *net.UDPConn
	var listener *net.TCPListener
	err := e.Do(func() (err error) {
		if conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port}); err == nil {
			listener, err = net.ListenTCP("tcp4", &net.TCPAddr{Port: port})
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = conn.Close()
		_ = listener.Close()
	})
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	go func() {
		for buf := make([]byte, 64); ; {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(buf[:n], from) // who is not let through asks again
		}
	}()
}

// through asks until an answer comes, tells how long that took, and closes the socket.
func through(conn *net.UDPConn) (time.Duration, error) {
	defer conn.Close()
	began := time.Now()
	got := make(chan time.Time, 1)
	go func() {
		if _, err := conn.Read(make([]byte, 64)); err == nil {
			got <- time.Now()
		}
		close(got)
	}()
	tick := time.NewTicker(250 * time.Microsecond)
	defer tick.Stop()
	end := time.After(longest)
	for {
		_, _ = conn.Write([]byte("?")) // refused ones are asked again
		select {
		case at, ok := <-got:
			if !ok {
				return 0, errors.New("the socket ended before an answer came")
			}
			return at.Sub(began), nil
		case <-end:
			return 0, fmt.Errorf("no answer to %v within %v", conn.LocalAddr(), longest)
		case <-tick.C:
		}
	}
}

// watch sends a packet each millisecond until it is asked how many had no answer.
func watch(conn *net.UDPConn) (lost func() int) {
	stop, done := make(chan struct{}), make(chan struct{})
	sent, got := 0, 0
	go func() {
		defer close(done)
		for buf := make([]byte, 64); ; got++ {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	over := make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if _, err := conn.Write([]byte("?")); err == nil {
					sent++
				}
			}
		}
	}()
	return func() int {
		close(stop)
		<-over
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		<-done
		_ = conn.Close()
		return sent - got
	}
}
