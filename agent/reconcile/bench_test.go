package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/docker/dockertest"
	"netguard/agent/link"
	"netguard/agent/observe"
	"netguard/netpolicy"
	"netguard/netpolicy/guard"
	"netguard/netpolicy/iptables"
	"netguard/shaper"
	"netguard/shaper/tc/tctest"
)

// idle are planes of a kernel that does at once what it is told, for what the loop itself
// costs.
type idle struct{}

func (idle) Glance() (bool, error)                              { return false, nil }
func (idle) Bridges(map[string]bool) ([]string, error)          { return nil, nil }
func (idle) Verify(context.Context) (d iptables.Drift, _ error) { return }
func (idle) Begin(context.Context, map[netip.Addr]bool, bool, func()) error {
	return nil
}
func (idle) Vacant() (func(netip.Addr) bool, error) {
	return func(netip.Addr) bool { return true }, nil
}
func (idle) Next(func(iptables.Flow) bool) (r iptables.CutReport, over bool, _ error) {
	return r, true, nil
}

type idleGuard struct{}

func (idleGuard) Apply(guard.Wish, guard.Look) (guard.Report, error) { return guard.Report{}, nil }
func (idleGuard) Earlier() (guard.Earlier, error)                    { return guard.Earlier{}, nil }
func (idleGuard) Features() guard.Features                           { return guard.Features{Checksum: true} }

type idleRules struct{ idle }

func (idleRules) Apply(context.Context, iptables.Wish) (iptables.Report, error) {
	return iptables.Report{InForce: true}, nil
}

// crowd is a host with n containers on four networks.
type crowd struct {
	loop     *Loop
	links    fakeLinks
	view     docker.View // what Docker lists
	told     docker.Hint // what its events named
	observer *observe.Observer
	catalog  netpolicy.Catalog
	tc       *tctest.Kernel
	index    map[int]int // of ports
	now      time.Time
}

func newCrowd(b *testing.B, n int) *crowd {
	c := &crowd{now: time.Unix(1e9, 0), tc: tctest.New(), index: map[int]int{}}
	var policies string
	for i := range 50 {
		policies += fmt.Sprintf("---\nname: svc%[1]d\nselect: {project: shop, service: svc%[1]d}\ningress:\n  - from: [{service: svc%[2]d}]\n    ports: [tcp/80]\negress:\n  - to: [{service: svc%[3]d}, {entity: host}]\n",
			i, (i+1)%50, (i+49)%50)
	}
	c.catalog = netpolicy.Load([]netpolicy.Source{{Name: "p.yaml", Data: []byte(policies)}})
	c.links.view.Bridges = map[string]int{}
	c.view = docker.View{Version: "28", Firewall: "iptables", Networks: map[string]docker.Network{}}
	for i := range 4 {
		id := fmt.Sprintf("%064x", i)
		name := fmt.Sprintf("br-%d", i)
		c.links.view.Bridges[name] = c.tc.Add(name)
		c.view.Networks[id] = docker.Network{ID: id, Name: fmt.Sprintf("net%d", i), Driver: "bridge", Bridge: name,
			Subnets:  []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)},
			Gateways: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i), 0, 1})}}
	}
	for i := range n {
		c.plug(i)
		c.name(i, "running")
		c.attach(i, true)
	}
	c.told = docker.Hint{Full: true}
	cfg := &config.Config{Storm: guard.DefaultStorm}
	c.loop = NewLoop(Parts{Log: slog.New(slog.DiscardHandler), Shape: c.tc, Guard: idleGuard{}, Policy: idleRules{}, Connections: idle{}, Links: &c.links,
		Notices: &fakeNotices{}, BootCache: OpenBootCache("", slog.New(slog.DiscardHandler)), Config: func() *config.Config { return cfg },
		Catalog: func() *netpolicy.Catalog { return &c.catalog }, Clock: func() time.Time { return c.now }})
	c.observer = observe.New(c, &c.links, slog.New(slog.DiscardHandler), func() time.Time { return c.now }, func() {})
	c.observer.Turn(b.Context())
	c.loop.Observes(c.observer)
	c.loop.Alerted(noAlerts{})
	c.loop.Shapes(shaper.Hashed)
	c.turn(b)
	return c
}

// crowd is Docker too.

