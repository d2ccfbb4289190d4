package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// mailbox is a UDP socket on the host that notes when something arrives.
type mailbox struct {
	mu          sync.Mutex
	count       int
	first, last time.Time
}

func newMailbox(t *testing.T, e *Engine, port int) *mailbox {
	t.Helper()
	var c net.PacketConn
	err := e.Do(func() (err error) {
		c, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	m := &mailbox{}
	go func() {
		buf := make([]byte, 2048)
		for {
			if _, _, err := c.ReadFrom(buf); err != nil {
				return
			}
			m.mu.Lock()
			m.last = time.Now()
			if m.count++; m.count == 1 {
				m.first = m.last
			}
			m.mu.Unlock()
		}
	}()
	return m
}

// take returns what arrived since the last call: how many, and for how long.
func (m *mailbox) take() (int, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, open := m.count, m.last.Sub(m.first)
	m.count = 0
	return n, open
}

// A container that dockerd starts again before it answers anybody sends from its
// first instruction on what a policy forbids.
func TestBoot(t *testing.T) {
	t.Parallel()
	e := Start(t)
	a := e.Agent(Policy("hasty.yaml", "{name: hasty, select: {container: hasty}, egress: []}\n"))
	bridge := e.Network("net", Subnet("198.18.51.0/24")).Bridge
	box := newMailbox(t, e, 7100)
	hasty := e.Run("hasty", On("net"), Restarting("always"), Doing("blast", "udp", "198.18.51.1:7100", "10m"))
	admitted := func(s control.Status) bool {
		ep, ok := Endpoint(s, hasty, "net")
		return ok && Whole(ep) && s.InSync
	}
	a.AwaitStatus("it is admitted", admitted)
	box.take()
	// reboot leaves nothing in the kernel, and what is on the disk.
	reboot := func() {
		kept := filepath.Join(e.Dir(), "state", "networks.json")
		e.Output("cp", kept, kept+".kept")
		if r := a.CLI("cleanup"); !r.OK() {
			t.Fatalf("clean up: %s", r)
		}
		a.Process().Wait()
		if _, err := os.Stat(kept); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("cleanup left %s: %v", kept, err)
		}
		e.Output("mv", kept+".kept", kept)
		for _, command := range []string{"ip link del " + bridge, "ip link del docker0", "nft flush ruleset"} {
			e.Output("sh", "-c", command)
		}
	}
	for _, c := range []struct {
		name          string
		before, after func()
	}{
		{"the_agent_runs_throughout", func() {}, func() {}},
		{"the_agent_is_killed_and_comes_later", func() { a.Kill() }, func() { a.Start() }},
		{"the_agent_starts_first_after_a_boot", func() { reboot(); a.Start() }, func() {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.StopDaemon()
			c.before()
			box.take()
			e.StartDaemon()
			if n, open := box.take(); n > 0 {
				t.Errorf("%d packets arrived before dockerd answered, in %v", n, open)
			}
			hasty.For(t).PID() // it runs
			c.after()
			a.For(t).AwaitStatus("it is admitted", admitted)
			if n, open := box.take(); n > 0 {
				t.Errorf("%d packets arrived before it was admitted, in %v\nthe agent's log:\n%s", n, open, a.Log())
			}
		})
	}
}
