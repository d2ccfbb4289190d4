package integration

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"netguard/integration/attack"
	. "netguard/integration/harness"
)

// A doorway is a host on which streams of a packet each millisecond try, all
// the time, what is not allowed: what arrives of them tells how long a door was open.
type doorway struct {
	t    testing.TB
	e    *Engine
	a    *Agent
	book *rulebook
	net  *Network

	mallory, db, third, slow, small *actor
	doors                           map[string]*door
}

// The doors.
const (
	byPolicy = "policy"  // mallory may not speak to db
	byIPv6   = "IPv6"    // nor by IPv6
	byInput  = "input"   // slow may not speak to the host
	byOutput = "output"  // nor the host to db
	byGuard  = "guard"   // nor mallory as third, who may
	byShaper = "ingress" // slow receives no more than its limit
	byIFB    = "egress"  // small sends no more than its limit
)

const (
	doorPort  = 7001
	slowPort  = 7002
	smallPort = 7003
	hostPort  = 7004
	// tick is the time between two packets of a stream.
	tick = time.Millisecond
	// together are arrivals that one open door explains.
	together = 50 * time.Millisecond
	// quiet is how long nothing must come before a door is taken to be closed.
	quiet = 300 * time.Millisecond
)

// door is where one stream arrives.
type door struct {
	mu   sync.Mutex
	came []time.Time
	// limit: some may come; many at a time may not.
	limit bool
}

func (d *door) arrive(at time.Time) {
	d.mu.Lock()
	d.came = append(d.came, at)
	d.mu.Unlock()
}

func (d *door) reset() {
	d.mu.Lock()
	d.came = nil
	d.mu.Unlock()
}

// open is how long the door was open in all, and when it was last.
func (d *door) open() (total time.Duration, last time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.limit {
		return crowded(d.came)
	}
	for i, at := range d.came {
		last = at
		if i > 0 && at.Sub(d.came[i-1]) < together {
			total += at.Sub(d.came[i-1])
		} else {
			total += tick
		}
	}
	return total, last
}

// crowded counts the pieces of time in which half of what was sent arrived, which
// is several times the limit.
func crowded(came []time.Time) (total time.Duration, last time.Time) {
	for i := 0; i < len(came); {
		n := i
		for n < len(came) && came[n].Sub(came[i]) < together {
			n++
		}
		if n-i > int(together/tick)/2 {
			total, last = total+together, came[n-1]
		}
		i = n
	}
	return total, last
}

func newDoorway(t testing.TB, options ...Option) *doorway {
	t.Helper()
	// Containers outlive their dockerd.
	e := Start(t, append([]Option{Flags("--live-restore")}, options...)...)
	d := &doorway{t: t, e: e, doors: map[string]*door{byPolicy: {}, byIPv6: {}, byInput: {}, byOutput: {}, byGuard: {}, byShaper: {limit: true}, byIFB: {limit: true}}}
	d.net = e.Network("net", Subnet("198.18.50.0/24"), Subnet("fd00:50::/64"))
	e.Output("sh", "-c", "iptables-save > "+d.old())
	d.a = e.Agent()
	d.book = newRulebook(e, d.a)
	for name, at := range map[string]**actor{"mallory": &d.mallory, "db": &d.db, "third": &d.third} {
		*at = enter(t, e.Run(name, On("net")), "net")
	}
	d.slow = enter(t, e.Run("slow", On("net"), Label(ingressRate, "1mbit")), "net")
	d.small = enter(t, e.Run("small", On("net"), Label(egressRate, "1mbit")), "net")
	d.book.awaitAdmitted(t, 5)
	d.book.enact(t, map[string]string{"db.yaml": "{name: db, select: {container: db}, ingress: [{from: [{container: third}]}]}\n",
		"slow.yaml": "{name: slow, select: {container: slow}, egress: []}\n"})

	ctx, cancel := context.WithCancel(context.Background())
	var streams sync.WaitGroup
	t.Cleanup(func() { cancel(); streams.Wait() })
	stream := func(send func() error) {
		streams.Go(func() {
			for next := time.Now(); ctx.Err() == nil; next = next.Add(tick) {
				if late := time.Since(next); late > 0 {
					next = next.Add(late)
				}
				time.Sleep(time.Until(next)) // the pace is what is measured with
				_ = send()                   // it may not arrive: that is what is looked at
			}
		})
	}
	gateway := netip.MustParseAddr(d.db.Inspect().NetworkSettings.Networks["net"].Gateway)
	d.listen(d.db.Inside(), doorPort, func(from netip.Addr) *door {
		switch {
		case from.Is6():
			return d.doors[byIPv6]
		case from == d.mallory.IPv4:
			return d.doors[byPolicy]
		case from == gateway:
			return d.doors[byOutput]
		}
		return d.doors[byGuard]
	})
	d.listen(e, hostPort, func(netip.Addr) *door { return d.doors[byInput] })
	d.listen(d.slow.Inside(), slowPort, func(netip.Addr) *door { return d.doors[byShaper] })
	d.listen(d.third.Inside(), smallPort, func(netip.Addr) *door { return d.doors[byIFB] })
	stream(d.sender(d.mallory.Inside(), d.db.IPv4, doorPort, 64))
	stream(d.sender(d.mallory.Inside(), d.db.IPv6, doorPort, 64))
	stream(d.sender(d.slow.Inside(), gateway, hostPort, 64))
	stream(d.sender(e, d.db.IPv4, doorPort, 64))
	forged := attack.Ether(d.db.MAC, d.mallory.MAC, attack.EtherIPv4,
		attack.UDP4(netip.AddrPortFrom(d.third.IPv4, 9), netip.AddrPortFrom(d.db.IPv4, doorPort), make([]byte, 64)))
	stream(func() error { return d.mallory.port.Send(forged) })
	stream(d.sender(d.third.Inside(), d.slow.IPv4, slowPort, 1000))
	stream(d.sender(d.small.Inside(), d.third.IPv4, smallPort, 1000))
	d.settle()
	return d
}

