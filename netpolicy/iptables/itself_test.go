package iptables

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"netguard/netpolicy"
)

// publish leads connections of the host to port 8080 of each of its own addresses on to
// port 80 of a container, as Docker does: those to loopback too, as without its proxy.
func publish(t *testing.T, d *Driver, n *node) {
	t.Helper()
	for i, cmd := range cmds(d) {
		to := netip.AddrPortFrom(n.addrs[i], 80).String()
		for _, network := range []string{"tcp", "udp"} {
			run(t, cmd, "-t", "nat", "-A", "OUTPUT", "-p", network, "-m", "addrtype", "--dst-type", "LOCAL", "-m", network, "--dport", "8080", "-j", "DNAT", "--to-destination", to)
		}
	}
	run(t, cmds(d)[0], "-t", "nat", "-A", "POSTROUTING", "-m", "addrtype", "--src-type", "LOCAL", "-o", "br1", "-j", "MASQUERADE")
	sysctl(t, "net/ipv4/conf/br1/route_localnet", "1")
}

// ownAddresses are those of the host by which it reaches a published port: of the
// container's bridge, of another one, of no network, and IPv4's loopback.
func ownAddresses(l *lab) []netip.Addr {
	return []netip.Addr{l.c.gateways[0], l.c.gateways[1], l.a.gateways[0], l.a.gateways[1],
		addr("198.18.77.1"), addr("2001:db8:1::77"), addr("127.0.0.1")}
}

