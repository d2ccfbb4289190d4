package integration

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	. "netguard/integration/harness"
)

// clock notes when ports joined their bridge, and when they were admitted, as the
// kernel tells; and when Docker says that containers were connected.
type clock struct {
	mu        sync.Mutex
	joined    map[string]time.Time // by veth
	up        map[string]time.Time // both of its ends
	admitted  map[string]time.Time
	connected map[string]time.Time // by container ID
}

func newClock(b testing.TB, e *Engine) *clock {
	b.Helper()
	c := &clock{joined: map[string]time.Time{}, up: map[string]time.Time{}, admitted: map[string]time.Time{}, connected: map[string]time.Time{}}
	var conn *netlink.Conn
	err := e.Do(func() (err error) {
		if conn, err = netlink.Dial(unix.NETLINK_ROUTE, nil); err != nil {
			return err
		}
		if err := conn.SetReadBuffer(8 << 20); err != nil {
			return err
		}
		return conn.JoinGroup(unix.RTNLGRP_LINK)
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	told, _ := e.Client.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", "network"), filters.Arg("event", "connect"))})
	var over sync.WaitGroup
	over.Go(func() {
		for messages, err := conn.Receive(); err == nil; messages, err = conn.Receive() {
			c.links(time.Now(), messages)
		}
	})
	over.Go(func() {
		for {
			select {
			case m := <-told:
				c.mu.Lock()
				c.connected[m.Actor.Attributes["container"]] = time.Unix(0, m.TimeNano)
				c.mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	})
	b.Cleanup(func() {
		cancel()
		conn.Close()
		over.Wait()
	})
	return c
}

// links looks at what the bridge tells of its ports.
func (c *clock) links(now time.Time, messages []netlink.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		ofBridge, carrier := m.Data[0] == unix.AF_BRIDGE, binary.NativeEndian.Uint32(m.Data[8:])&unix.IFF_LOWER_UP != 0
		ad, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfInfomsg:])
		if err != nil {
			continue
		}
		name, port := "", map[uint16]bool{}
		for ad.Next() {
			switch ad.Type() {
			case unix.IFLA_IFNAME:
				name = ad.String()
			case unix.IFLA_PROTINFO:
				if !ofBridge {
					continue
				}
				ad.Nested(func(ad *netlink.AttributeDecoder) error {
					for ad.Next() {
						port[ad.Type()] = len(ad.Bytes()) == 1 && ad.Bytes()[0] != 0
					}
					return nil
				})
			}
		}
		if _, known := c.joined[name]; !known && len(port) > 0 {
			c.joined[name] = now
		}
		if _, known := c.up[name]; !known && carrier {
			c.up[name] = now
		}
		// The last thing that the guard does for a container.
		if _, known := c.admitted[name]; !known && port[unix.IFLA_BRPORT_LOCKED] && port[unix.IFLA_BRPORT_BCAST_FLOOD] {
			c.admitted[name] = now
		}
	}
}

// start is what was measured of one start, in milliseconds.
type start struct {
	// From Docker's word, or the kernel's that the port is there, or up, until it
	// was admitted.
	connect, join, up float64
	first             float64 // what the container's first connection took
	lost              bool    // its first SYN
}

var endpointLine = regexp.MustCompile(`msg=endpoint container=(\S+) network=\S+ veth=(\S+)`)

// measured puts together what is known of one start.
func (c *clock) measured(b testing.TB, a *Agent, q *Container) start {
	b.Helper()
	var got Reach
	if err := json.Unmarshal([]byte(strings.TrimSpace(q.Logs())), &got); err != nil {
		b.Fatalf("%s said %q: %v", q.Name, q.Logs(), err)
	}
	a.AwaitLog("msg=endpoint container=" + q.Name + " ")
	veth := ""
	for _, m := range endpointLine.FindAllStringSubmatch(a.Log(), -1) {
		if m[1] == q.Name {
			veth = m[2]
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	connected, joined, up, admitted := c.connected[q.ID], c.joined[veth], c.up[veth], c.admitted[veth]
	if connected.IsZero() || joined.IsZero() || up.IsZero() || admitted.IsZero() {
		b.Fatalf("%s: connected %v, joined %v, admitted %v", q.Name, connected, joined, admitted)
	}
	ms := func(from time.Time) float64 { return admitted.Sub(from).Seconds() * 1000 }
	// The kernel sends a SYN again after a second.
	return start{connect: ms(connected), join: ms(joined), up: ms(up), first: got.TookMS, lost: !got.Answered() || got.TookMS > 900}
}

// startsOfSoak is how many starts show that none loses its first packet.
const startsOfSoak = 500

// quickStage is where containers start that connect at once, and are measured.
type quickStage struct {
	e     *Engine
	a     *Agent
	c     *clock
	peer  string
	round int
}

func newQuickStage(b testing.TB) *quickStage {
	b.Helper()
	e := Start(b)
	q := &quickStage{e: e, a: e.Agent(Policy("quick.yaml", "name: quick\nselect: {container: quick-*}\negress:\n  - to: [{container: peer}]\n    ports: [tcp/80]\n"))}
	e.Network("net", Subnet("198.18.93.0/24"))
	q.peer = e.Run("peer", On("net"), Doing("serve", "tcp", ":80")).Addr("net", 80)
	q.a.AwaitStatus("the peer is admitted", AllAdmitted)
	q.c = newClock(b, e)
	return q
}

// starts runs containers whose first instruction connects to a neighbour, with both
// cores busy otherwise or not.
func (q *quickStage) starts(b testing.TB, count, atATime int, busy bool) []start {
	b.Helper()
	e := q.e.For(b)
	if busy {
		for range 2 {
			load := e.Spawn("sh", "-c", "while :; do :; done")
			defer load.Kill()
		}
	}
	q.round++
	var out []start
	for n := 0; n < count; n += atATime {
		var all []*Container
		for i := range min(atATime, count-n) {
			all = append(all, e.Create(fmt.Sprintf("quick-%d-%d", q.round, n+i), On("net"), Label(egressRate, "1gbit"), Doing("connect", "tcp", q.peer, "10s")))
		}
		var wg sync.WaitGroup
		for _, c := range all {
			wg.Go(func() {
				if err := c.TryStart(b.Context()); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		for _, c := range all {
			c.Wait()
			out = append(out, q.c.measured(b, q.a.For(b), c))
			c.Remove()
		}
	}
	return out
}

// lost is how many starts lost their first SYN.
func lost(all []start) (n int) {
	for _, s := range all {
		if s.lost {
			n++
		}
	}
	return n
}

// quantiles gives half, 99 of 100 and all, in milliseconds.
func quantiles(all []start, of func(start) float64) (half, most, longest float64) {
	var values []float64
	for _, s := range all {
		values = append(values, of(s))
	}
	slices.Sort(values)
	last := len(values) - 1
	return values[last/2], values[last*99/100], values[last]
}

// BenchmarkAdmission is how long a container waits for its rules: from the moment that
// Docker tells of its connection, or the kernel that its port is there, or that both
// ends are up, which Docker 20.10 does some 200 ms after it has told of the connection,
// and last before the first instruction; until it is admitted; how
// long the connection takes that its first instruction opens; and how many lost their
// first packet. With NETGUARD_SOAK it is 500 starts a row.
func BenchmarkAdmission(b *testing.B) {
	q := newQuickStage(b)
	count := 48
	if os.Getenv("NETGUARD_SOAK") != "" {
		count = startsOfSoak
	}
	for _, busy := range []string{"idle", "both_cores_busy"} {
		for _, atATime := range []int{1, 8} {
			row(b, fmt.Sprintf("%d_at_a_time/%s", atATime, busy), func() map[string]float64 {
				all := q.starts(b, count, atATime, busy != "idle")
				out := map[string]float64{"starts": float64(len(all)), "lost": float64(lost(all))}
				for name, of := range map[string]func(start) float64{
					"connect": func(s start) float64 { return s.connect }, "join": func(s start) float64 { return s.join },
					"up": func(s start) float64 { return s.up }, "first": func(s start) float64 { return s.first },
				} {
					out[name+"-p50-ms"], out[name+"-p99-ms"], out[name+"-max-ms"] = quantiles(all, of)
				}
				return out
			})
		}
	}
}
