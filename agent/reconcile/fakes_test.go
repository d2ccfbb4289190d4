package reconcile

import (
	"context"
	"net/netip"
	"reflect"
	"strconv"
	"time"

	"netguard/agent/docker"
	"netguard/agent/docker/dockertest"
	"netguard/agent/link"
	"netguard/netpolicy/iptables"
	"netguard/netpolicy/iptables/iptablestest"
	"netguard/shaper"
	"netguard/shaper/tc"
)

// fakeLinks is what the kernel tells of links.
type fakeLinks struct {
	view link.View
	hint link.Hint
	seen uint64
}

func (f *fakeLinks) Take() (link.Hint, link.View) {
	h := f.hint
	f.hint = link.Hint{}
	return h, f.view
}

func (f *fakeLinks) RouteTo(netip.Addr) (link.Route, error) { return link.Route{}, nil }

func (f *fakeLinks) Addresses() (map[netip.Addr]bool, error) {
	return map[netip.Addr]bool{netip.MustParseAddr("192.0.2.1"): true}, nil
}

func (f *fakeLinks) Resolve(index int) (link.Port, error) {
	for _, p := range f.view.Ports {
		if p.Index == index {
			return *p, nil
		}
	}
	return link.Port{}, link.ErrNotFound
}

// Snapshot gives the ports alone.
func (f *fakeLinks) Snapshot() []*link.Port { return f.view.Ports }

func (f *fakeLinks) Seen() uint64 { return f.seen }

// NSIDOf: the path of a namespace is its number.
func (f *fakeLinks) NSIDOf(path string) (int, error) { return strconv.Atoi(path) }

// fakeDocker is an engine that may be slow, fail or lie.
type fakeDocker struct {
	w     *world
	told  docker.Hint // what its events named
	due   time.Time   // when it answers
	slow  time.Duration
	fails error
	hides string          // a container that it does not list
	named map[uint64]bool // the ports whose containers it listed, by link.Port.Seen
}

func (f *fakeDocker) TakeHint() docker.Hint {
	h := f.told
	f.told = docker.Hint{}
	return h
}

// Refresh lists all that runs, whatever the hint names. As the engine does, it gives the same
// maps again where nothing changed.
func (f *fakeDocker) Refresh(_ context.Context, h docker.Hint) (docker.View, error) {
	if f.fails != nil {
		f.told.Merge(h)
		return docker.View{}, f.fails
	}
	v := docker.View{Version: "28", Firewall: "iptables", Networks: map[string]docker.Network{}}
	for i, name := range []string{"front", "back"} {
		v.Networks[name] = docker.Network{ID: name, Name: name, Driver: "bridge", Bridge: "br-" + name,
			Subnets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 18, byte(i), 0}), 24)}}
	}
	for _, c := range f.w.containers {
		if c.ID != f.hides {
			f.named[c.port.Seen] = true
			dockertest.Put(&v, c.Container)
			dockertest.Attach(&v, c.network, docker.Attachment{ID: c.ID, MAC: c.port.PeerMAC, IPv4: c.addr})
		}
	}
	was := f.w.observer.Current().View
	if reflect.DeepEqual(v, was) {
		return was, nil
	}
	return v, nil
}

// Sandbox gives the number of the namespace for its path.
func (f *fakeDocker) Sandbox(_ context.Context, id string) (string, error) {
	for _, c := range f.w.containers {
		if c.ID == id {
			return strconv.Itoa(c.port.NSID), nil
		}
	}
	return "", docker.ErrNoSandbox
}

type fakeNotices struct {
	rules, guard bool
	by           []string
}

func (f *fakeNotices) Rules() (bool, []string) {
	changed, by := f.rules, f.by
	f.rules, f.by = false, nil
	return changed, by
}

func (f *fakeNotices) Guard() bool {
	changed := f.guard
	f.guard = false
	return changed
}

type noAlerts struct{}

func (noAlerts) Next() time.Time        { return time.Time{} }
func (noAlerts) Look(time.Time, *State) {}

// limits numbers the veths of the limits' kernel as all others do. An IFB has a number that
// no veth has.
type limits struct{ w *world }

const ifbs = 1 << 20

func (l limits) Apply(veth int, name string, steps []shaper.Step) error {
	return l.w.tc.Apply(l.w.veths[veth], name, steps)
}

func (l limits) Read(veths []int) (map[int]tc.Port, error) {
	out := map[int]tc.Port{}
	for _, veth := range veths {
		if err := l.w.failing("limits read", veth); err != nil {
			return nil, err
		}
		all, err := l.w.tc.Read([]int{l.w.veths[veth]})
		if err != nil {
			return nil, err
		}
		p := all[l.w.veths[veth]]
		if p.IFBIndex != 0 {
			p.IFBIndex += ifbs
		}
		out[veth] = p
	}
	return out, nil
}

func (l limits) Drop(veths []int) error {
	var own []int
	for _, veth := range veths {
		own = append(own, l.w.veths[veth])
	}
	return l.w.tc.Drop(own)
}

func (l limits) Sweep(keep func(int) bool) (int, error) {
	byOwn := map[int]int{}
	for veth, own := range l.w.veths {
		byOwn[own] = veth
	}
	return l.w.tc.Sweep(func(own int) bool { return keep(byOwn[own]) })
}

// looked is the plane of rules. What it says of them the agent knows from then on.
type looked struct {
	*iptablestest.Driver
	w *world
}

func (l looked) Verify(ctx context.Context) (iptables.Drift, error) {
	drift, err := l.Driver.Verify(ctx)
	l.w.damage = l.w.damage && (err != nil || len(drift.Changes) == 0)
	return drift, err
}
