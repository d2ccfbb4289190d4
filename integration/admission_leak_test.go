package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// hasty containers may send to one port of one neighbour, and nowhere else.
const hastyPolicy = `name: hasty
select: {container: hasty-*}
egress:
  - to: [{container: sink}]
    ports: [udp/9001]
`

// leak is a network where containers send from their first instruction to whom they
// may, and to whom they may not.
type leak struct {
	e    *Engine
	a    *Agent
	sink *Container
	// Where it may send to, where not, and where nobody may be reached by it.
	allowed, forbidden, outside *Process
	to                          []string
	number                      int
}

func newLeak(t *testing.T, config string) *leak {
	t.Helper()
	l := &leak{e: Start(t, WithOutside())}
	l.a = l.e.Agent(Policy("hasty.yaml", hastyPolicy), Config(config))
	l.e.Network("net", Subnet("198.18.92.0/24"))
	l.sink = l.e.Run("sink", On("net"))
	l.a.AwaitEndpoint(l.sink, "net", control.Admitted)
	listen := func(in Netns, at string) *Process {
		p := in.SpawnProbe("sink", "udp", at)
		p.AwaitLine("sinking")
		return p
	}
	l.allowed, l.forbidden = listen(l.sink.Inside(), ":9001"), listen(l.sink.Inside(), ":9000")
	l.outside = listen(l.e.Outside.Netns, ":9000")
	l.to = []string{l.sink.Addr("net", 9000), netip.AddrPortFrom(OutsideIPv4, 9000).String(), l.sink.Addr("net", 9001)}
	return l
}

// create makes a container that is in a hurry.
func (l *leak) create(t *testing.T, name string) *Container {
	t.Helper()
	l.number++
	return l.e.For(t).Create(fmt.Sprintf("%s-%d", name, l.number), On("net"), Doing("volley", append([]string{"300ms"}, l.to...)...))
}

// arrivals are how many packets came to each of the three.
func (l *leak) arrivals(t *testing.T) (allowed, forbidden, outside int64) {
	t.Helper()
	count := func(p *Process) int64 {
		var total struct{ Reads int64 }
		if err := p.Stop().Into(&total); err != nil {
			t.Fatal(err)
		}
		return total.Reads
	}
	return count(l.allowed), count(l.forbidden), count(l.outside)
}

// together starts containers, some at a time.
func (l *leak) together(t *testing.T, starts, atATime int) {
	t.Helper()
	for ; starts > 0; starts -= atATime {
		var wg sync.WaitGroup
		var all []*Container
		for range min(starts, atATime) {
			all = append(all, l.create(t, "hasty"))
		}
		for _, c := range all {
			wg.Go(func() { l.start(t, c) })
		}
		wg.Wait()
		for _, c := range all {
			c.Wait()
			c.Remove()
		}
	}
}

func (l *leak) start(t *testing.T, c *Container) {
	if err := c.TryStart(t.Context()); err != nil {
		t.Errorf("start %s: %v", c.Name, err)
	}
}

// paused starts one container after the other, and stops the agent for a while: from
// before the start until it is over, at any moment of it, or within some milliseconds of when Docker
// tells of the connection.
func (l *leak) paused(t *testing.T, starts int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told, failed := l.e.Client.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", "network"), filters.Arg("event", "connect"))})
	agent := l.a.For(t).Process()
	for i := range starts {
		c := l.create(t, "hasty")
		if i%3 == 0 {
			agent.Signal(syscall.SIGSTOP)
		}
		var wg sync.WaitGroup
		wg.Go(func() { l.start(t, c) })
		switch i % 3 {
		case 1:
			time.Sleep(rand.N(250 * time.Millisecond)) // the moment is what is random
		case 2:
			select {
			case <-told:
			case err := <-failed:
				t.Fatal(err)
			}
			time.Sleep(rand.N(8 * time.Millisecond)) // as above, close to the event
		}
		agent.Signal(syscall.SIGSTOP)
		if i%3 == 0 {
			wg.Wait() // until its program runs
		}
		time.Sleep(20*time.Millisecond + rand.N(300*time.Millisecond)) // how long it is stuck is random too
		agent.Signal(syscall.SIGCONT)
		wg.Wait()
		c.Wait()
		c.Remove()
		for len(told) > 0 {
			<-told
		}
	}
}

// nothingLeaks starts that many containers, half of them with a paused agent.
func nothingLeaks(t *testing.T, starts int) {
	l := newLeak(t, "")
	l.together(t, starts/4, 1)
	l.together(t, starts/4, 8)
	l.paused(t, starts/2)
	allowed, forbidden, outside := l.arrivals(t)
	t.Logf("%d packets of %d containers arrived where they may", allowed, starts)
	if forbidden != 0 || outside != 0 {
		t.Errorf("%d packets arrived at a forbidden neighbour, %d outside", forbidden, outside)
	}
	if allowed < int64(starts) {
		t.Errorf("only %d packets of %d containers arrived where they may", allowed, starts)
	}
}

func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	nothingLeaks(t, 12)
}

func TestSoakNothingLeaks(t *testing.T) {
	soaking(t)
	nothingLeaks(t, 500)
}

// TestLeaks shows that the sinks of TestNothingLeaks would count: with admission open
// and a paused agent packets leak.
func TestLeaks(t *testing.T) {
	t.Parallel()
	l := newLeak(t, "admission: open\n")
	l.a.AwaitStatus("admission is open", func(s control.Status) bool { return s.Admission == "open" })
	agent := l.a.Process()
	agent.Signal(syscall.SIGSTOP)
	l.together(t, 2, 2)
	agent.Signal(syscall.SIGCONT)
	if _, forbidden, outside := l.arrivals(t); forbidden == 0 || outside == 0 {
		t.Errorf("%d packets arrived at a forbidden neighbour, %d outside: the test sees no leaks", forbidden, outside)
	}
}
