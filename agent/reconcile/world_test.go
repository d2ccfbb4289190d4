package reconcile

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"netguard/agent/config"
	"netguard/agent/desired"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
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
	notices fakeNotices

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
	w.links.view.Bridges, w.docker.named = map[string]int{}, map[uint64]bool{}
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
		if step != iptablestest.Read && step != iptablestest.List {
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
	catalog := func() *netpolicy.Catalog { return w.catalog }
	rules := w.rules.Open()
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelError + 1}))
	w.loop = NewLoop(Parts{Log: log, Shape: limits{w}, Guard: w.guard.Open(), Policy: looked{rules, w}, Connections: rules, Links: &w.links, Notices: &w.notices,
		BootCache: OpenBootCache("", log), Config: cfg, Catalog: catalog, Clock: func() time.Time { return w.now }})
	w.loop.Observes(&w.docker)
	w.loop.Alerted(noAlerts{})
	w.loop.Shapes(shaper.Hashed)
	w.docker.snapshot = observe.Snapshot{Old: w.links.seen}
	w.links.hint, w.woken = link.Hint{Full: true}, true
	w.known = w.rules.Connections()
	w.ask()
}

// ask has Docker asked: it answers after a while.
func (w *world) ask() {
	if w.docker.due.IsZero() {
		w.docker.due = w.now.Add(time.Millisecond + w.docker.slow)
	}
}

// answer is what Docker says now.
func (w *world) answer() {
	w.docker.due = time.Time{}
	was := w.docker.snapshot
	if was.Err = w.docker.fails; was.Err != nil {
		w.docker.snapshot = was
		w.docker.due = w.now.Add(time.Second)
		w.woken = true
		return
	}
	s := observe.Snapshot{Old: was.Old, Complete: true, Reads: was.Reads, At: w.now, Sandboxes: was.Sandboxes, Fresh: map[string]uint64{}}
	s.View = docker.View{Version: "28", Firewall: "iptables", Containers: map[string]docker.Container{}, Networks: map[string]docker.Network{}}
	for i, name := range []string{"front", "back"} {
		s.View.Networks[name] = docker.Network{ID: name, Name: name, Driver: "bridge", Bridge: "br-" + name, Endpoints: map[string]docker.Attachment{},
			Subnets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 18, byte(i), 0}), 24)}}
		s.Fresh[name] = w.links.seen
	}
	if !was.Complete {
		s.Reads, s.Sandboxes = s.Reads+1, map[string]endpoint.Sandbox{}
	}
	for _, c := range w.containers {
		if c.ID == w.docker.hides {
			continue
		}
		s.View.Containers[c.ID], w.docker.named[c.port.Seen] = c.Container, true
		s.View.Networks[c.network].Endpoints[c.ID] = docker.Attachment{MAC: c.port.PeerMAC, IPv4: c.addr}
		switch {
		case !was.Complete && c.port.Seen <= was.Old:
			s.Sandboxes[c.ID] = endpoint.Sandbox{NSID: c.port.NSID, Seen: was.Old}
		case w.docker.contests[c.ID]:
			s.Sandboxes = maps.Clone(s.Sandboxes)
			s.Sandboxes[c.ID] = endpoint.Sandbox{NSID: c.port.NSID, Seen: w.links.seen}
		}
	}
	w.docker.snapshot, w.woken = s, true
}

