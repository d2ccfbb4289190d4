package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
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

// way out is where a container sends, and where it is counted.
type wayOut struct {
	name     string
	in       Netns
	protocol string // of the probe's sink
	at, to   string
	sink     *Process
}

// leak is a network where containers send from their first instruction to whom they
// may, and to whom they may not.
type leak struct {
	e       *Engine
	a       *Agent
	allowed *wayOut
	// forbidden are ways from the network, anew those from networks that are new.
	forbidden, anew []*wayOut
	number          int
	near            map[string]int64 // what neighbours on new networks got
}

func newLeak(t *testing.T, config string) *leak {
	t.Helper()
	l := &leak{e: Start(t, WithOutside(), WithIPv6()), near: map[string]int64{}}
	// Nothing of what is sent to all shall be lost for its number.
	l.a = l.e.Agent(Policy("hasty.yaml", hastyPolicy), Config("guard: {storm: 0}\n"+config))
	bridge := l.e.Network("net", Subnet("198.18.92.0/24"), Subnet("fd00:92::/64")).Bridge
	sink := l.e.Run("sink", On("net"), Publish("9009:9009/udp"), Publish("9010:9010/tcp"))
	l.a.AwaitEndpoint(sink, "net", control.Admitted)
	on := sink.Inspect().NetworkSettings.Networks["net"]
	gateway, gateway6, group6 := on.Gateway, on.IPv6Gateway, "[ff02::4242%"+sink.Interface("net")+"]:9008"
	udp := func(name string, in Netns, at, to string) *wayOut {
		return &wayOut{name: name, in: in, protocol: "udp", at: at, to: to}
	}
	syn := func(name string, in Netns, to string) *wayOut {
		return &wayOut{name: name, in: in, protocol: "syn", at: to, to: "syn/" + to}
	}
	at := func(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
	host, out := l.e.Netns, l.e.Outside.Netns
	// The kernel takes a second for the bridge's address to count.
	for until := deadline(); host.Output("ip", "-6", "address", "show", "dev", bridge, "tentative") != ""; {
		if time.Now().After(until) {
			t.Fatal("the bridge's address is tentative")
		}
		time.Sleep(10 * time.Millisecond) // nothing tells
	}
	l.allowed = udp("a neighbour, where it may", sink.Inside(), ":9001", sink.Addr("net", 9001))
	l.forbidden = []*wayOut{
		udp("a neighbour", sink.Inside(), ":9000", sink.Addr("net", 9000)),
		udp("a neighbour, IPv6", sink.Inside(), ":9002", sink.Addr6("net", 9002)),
		syn("a neighbour, TCP", sink.Inside(), sink.Addr("net", 9003)),
		syn("a neighbour, TCP over IPv6", sink.Inside(), sink.Addr6("net", 9004)),
		udp("all of the network", sink.Inside(), ":9005", "198.18.92.255:9005"),
		udp("all", sink.Inside(), ":9006", "255.255.255.255:9006"),
		udp("a group", sink.Inside(), "239.255.42.42:9007", "239.255.42.42:9007"),
		udp("a group, IPv6", sink.Inside(), group6, group6),
		udp("a neighbour's published port", sink.Inside(), ":9009", at(HostIPv4, 9009)),
		syn("a neighbour's published port, TCP", host, at(HostIPv4, 9010)),
		udp("the host on the bridge", host, ":9011", gateway+":9011"),
		udp("the host on the bridge, IPv6", host, ":9012", "["+gateway6+"]:9012"),
		syn("the host on the bridge, TCP", host, gateway+":9013"),
		syn("the host on the bridge, TCP over IPv6", host, "["+gateway6+"]:9014"),
		udp("the outside", out, ":9015", at(OutsideIPv4, 9015)),
		udp("the outside, IPv6", out, ":9016", at(OutsideIPv6, 9016)),
		syn("the outside, TCP", out, at(OutsideIPv4, 9017)),
	}
	l.anew = []*wayOut{
		udp("the host, from a new network", host, ":9018", at(HostIPv4, 9018)),
		syn("the host, from a new network, TCP", host, at(HostIPv4, 9019)),
		udp("the outside, from a new network", out, ":9020", at(OutsideIPv4, 9020)),
		udp("the outside, from a new network, IPv6", out, ":9021", at(OutsideIPv6, 9021)),
	}
	for _, w := range l.ways() {
		w.sink = w.in.SpawnProbe("sink", w.protocol, w.at)
	}
	for _, w := range l.ways() {
		w.sink.AwaitLine("sinking")
	}
	return l
}

func (l *leak) ways() []*wayOut { return slices.Concat(l.forbidden, l.anew, []*wayOut{l.allowed}) }

// volley sends for so long to some ways, and on.
func volley(lasts string, ways []*wayOut, more ...string) ContainerOption {
	to := []string{lasts}
	for _, w := range ways {
		to = append(to, w.to)
	}
	return Doing("volley", append(to, more...)...)
}

// create makes a container that is in a hurry.
func (l *leak) create(t *testing.T, name string) *Container {
	t.Helper()
	l.number++
	return l.e.For(t).Create(fmt.Sprintf("%s-%d", name, l.number), On("net"), volley("300ms", append(slices.Clone(l.forbidden), l.allowed)))
}

// sunk is what a sink counted.
func sunk(t *testing.T, said string) int64 {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(said), "\n")
	var total struct {
		Reads int64
		Total bool
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &total); err != nil || !total.Total {
		t.Fatalf("a sink said %q: %v", said, err)
	}
	return total.Reads
}

// arrivals are how many packets came, by way.
func (l *leak) arrivals(t *testing.T) (allowed int64, leaked map[string]int64) {
	t.Helper()
	leaked = maps.Clone(l.near)
	for _, w := range l.ways() {
		leaked[w.name] = sunk(t, w.sink.Stop().Stdout)
	}
	allowed = leaked[l.allowed.name]
	delete(leaked, l.allowed.name)
	return allowed, leaked
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

// nothingLeaks starts that many containers, half of them with a paused agent, and
// makes that many networks.
func nothingLeaks(t *testing.T, starts, networks int) {
	l := newLeak(t, "")
	l.together(t, starts/4, 1)
	l.together(t, starts/4, 8)
	l.paused(t, starts/2)
	l.afresh(t, networks/5, 1)
	l.afresh(t, networks-networks/5, 8)
	allowed, leaked := l.arrivals(t)
	t.Logf("%d packets of %d containers arrived where they may", allowed, starts)
	for name, count := range leaked {
		if count != 0 {
			t.Errorf("%d packets arrived at %s", count, name)
		}
	}
	if allowed < int64(starts) {
		t.Errorf("only %d packets of %d containers arrived where they may", allowed, starts)
	}
}

func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	nothingLeaks(t, 12, 5)
}

func TestSoakNothingLeaks(t *testing.T) {
	soaking(t)
	nothingLeaks(t, 500, 100)
}

// TestLeaks shows that each sink of TestNothingLeaks would count: with admission open
// and a paused agent packets leak.
func TestLeaks(t *testing.T) {
	t.Parallel()
	l := newLeak(t, "admission: open\n")
	l.a.AwaitStatus("admission is open", func(s control.Status) bool { return s.Admission == "open" })
	agent := l.a.Process()
	agent.Signal(syscall.SIGSTOP)
	l.together(t, 2, 2)
	l.afresh(t, 1, 1)
	agent.Signal(syscall.SIGCONT)
	_, leaked := l.arrivals(t)
	for name, count := range leaked {
		if count == 0 {
			t.Errorf("nothing arrived at %s: the test sees no leaks there", name)
		}
	}
}