// old are the host's rules from before netguard.
func (d *doorway) old() string { return filepath.Join(d.e.Dir(), "old.rules") }

// inside is a container, or the host.
type inside interface {
	Do(func() error) error
}

// sender is a stream by UDP, in one connection.
func (d *doorway) sender(from inside, to netip.Addr, port uint16, size int) func() error {
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = net.Dial("udp", netip.AddrPortFrom(to, port).String())
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	packet := make([]byte, size)
	return func() error { _, err := c.Write(packet); return err }
}

// listen notes what arrives, and when the kernel took it: on a busy machine what is read
// late comes in crowds. It answers, so that what got in once is a connection that exists,
// and has to be cut.
func (d *doorway) listen(at inside, port uint16, of func(netip.Addr) *door) {
	var c *net.UDPConn
	err := at.Do(func() (err error) {
		c, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		return err
	})
	if err == nil {
		err = stamped(c)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf, control := make([]byte, 2048), make([]byte, 128)
		for {
			_, n, _, from, err := c.ReadMsgUDPAddrPort(buf, control)
			if err != nil {
				return
			}
			when, err := stampOf(control[:n])
			if err != nil {
				d.t.Error(err)
				return
			}
			of(from.Addr().Unmap()).arrive(when)
			_, _ = c.WriteToUDPAddrPort(buf[:1], from)
		}
	}()
}

// settle waits until no door has been open for a while.
func (d *doorway) settle() {
	d.t.Helper()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) { // nothing tells of what does not come
		latest := time.Now().Add(-quiet)
		closed := true
		for _, door := range d.doors {
			_, last := door.open()
			closed = closed && last.Before(latest)
		}
		if closed && time.Since(begin) > quiet {
			break
		}
		if time.Since(begin) > repairs {
			d.t.Fatalf("a door is open though nobody opened it; the agent's log:\n%s", d.a.Log())
		}
	}
	for _, door := range d.doors {
		door.reset()
	}
}

// anchor is where the jump stands: in DOCKER-USER, or in FORWARD without Docker's
// own jump.
var anchor = regexp.MustCompile(`(?m)^-A (DOCKER-USER|FORWARD) -j NG-FORWARD\n`)

// anywhere are both of them, and the jump for what begins, which is there beside the
// one in DOCKER-USER.
var anywhere = regexp.MustCompile(`(?m)^-A (DOCKER-USER|FORWARD)( -m conntrack --ctstate NEW)? -j NG-FORWARD\n`)

// passing are the sets that frames fill.
var passing = regexp.MustCompile(`(?s)\tset (storm|storm-bytes|violations|samples|unknown|pace-[a-z-]+|(?:open|full|refused)[46]) \{.*?\n\t\}`)

// state is what netguard keeps in the kernel, without what counts.
func (d *doorway) state() string {
	d.t.Helper()
	rules, anchored := "", ""
	for _, save := range []string{"iptables-save", "ip6tables-save"} {
		out := d.e.Output("sh", "-c", save+" -t filter | grep NG- | grep -v NG-MADE; true")
		rules += counters.ReplaceAllString(anywhere.ReplaceAllString(out, ""), "")
		anchored += fmt.Sprint(anchor.MatchString(out), " ")
	}
	rest := d.e.Output("sh", "-c", fmt.Sprintf(`ipset save | grep -v -e 'add ng[46]-cut' -e 'add ng[46]-began'; nft -s list table bridge netguard 2>&1; nft -s list table inet netguard 2>&1
bridge -d link; bridge fdb show br %[1]s | grep -E 'static|sticky'; ip neigh show nud permanent; ip -6 neigh show nud permanent
ip -d link show dev %[1]s | grep -oE 'nf_call_ip6?tables [01]'; tc qdisc show; tc class show dev %[2]s; tc filter show dev %[3]s ingress
ip -o link show type ifb | sed 's/mtu.*//'`, d.net.Bridge, d.slow.Veth("net"), d.small.Veth("net")))
	rest = plain(counters.ReplaceAllString(passing.ReplaceAllString(rest, ""), ""))
	words := strings.FieldsFunc(rest, func(r rune) bool { return strings.ContainsRune(" \t\n,", r) })
	slices.Sort(words)
	return anchored + rules + strings.Join(words, " ")
}
