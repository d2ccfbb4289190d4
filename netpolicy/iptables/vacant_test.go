package iptables

import (
	"context"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ti-mo/conntrack"
)

// vacantLab is a host whose containers may neither send nor receive, and which of the lab's
// nodes are containers changes.
type vacantLab struct {
	*testing.T
	*Driver
	small
}

func newVacantLab(t *testing.T) *vacantLab {
	v := &vacantLab{T: t, Driver: open(t)}
	if _, err := v.Bridges(map[string]bool{"br0": true}); err != nil {
		t.Fatal(err)
	}
	v.are()
	if !v.look().Listed {
		t.Error("the first look lists no connections")
	}
	return v
}

// are says which nodes are containers.
func (v *vacantLab) are(nodes ...*node) {
	v.Helper()
	v.small = policy("a", nil, nodes)
	v.closed = v.db
	v.small.homes = slices.DeleteFunc(slices.Clone(labHomes), func(h Home) bool { return !slices.Contains(v.db, h.Addr) })
	w := v.small.wish()
	for _, text := range []string{"10.77.0.0/24", "10.77.1.0/24", "2001:db8:77::/64", "2001:db8:77:1::/64", "fe80::/10"} {
		w.Subnets = append(w.Subnets, netip.MustParsePrefix(text))
	}
	apply(v.T, v.Driver, w)
}

// vacant tells whether none of a node's addresses can have connections.
func (v *vacantLab) vacant(n *node) bool {
	v.Helper()
	vacant, err := v.Vacant()
	if err != nil {
		v.Fatal(err)
	}
	return vacant(n.addrs[0]) && vacant(n.addrs[1])
}

func (v *vacantLab) look() CutReport {
	v.Helper()
	r, err := v.Cut(context.Background(), false, v.allows)
	if err != nil {
		v.Fatal(err)
	}
	return r
}

// leave ends what is left of the connections of containers that are gone.
func (v *vacantLab) leave(nodes ...*node) {
	v.Helper()
	gone := map[netip.Addr]bool{}
	for _, n := range nodes {
		gone[n.addrs[0]], gone[n.addrs[1]] = true, true
	}
	if _, err := v.cut(context.Background(), gone, false, v.allows); err != nil {
		v.Fatal(err)
	}
}

// talker is a socket at a port of all addresses of a node.
type talker struct {
	*net.UDPConn
	heard atomic.Int64
}