func (c *crowd) TakeHint() docker.Hint {
	h := c.told
	c.told = docker.Hint{}
	return h
}

func (c *crowd) Refresh(context.Context, docker.Hint) (docker.View, error) { return c.view, nil }

func (c *crowd) Sandbox(context.Context, string) (string, error) { return "", docker.ErrNoSandbox }

func (c *crowd) turn(b *testing.B) {
	c.loop.turn(b.Context())
	c.now = c.now.Add(100 * time.Millisecond)
}

func crowded(i int) (id string, network string, mac net.HardwareAddr, addr netip.Addr) {
	a := [4]byte{10, byte(i % 4), byte(1 + i>>8), byte(i)}
	return fmt.Sprintf("%064x", i+1), fmt.Sprintf("%064x", i%4), net.HardwareAddr{2, 66, a[0], a[1], a[2], a[3]}, netip.AddrFrom4(a)
}

func (c *crowd) plug(i int) {
	_, _, mac, _ := crowded(i)
	c.links.seen++
	name := fmt.Sprintf("veth%07x", i)
	c.index[i] = c.tc.Add(name)
	p := &link.Port{Index: c.index[i], Name: name, Master: c.links.view.Bridges[fmt.Sprintf("br-%d", i%4)], MasterName: fmt.Sprintf("br-%d", i%4), MTU: 1500, PeerIndex: 2, NSID: i,
		PeerMAC: mac, Pinned: true, Up: true, Seen: c.links.seen, Since: c.now}
	c.links.view.Ports = append(slices.Clip(c.links.view.Ports), p)
	c.tell(p.Index)
}

func (c *crowd) unplug(i int) {
	c.links.view.Ports = slices.DeleteFunc(slices.Clone(c.links.view.Ports), func(p *link.Port) bool { return p.Index == c.index[i] })
	c.tc.Remove(c.index[i])
	c.tell(c.index[i])
}

func (c *crowd) tell(index int) { c.links.hint = link.Hint{Links: map[int]struct{}{index: {}}} }

// name has Docker list a container in a state, or not at all.
func (c *crowd) name(i int, state string) {
	id, network, _, _ := crowded(i)
	if dockertest.Drop(&c.view, id); state != "" {
		labels := map[string]string{"com.docker.compose.project": "shop", "com.docker.compose.service": fmt.Sprintf("svc%d", i%50)}
		for n := range 8 {
			labels[fmt.Sprintf("org.example.label-%d", n)] = fmt.Sprintf("%064x", n)
		}
		if i%2 == 1 {
			labels["netguard.ingress.rate"], labels["netguard.egress.rate"] = "20mbit", "10mbit"
		}
		dockertest.Put(&c.view, docker.Container{ID: id, Name: fmt.Sprintf("shop-svc%d-%d", i%50, i), State: state, NetworkMode: "net0",
			Networks: []string{c.view.Networks[network].Name}, Created: int64(i), Labels: labels})
	}
	c.told.Merge(docker.Hint{Containers: map[string]struct{}{id: {}}})
}

// attach has Docker list a container's endpoint, or not.
func (c *crowd) attach(i int, is bool) {
	id, network, mac, addr := crowded(i)
	if dockertest.Detach(&c.view, network, id); is {
		dockertest.Attach(&c.view, network, docker.Attachment{ID: id, MAC: mac, IPv4: addr})
	}
	c.told.Merge(docker.Hint{Networks: map[string]struct{}{network: {}}})
}

// BenchmarkTurns is what the loop itself costs for one container that starts and ends, in
// the eight turns that this takes.
func BenchmarkTurns(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := newCrowd(b, n)
			b.ReportAllocs()
			for b.Loop() {
				for _, step := range []func(){
					func() { c.plug(n) },
					func() { c.name(n, "created"); c.attach(n, true) },
					func() { c.tell(c.index[n]) },
					func() { c.name(n, "running") },
					func() { c.name(n, "exited") },
					func() { c.unplug(n) },
					func() { c.attach(n, false) },
					func() { c.name(n, "") },
				} {
					b.StopTimer()
					step()
					c.observer.Turn(b.Context())
					b.StartTimer()
					c.turn(b)
				}
				if got := len(c.loop.State().Want.Endpoints); got != n {
					b.Fatalf("%d endpoints, want %d", got, n)
				}
			}
		})
	}
}