func TestHostByItsOwnAddress(t *testing.T) {
	start := func(t *testing.T, l *lab, d *Driver) {
		addAddress(t, "lo", "198.18.77.1/32")
		addAddress(t, "lo", "2001:db8:1::77/128")
		serve(t, l.c, 80)
		serve(t, nil, 70)
		apply(t, d, policy("a", nil, nil).wish()) // nobody is held
		publish(t, d, l.c)
	}
	forLabs(t, "is_judged_by_where_it_is_led", func(t *testing.T, l *lab) {
		d := open(t)
		start(t, l, d)
		check := func(what string, want bool) {
			t.Helper()
			for _, network := range []string{"tcp", "udp"} {
				for _, to := range ownAddresses(l) {
					if have := reaches(t, nil, network, netip.AddrPortFrom(to, 8080), want); have != want {
						t.Errorf("%s: %s to %s: passes = %t", what, network, to, have)
					}
				}
				for _, to := range append(ownAddresses(l), addr("::1")) {
					if !reaches(t, nil, network, netip.AddrPortFrom(to, 70), true) {
						t.Errorf("%s: the host does not reach itself by %s at %s", what, network, to)
					}
				}
			}
		}
		check("without a policy", true)
		held := policy("b", []*node{l.a}, []*node{l.b, l.c}, 80)
		apply(t, d, held.wish())
		check("refused", false)
		denied, err := d.Denied()
		if err != nil {
			t.Fatal(err)
		}
		for i := range familyNames {
			if denied[l.c.addrs[i]] < 6 {
				t.Errorf("denied = %v", denied)
			}
		}
		w := watcher(t)
		apply(t, w, held.wish())
		check("only watched", true)
		if would, err := w.Denied(); err != nil || would[l.c.addrs[0]] <= denied[l.c.addrs[0]] || would[l.c.addrs[1]] <= denied[l.c.addrs[1]] {
			t.Errorf("what would be refused is not counted: %v, before %v (%v)", would, denied, err)
		}
	})
	forLabs(t, "is_judged_so_where_a_container_is_an_address_on_a_bridge", func(t *testing.T, l *lab) {
		d := open(t)
		start(t, l, d)
		loaded := netpolicy.Load([]netpolicy.Source{{Name: "c.yaml", Data: []byte("{name: c, select: {container: c}, ingress: [{from: [{entity: host}], ports: [udp]}]}")}})
		if faults := loaded.Faults(); len(faults) > 0 {
			t.Fatal(faults)
		}
		c := netpolicy.Endpoint{Workload: netpolicy.Workload{ID: "id-c", Name: "c"}, Network: "br1", Bridge: "br1", Managed: true, Addrs: l.c.addrs[:]}
		apply(t, d, Wish{Rules: netpolicy.Compile(netpolicy.World{Endpoints: []*netpolicy.Endpoint{&c}, Policies: loaded.Policies(), Places: true}), Homes: labHomes, Containers: l.c.addrs[:]})
		for _, to := range ownAddresses(l) {
			for network, want := range map[string]bool{"tcp": false, "udp": true} {
				if have := reaches(t, nil, network, netip.AddrPortFrom(to, 8080), want); have != want {
					t.Errorf("%s to %s: passes = %t", network, to, have)
				}
			}
		}
		inSync(t, d)
	})
	forLabs(t, "does_not_keep_what_is_refused", func(t *testing.T, l *lab) {
		d := open(t)
		start(t, l, d)
		var streams, own []*stream
		for _, network := range []string{"tcp", "udp"} {
			for _, to := range ownAddresses(l) {
				streams = append(streams, newStream(t, nil, network, netip.AddrPortFrom(to, 8080)))
				own = append(own, newStream(t, nil, network, netip.AddrPortFrom(to, 70)))
			}
		}
		held := policy("b", []*node{l.a}, []*node{l.b, l.c}, 80)
		apply(t, d, held.wish())
		began := time.Now()
		if r := cut(t, d, held.allows); r.Cut != len(streams) {
			t.Errorf("report = %+v of %d streams", r, len(streams))
		}
		for _, s := range streams {
			if late := s.stopped(t, began); late > time.Second {
				t.Errorf("%s went on for %s", s.name, late)
			}
		}
		allGoOn(t, own)
	})
	forLabs(t, "is_judged_from_the_moment_on_that_an_older_anchor_is_replaced", func(t *testing.T, l *lab) {
		d := open(t)
		start(t, l, d)
		held := policy("b", []*node{l.a}, []*node{l.b, l.c}, 80)
		apply(t, d, held.wish())
		for _, cmd := range cmds(d) {
			run(t, cmd, "-I", "OUTPUT", "1", "!", "-o", "lo", "-j", chainOutput)
			run(t, cmd, "-D", "OUTPUT", "-j", chainOutput)
		}
		passed := sink(t, l.c, 90)
		stop, tried := make(chan struct{}), atomic.Int64{}
		defer close(stop)
		for i := range familyNames {
			conn, err := net.Dial("udp", netip.AddrPortFrom(l.c.addrs[i], 90).String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go func() {
				for {
					select {
					case <-stop:
						return
					default:
						_, _ = conn.Write([]byte{1}) // what rules drop is an error
						tried.Add(1)
					}
				}
			}()
		}
		more := func() {
			n := tried.Load()
			await(t, 5*time.Second, "packets are tried", func() bool { return tried.Load() > n+100 })
		}
		more()
		newer := open(t)
		apply(t, newer, held.wish())
		more()
		if n := passed.Load(); n != 0 {
			t.Errorf("%d packets passed", n)
		}
		for i, cmd := range cmds(newer) {
			if out := run(t, cmd, "-S", "OUTPUT"); strings.Count(out, chainOutput) != 1 {
				t.Errorf("%s: %s", familyNames[i], out)
			}
			if reaches(t, nil, "tcp", netip.AddrPortFrom(l.c.gateways[i], 8080), false) {
				t.Errorf("%s: the host reaches the published port", familyNames[i])
			}
		}
		inSync(t, newer)
	})
}

// TestItselfIsCheap: what the host says to itself meets two rules, one of them a look-up.
func TestItselfIsCheap(t *testing.T) {
	for i, f := range states()[0].rules().Families() {
		l, err := lay(f, Options{Samples: true})
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(l.static, func(c chain) bool { return c.name == chainOutput })
		if have := fmt.Sprintf("%q", l.static[at].rules[:2]); have != `["-m conntrack --ctstate ESTABLISHED -j RETURN" "-o lo -m addrtype --dst-type LOCAL -j RETURN"]` {
			t.Errorf("%s: %s", familyNames[i], have)
		}
	}
}
