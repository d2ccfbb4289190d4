package reconcile

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/link"
	"netguard/agent/observe"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/guard/guardtest"
	"netguard/netpolicy/iptables"
	"netguard/netpolicy/iptables/iptablestest"
	"netguard/shaper"
	"netguard/shaper/tc/tctest"
)

var errInjected = errors.New("injected")

// world is a host in virtual time: a kernel and a Docker that are not there, and an agent
// that is. Each write to the kernel is looked at, so that nothing is missed between two.
type world struct {
	t     *testing.T
	now   time.Time
	guard *guardtest.Kernel
	rules *iptablestest.Kernel
	tc    *tctest.Kernel
	veths map[int]int // of the limits' kernel, by ifindex

	loop    *Loop
	cfg     *config.Config
	catalog *netpolicy.Catalog
	woken   bool
	links   fakeLinks
	docker  fakeDocker
	// observer is the agent's own, with the fake Docker and the fake links behind it.
	observer *observe.Observer
	notices  fakeNotices

	containers []*box
	serial     int
	writes     int          // to rules and sets
	sends      map[int]bool // ports from which frames pass, by ifindex
	was        map[int]bool // ports that were admitted with reason
	hurt       map[int]bool // ports whose limits somebody may have changed, by ifindex
	damage     bool         // somebody else changed rules, and the agent does not know it yet
	fails      func(at string, port int) error
	trace      []string
	lists      []func() // ends of lists of connections that go on
	listed     time.Time
	listTakes  time.Duration
	known      []iptables.Flow // connections from before the agent started
	blind      bool            // no table told the agent whom an earlier one admitted, and it has not looked yet
}

// box is a container that runs.
type box struct {
	docker.Container
	network string
	addr    netip.Addr
	port    *link.Port
}

// failing is asked before each step of each plane. It looks at what passes by now.
func (w *world) failing(at string, port int) error {
	w.watch(at)
	if w.fails == nil {
		return nil
	}
	return w.fails(at, port)
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: time.Unix(1e9, 0), guard: guardtest.New(), rules: iptablestest.New(), tc: tctest.New(),
		veths: map[int]int{}, cfg: &config.Config{Storm: guard.DefaultStorm}, listTakes: 13 * time.Millisecond, sends: map[int]bool{}, was: map[int]bool{}, hurt: map[int]bool{}}
	w.links.view.Bridges, w.docker = map[string]int{}, fakeDocker{w: w, named: map[uint64]bool{}}
	for _, name := range []string{"br-front", "br-back"} {
		w.links.view.Bridges[name] = w.guard.AddBridge()
		w.rules.AddBridge(name, false)
	}
	w.guard.Fail = func(op guardtest.Op, port int) error {
		if err := w.failing("guard "+string(op), port); err != nil {
			return err
		}
		switch op { // the kernel tells of netguard's own writes too
		case guardtest.Commit:
			w.notices.guard = true
		default:
			w.told(port)
		}
		return nil
	}
	w.guard.Reads = func() error { return w.failing("guard read", 0) }
	w.rules.Lists = func(end func()) {
		w.lists, w.listed = append(w.lists, end), w.now.Add(w.listTakes)
	}
	w.rules.Fail = func(step iptablestest.Step, about string) error {
		if err := w.failing("rules "+string(step), 0); err != nil {
			return err
		}
		if step != iptablestest.Read && step != iptablestest.List && step != iptablestest.End {
			w.writes++
			w.notices.rules, w.notices.by = true, []string{"netguard"}
		}
		return nil
	}
	w.tc.Fail = func(veth int, s shaper.Step) error {
		for index, own := range w.veths {
			if own == veth {
				return w.failing(fmt.Sprintf("limits %v", s.Op), index)
			}
		}
		return nil
	}
	w.policies(0)
	w.start()
	return w
}

// told has the kernel tell of a link.
func (w *world) told(index int) {
	if w.links.hint.Links == nil {
		w.links.hint.Links = map[int]struct{}{}
	}
	w.links.hint.Links[index] = struct{}{}
	w.woken = true
}

// start starts the agent, and with it what it knows of links and of Docker.
func (w *world) start() {
	cfg := func() *config.Config { return w.cfg }
	catalog, clock := func() *netpolicy.Catalog { return w.catalog }, func() time.Time { return w.now }
	rules := w.rules.Open()
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelError + 1}))
	w.loop = NewLoop(Parts{Log: log, Shape: limits{w}, Guard: w.guard.Open(), Policy: looked{rules, w}, Connections: rules, Links: &w.links, Notices: &w.notices,
		BootCache: OpenBootCache("", log), Config: cfg, Catalog: catalog, Clock: clock})
	w.observer = observe.New(&w.docker, &w.links, log, clock, func() { w.woken = true })
	w.loop.Observes(w.observer)
	w.loop.Alerted(noAlerts{})
	w.loop.Shapes(shaper.Hashed)
	w.links.hint, w.woken = link.Hint{Full: true}, true
	earlier, err := w.loop.Guard.Earlier()
	w.known, w.blind = w.rules.Connections(), earlier.Fresh || err != nil
	w.docker.due = time.Time{}
	w.ask()
}