func newTalker(t *testing.T, n *node, port int) *talker {
	t.Helper()
	k := &talker{}
	on(n, func() {
		var err error
		if k.UDPConn, err = net.ListenUDP("udp", &net.UDPAddr{Port: port}); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { k.Close() })
	go func() {
		for b := make([]byte, 64); ; k.heard.Add(1) {
			if _, _, err := k.ReadFromUDPAddrPort(b); err != nil {
				return
			}
		}
	}()
	return k
}

func (k *talker) say(to netip.AddrPort) { _, _ = k.WriteToUDPAddrPort([]byte("?"), to) }

// TestVacant: for a container that comes, no connections are listed, unless somebody used its
// address before.
func TestVacant(t *testing.T) {
	forLabs(t, "a_container_that_comes_costs_no_list", func(t *testing.T, l *lab) {
		v := newVacantLab(t)
		v.are(l.a)
		for range 2 {
			v.are(l.a, l.b, l.c)
			if !v.vacant(l.b) || !v.vacant(l.c) {
				t.Error("the addresses of containers that come are not vacant")
			}
			if v.look().Listed {
				t.Error("connections are listed for a container that comes")
			}
			v.are(l.a)
			v.leave(l.b, l.c)
			if v.look().Listed {
				t.Error("what was ended is gone over again")
			}
		}
		inSync(t, v.Driver)
		v.are(l.a, l.b)
		if v.look().Listed {
			t.Error("connections are listed after a look at the kernel that found nothing")
		}
		for name, reason := range map[string]func(){
			"a container that was away for a moment": func() { v.are(l.a); v.are(l.a, l.b) },
			"an address of no known subnet": func() {
				w := v.small.wish()
				w.Containers = append(w.Containers, addr("192.0.2.9"))
				w.Subnets = v.Driver.wish.Subnets
				apply(t, v.Driver, w)
			},
			"counters that were taken away": func() { run(t, "ipset", "flush", subnetsSet(false).name); inDrift(t, v.Driver); v.are(l.a, l.b, l.c) },
		} {
			reason()
			if !v.look().Listed {
				t.Errorf("%s: no connections are listed", name)
			}
			v.are(l.a, l.b)
			v.leave(l.c)
			v.look()
		}
	})
	refused := regexp.MustCompile(`(?m)^\[[1-9][0-9]*:[0-9]+\] -A NG-(FORWARD|INPUT) ! -p (tcp|6) .*-cut .*-j DROP`)
	for name, pick := range map[string]func(*lab) (from, to *node){
		"routed":            func(l *lab) (from, to *node) { return l.a, l.c },
		"within_the_bridge": func(l *lab) (from, to *node) { return l.a, l.b },
		"from_the_host":     func(l *lab) (from, to *node) { return nil, l.c },
	} {
		forLabs(t, "an_address_that_somebody_sent_to_before_answers_nothing/"+name, func(t *testing.T, l *lab) {
			v := newVacantLab(t)
			from, to := pick(l)
			early, late := newTalker(t, from, 5000), newTalker(t, to, 53)
			for i, a := range to.addrs {
				source := to.gateways[i]
				if from != nil {
					source = from.addrs[i]
				}
				before := late.heard.Load()
				await(t, 10*time.Second, "the first packet comes", func() bool {
					early.say(netip.AddrPortFrom(a, 53))
					return late.heard.Load() > before
				})
				if v.are(to); v.vacant(to) {
					t.Errorf("%s is vacant", a)
				}
				if r := v.look(); !r.Listed || r.Cut == 0 {
					t.Errorf("%s: report = %+v", a, r)
				}
				await(t, 10*time.Second, "the answer is refused", func() bool {
					late.say(netip.AddrPortFrom(source, 5000))
					return refused.MatchString(run(t, cmdOf(v.Driver, i == 1)+"-save", "-c"))
				})
				if n := early.heard.Load(); n > 0 {
					t.Errorf("%s: %d answers came", a, n)
				}
				v.are()
				v.leave(to)
			}
		})
		// The list of another's end shows who is used.
		forLabs(t, "a_list_for_somebody_else_forgets_none/"+name, func(t *testing.T, l *lab) {
			v := newVacantLab(t)
			from, to := pick(l)
			early, late := newTalker(t, from, 5000), newTalker(t, to, 53)
			await(t, 10*time.Second, "the first packet comes", func() bool {
				early.say(netip.AddrPortFrom(to.addrs[0], 53))
				return late.heard.Load() > 0
			})
			v.leave(&node{addrs: [2]netip.Addr{addr("10.77.0.9"), addr("2001:db8:77::9")}})
			v.are(to)
			if r := v.look(); !r.Listed || r.Cut == 0 {
				t.Errorf("report = %+v", r)
			}
		})
	}
}

// inDrift fails the test unless a look at the kernel finds a difference.
func inDrift(t *testing.T, d *Driver) {
	t.Helper()
	if drift, err := d.Verify(t.Context()); err != nil || len(drift.Changes) == 0 {
		t.Errorf("%+v, %v", drift, err)
	}
}

// TestListGoesOn: what changes while connections are listed counts.
func TestListGoesOn(t *testing.T) {
	l := newLab(t, NFT)
	v := newVacantLab(t)
	v.are(l.a, l.b)
	meanwhile := func(f func()) {
		t.Helper()
		woken := make(chan struct{}, 100)
		if err := v.Begin(t.Context(), nil, true, func() { woken <- struct{}{} }); err != nil {
			t.Fatal(err)
		}
		f()
		for {
			if _, over, err := v.Next(v.allows); err != nil {
				t.Fatal(err)
			} else if over {
				return
			}
			<-woken
		}
	}
	meanwhile(func() {
		v.are(l.a)
		run(t, "ipset", "add", "ng4-cut", "10.77.0.1,udp:80,10.77.0.2") // as Next may, just before
	})
	if left := run(t, "ipset", "save", "ng4-cut"); strings.Contains(left, "add ") {
		t.Errorf("notes about a container that is gone:\n%s", left)
	}
	w := *v.Driver.wish
	w.Subnets = append(slices.Clone(w.Subnets), netip.MustParsePrefix("192.0.2.0/24"))
	meanwhile(func() { apply(t, v.Driver, w) })
	w.Containers = append(slices.Clone(w.Containers), addr("192.0.2.9"))
	apply(t, v.Driver, w)
	if !v.look().Listed {
		t.Error("no connections are listed of a subnet that was not counted when the last list began")
	}
}

// TestListAndCleanup: a clean-up while connections are listed does no harm.
func TestListAndCleanup(t *testing.T) {
	l := newLab(t, NFT)
	v := newVacantLab(t)
	v.are(l.a, l.c)
	c := connections(t)
	if err := c.Create(conntrack.NewFlow(17, 0, l.a.addrs[0], l.c.addrs[0], 5000, 80, 300, 0)); err != nil {
		t.Fatal(err)
	}
	woken := make(chan struct{}, 100)
	if err := v.Begin(t.Context(), nil, true, func() { woken <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	if err := v.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	for over := false; !over; {
		<-woken
		_, over, _ = v.Next(func(Flow) bool { return true })
	}
	apply(t, v.Driver, v.small.wish())
	if r, err := v.Cut(t.Context(), false, v.allows); err != nil || !r.Listed {
		t.Errorf("afterwards: %+v, %v", r, err)
	}
}