// run lets time pass: the agent works whenever there is something to do.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	for turns := 0; ; turns++ {
		if turns > 20*(int(d/time.Second)+60) {
			w.t.Fatalf("%d turns in %v, and more to do", turns, d)
		}
		if w.docker.due.IsZero() && (w.docker.lacks || len(w.docker.contests) > 0) {
			w.docker.due = w.now.Add(time.Second + w.docker.slow)
		}
		if !w.docker.due.IsZero() && !w.now.Before(w.docker.due) {
			w.answer()
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
		if !w.docker.due.IsZero() && w.docker.due.Before(next) {
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

// wanted is the state that the agent's inputs lead to, worked out for the first time.
func (w *world) wanted() *desired.State {
	b := desired.NewBuilder()
	b.Leaf, b.Route = shaper.Hashed, w.links.RouteTo
	b.Earlier = func() (guard.Earlier, error) { // no bridge is left alone for a port that came later
		taken := map[int]bool{}
		for _, index := range w.links.view.Bridges {
			taken[index] = true
		}
		return guard.Earlier{Bridges: taken}, nil
	}
	s, err := b.Look(desired.Inputs{Seen: w.docker.snapshot, Links: w.links.view, Config: w.cfg, Catalog: w.catalog, Now: w.now})
	if err == nil {
		err = b.Decide(s)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// limited says what limits a port lacks.
func (w *world) limited(e *desired.Endpoint) []shaper.Step {
	all, err := w.tc.Read([]int{w.veths[e.Port.Index]})
	if err != nil {
		w.t.Fatal(err)
	}
	return shaper.Diff(all[w.veths[e.Port.Index]].Endpoint, e.Wish)
}

// ruled says what packets of an endpoint meet that is not what policies come to.
func (w *world) ruled(e *desired.Endpoint, r *desired.Ruling) string {
	met, all := w.rules.InForce()
	switch {
	case !all:
		return "rules or members are missing"
	case met.Rules.Generation != r.Rules.Generation:
		return "other rules are in force"
	case !w.handedOver(e, r):
		return "its bridge hands nothing over"
	}
	for _, a := range e.Own() {
		if !slices.Contains(met.Containers, a) || !slices.Contains(met.Homes, iptables.Home{Addr: a, Bridge: e.Network.Bridge}) {
			return "rules do not know its address"
		}
	}
	return ""
}

// watch fails the test where the agent lets a port send for the first time whose limits or
// rules are not in the kernel, that is nobody's, or whose address has connections of another.
func (w *world) watch(at string) {
	w.t.Helper()
	w.damage = w.damage && !(at == "turn" && w.intact())
	var want *desired.State
	for _, p := range w.links.view.Ports {
		before := w.sends[p.Index]
		w.sends[p.Index] = w.guard.Sends(p.Index)
		if before || !w.sends[p.Index] || w.was[p.Index] {
			continue
		}
		if want == nil {
			want = w.wanted()
		}
		i := slices.IndexFunc(want.Endpoints, func(e *desired.Endpoint) bool { return e.Port != nil && e.Port.Index == p.Index })
		if i < 0 && w.docker.named[p.Seen] {
			continue // Docker does not list it for now, and its port is there
		}
		if i < 0 {
			w.t.Errorf("%s: port %s sends, and is nobody's", at, p.Name)
			continue
		}
		e := want.Endpoints[i]
		w.was[p.Index] = true
		if steps := w.limited(e); len(steps) > 0 && !w.hurt[p.Index] {
			w.t.Errorf("%s: %s sends, and its limits lack %v", at, e.Container.Name, steps)
		}
		if why := w.ruled(e, want.Ruling); why != "" && !w.damage {
			w.t.Errorf("%s: %s sends, and %s", at, e.Container.Name, why)
		}
		for _, f := range w.rules.Connections() {
			if slices.Contains(e.Own(), f.Src.Addr()) && int64(f.Src.Port()) != e.Container.Created && !slices.Contains(w.known, f) {
				w.t.Errorf("%s: %s sends, and has the connection %v of another", at, e.Container.Name, f)
			}
		}
		if len(e.Wrong) > 0 {
			w.t.Errorf("%s: %s sends, and %s", at, e.Container.Name, e.Wrong)
		}
	}
}

// intact tells whether what somebody else changed is put back.
func (w *world) intact() bool {
	want := w.wanted()
	for _, e := range want.Endpoints {
		if !w.handedOver(e, want.Ruling) {
			return false
		}
		if e.Port != nil && w.hurt[e.Port.Index] && len(w.limited(e)) == 0 {
			delete(w.hurt, e.Port.Index)
		}
	}
	_, all := w.rules.InForce()
	return all
}

// handedOver tells whether an endpoint's frames within its bridge meet the rules, if they
// shall.
func (w *world) handedOver(e *desired.Endpoint, r *desired.Ruling) bool {
	return !r.Within[e.Key] || w.rules.HandsOver(e.Network.Bridge)
}

// damaged notes what somebody else did: it is not the agent that let anybody send.
func (w *world) damaged() {
	for _, p := range w.links.view.Ports {
		w.sends[p.Index] = w.guard.Sends(p.Index)
	}
	for _, e := range w.wanted().Endpoints {
		if e.Port != nil && len(w.limited(e)) > 0 {
			w.hurt[e.Port.Index] = true
		}
	}
	w.woken, w.damage = true, true
}

// settle ends all that goes wrong, and lets time pass for all to be repaired.
func (w *world) settle(long time.Duration) {
	w.t.Helper()
	w.fails, w.docker.slow, w.docker.fails, w.docker.hides = nil, 0, nil, ""
	w.ask()
	w.run(long)
}

// check fails the test unless the kernel holds what is wanted of each container.
func (w *world) check() {
	w.t.Helper()
	want := w.wanted()
	if len(want.Endpoints) != len(w.containers) {
		w.t.Errorf("%d endpoints of %d containers", len(want.Endpoints), len(w.containers))
	}
	leads := 0
	for _, e := range want.Endpoints {
		if e.Port == nil {
			w.t.Errorf("%s has no port", e.Container.Name)
			continue
		}
		if sends := w.guard.Sends(e.Port.Index); sends != (len(e.Wrong) == 0) {
			w.t.Errorf("%s sends: %t, and is wrong: %q", e.Container.Name, sends, e.Wrong)
		}
		if steps := w.limited(e); len(steps) > 0 {
			w.t.Errorf("the limits of %s lack %v", e.Container.Name, steps)
		}
		if why := w.ruled(e, want.Ruling); why != "" {
			w.t.Errorf("%s: %s", e.Container.Name, why)
		}
		if e.Wish.Egress != nil {
			leads++
		}
	}
	if n := w.tc.IFBs(); n != leads {
		w.t.Errorf("%d IFBs, want %d", n, leads)
	}
	if w.rules.Left() {
		w.t.Error("rules are left over")
	}
	// Twice is once.
	if n := w.written(func() { w.links.hint, w.notices.rules, w.woken = link.Hint{Full: true}, true, true; w.run(time.Minute) }); n > 0 {
		w.t.Errorf("%d writes though nothing happened", n)
	}
	// And an agent that knows nothing of how it came to that would not change it.
	if n := w.written(func() { w.start(); w.run(time.Minute) }); n > 0 {
		w.t.Errorf("%d writes by another agent", n)
	}
}

// written counts the writes to all planes.
func (w *world) written(does func()) int {
	before := w.guard.Writes + w.tc.Writes + w.writes
	does()
	return w.guard.Writes + w.tc.Writes + w.writes - before
}