// ask makes Docker tell that something changed. It answers after a while.
func (w *world) ask() {
	w.docker.told = docker.Hint{Full: true}
	w.wake()
}

// wake makes the observer look after a while.
func (w *world) wake() {
	if soon := w.now.Add(time.Millisecond + w.docker.slow); w.docker.due.IsZero() || soon.Before(w.docker.due) {
		w.docker.due = soon
	}
}

// run lets time pass: the agent works whenever there is something to do.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	for turns := 0; ; turns++ {
		if turns > 20*(int(d/time.Second)+60) {
			w.t.Fatalf("%d turns in %v, and more to do", turns, d)
		}
		select {
		case <-w.observer.Wakeup:
			w.wake()
		default:
		}
		if !w.now.Before(w.docker.due) {
			w.docker.due = w.observer.Turn(w.t.Context())
		}
		if len(w.lists) > 0 && !w.now.Before(w.listed) {
			for _, end := range w.lists {
				end()
			}
			w.lists = nil
		}
		select {
		case <-w.loop.wakeup:
			w.woken = true
		default:
		}
		next := w.loop.next()
		if w.woken || w.notices.rules || w.notices.guard || !w.now.Before(next) {
			w.woken = false
			w.loop.turn(w.t.Context())
			w.watch("turn")
			if w.loop.contested() {
				w.now = w.now.Add(contentionPause)
			} else {
				w.now = w.now.Add(time.Millisecond)
			}
			continue
		}
		if w.docker.due.Before(next) {
			next = w.docker.due
		}
		if len(w.lists) > 0 && w.listed.Before(next) {
			next = w.listed
		}
		if next.After(end) {
			w.now = end
			return
		}
		w.now = next
	}
}

// policies puts others in force.
func (w *world) policies(which int) {
	texts := []string{"", `
name: db
select: {service: s1}
ingress: [{from: [{service: s0}], ports: [tcp/80]}]
`, `
name: db
select: {service: s1}
ingress: [{from: [{service: s2}]}]
---
name: quiet
select: {service: s2}
egress: []
`, `
name: all
select: {}
ingress: []
`}
	c := netpolicy.Load([]netpolicy.Source{{Name: "p.yaml", Data: []byte(texts[which%len(texts)])}})
	w.catalog, w.woken = &c, true
}

// come starts a container on a network. Its port comes before Docker tells of it.
func (w *world) come(network string, labels map[string]string) *box {
	w.serial++
	id := fmt.Sprintf("c%d", w.serial)
	taken := map[netip.Addr]bool{}
	for _, c := range w.containers {
		taken[c.addr] = true
	}
	subnet := byte(0)
	if network == "back" {
		subnet = 1
	}
	last := byte(2)
	for taken[netip.AddrFrom4([4]byte{172, 18, subnet, last})] {
		last++
	}
	c := &box{network: network, addr: netip.AddrFrom4([4]byte{172, 18, subnet, last}),
		Container: docker.Container{ID: id, Name: id, State: "running", NetworkMode: network, Networks: []string{network}, Labels: labels, Created: int64(w.serial)}}
	w.containers = append(w.containers, c)
	w.plug(c)
	return c
}

// plug gives a container a port.
func (w *world) plug(c *box) {
	c.State = "running"
	w.links.seen++
	bridge := w.links.view.Bridges["br-"+c.network]
	index := w.guard.AddPort(bridge)
	w.veths[index] = w.tc.Add(fmt.Sprintf("veth%07x", index))
	a := c.addr.As4()
	c.port = &link.Port{Index: index, Name: fmt.Sprintf("veth%07x", index), Master: bridge, MasterName: "br-" + c.network, MTU: 1500, PeerIndex: 2, NSID: index,
		PeerMAC: net.HardwareAddr{2, 0x42, a[0], a[1], a[2], a[3]}, Pinned: true, Up: true, Seen: w.links.seen, Since: w.now}
	w.links.view.Ports = append(slices.Clone(w.links.view.Ports), c.port)
	w.told(index)
	w.sends[index] = w.guard.Sends(index)
	w.ask()
}

// unplug takes the port of a container away.
func (w *world) unplug(c *box) {
	w.told(c.port.Index)
	w.guard.Remove(c.port.Index)
	w.tc.Remove(w.veths[c.port.Index])
	w.links.view.Ports = slices.DeleteFunc(slices.Clone(w.links.view.Ports), func(p *link.Port) bool { return p.Index == c.port.Index })
	delete(w.sends, c.port.Index)
	w.ask()
}

// leave stops a container. It leaves a connection behind.
func (w *world) leave(c *box) {
	if w.guard.Sends(c.port.Index) {
		w.rules.Connect(iptables.Flow{Src: netip.AddrPortFrom(c.addr, uint16(c.Created)), Dst: netip.MustParseAddrPort("192.0.2.9:443"),
			Dialled: netip.MustParseAddrPort("192.0.2.9:443"), Proto: netpolicy.TCP})
	}
	w.unplug(c)
	w.containers = slices.DeleteFunc(w.containers, func(o *box) bool { return o == c })
}
