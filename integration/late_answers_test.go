package integration

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "netguard/integration/harness"
)

// TestLateAnswers: a server by UDP takes its time, so answers are on their way when a policy
// comes in force. They do not let the clients go on, though the server may open connections to them.
func TestLateAnswers(t *testing.T) {
	t.Parallel()
	const (
		answersAfter = 150 * time.Millisecond
		asksEvery    = 40 * time.Millisecond
		clients      = 4
	)
	e := Start(t)
	e.Network("net", Subnet("198.18.51.0/24"))
	ann, bob := welcome(t, e, "ann", "net", nil), welcome(t, e, "bob", "net", nil)
	book := newRulebook(e, e.Agent())
	book.awaitAdmitted(t, 2)
	var server net.PacketConn
	if err := bob.at.Do(func() (err error) {
		server, err = net.ListenPacket("udp", bob.Addr("net", 53))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64 // when the last question came
	var pending sync.WaitGroup
	pending.Go(func() {
		for b := make([]byte, 1); ; {
			_, from, err := server.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // an ICMP error
			}
			asked.Store(time.Now().UnixNano())
			time.AfterFunc(answersAfter, func() { _, _ = server.WriteTo(b, from) })
		}
	})
	t.Cleanup(pending.Wait)
	t.Cleanup(func() { _ = server.Close() })
	answered := make(chan struct{}, clients)
	for i := range clients {
		var client net.Conn
		if err := ann.at.Do(func() (err error) {
			client, err = net.Dial("udp", bob.Addr("net", 53))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		pending.Go(func() {
			time.Sleep(time.Duration(i) * asksEvery / clients) // their questions come in turns
			for {
				if _, err := client.Write([]byte{1}); errors.Is(err, net.ErrClosed) {
					return
				}
				time.Sleep(asksEvery) // its pace is what makes answers be on their way
			}
		})
		pending.Go(func() {
			if n, _ := client.Read(make([]byte, 1)); n == 1 {
				answered <- struct{}{}
			}
		})
		t.Cleanup(func() { _ = client.Close() })
	}
	for range clients { // from now on answers are on their way all the time
		select {
		case <-answered:
		case <-time.After(10 * time.Second):
			t.Fatal("no answer comes")
		}
	}
	book.enact(t, map[string]string{"ann.yaml": "{name: ann, select: {container: ann}, deny: [{egress: {to: [{container: bob}], ports: [udp]}}]}\n"})
	since := time.Now()
	time.Sleep(stopsWithin + restsFor) // nothing must come at the end of this time
	if late := time.Unix(0, asked.Load()).Sub(since); late > stopsWithin {
		t.Errorf("questions come in %v after the policy that denies them", late)
	}
}
