package integration

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	. "netguard/integration/harness"
	"netguard/netpolicy/conformance"
)

// host is a real engine on which the cases of the table are played.
type host struct {
	e        *Engine
	book     *rulebook
	networks []conformance.Network // with the engine's name of each
	names    map[string]string     // the engine's name of a network
	six      func(network int) netip.Prefix
	self     *spot
	outside  *spot
}

// variant is one way in which a host may be set up.
type variant struct {
	name    string
	options []Option
	bridge  bool // on the default bridge
	filter  string
}

func variants() []variant {
	return []variant{
		{name: "own_networks", filter: "0"},
		{name: "own_networks_with_bridge_netfilter", filter: "1", options: []Option{WithBridgeNetfilter()}},
		{name: "default_bridge", filter: "0", bridge: true, options: []Option{Flags("--bip", "172.30.1.1/24")}},
		{name: "default_bridge_with_bridge_netfilter", filter: "1", bridge: true,
			options: []Option{Flags("--bip", "172.30.1.1/24"), WithBridgeNetfilter()}},
	}
}

// fits tells whether a case can be played.
func (v variant) fits(c conformance.Case) bool {
	return !v.bridge || len(c.Networks) == 1 && !strings.Contains(c.Policies, "network:")
}

var outsiders = []string{"198.51.100.7", "198.51.100.200", "203.0.113.9", "2001:db8:7::7", "2001:db8:7::ff", "2001:db8:9::9"}

func newHost(t *testing.T, v variant) *host {
	t.Helper()
	// Without docker-proxy a client from outside keeps its address in both families.
	options := append([]Option{WithOutside(), WithIPv6(), DaemonConfig(`{"userland-proxy": false}`)}, v.options...)
	h := &host{e: Start(t, options...), names: map[string]string{}, six: conformance.Subnet6}
	h.networks = []conformance.Network{{Name: "front"}, {Name: "back"}, {Name: "old"}}
	for i, n := range h.networks {
		h.names[n.Name] = n.Name
		switch {
		case !v.bridge:
			h.e.Network(n.Name, Subnet(conformance.Subnet4(i).String()), Subnet(conformance.Subnet6(i).String()))
		case i == 0:
			h.names[n.Name] = "bridge"
			h.six = func(int) netip.Prefix { return netip.MustParsePrefix("fd00:d0c::/64") }
		}
	}
	for _, a := range outsiders {
		h.e.Outside.AddAddr(a)
	}
	h.self, h.outside = &spot{conformance.HostName, h.e.Netns}, &spot{"outside", h.e.Outside.Netns}
	h.book = newRulebook(h.e, h.e.Agent())
	if got := strings.TrimSpace(h.e.Output("cat", "/proc/sys/net/bridge/bridge-nf-call-iptables")); got != v.filter {
		t.Fatalf("bridge-nf-call-iptables is %s, want %s", got, v.filter)
	}
	return h
}

// cast is a group of cases with the same containers.
type cast struct {
	containers []conformance.Container
	cases      []conformance.Case
}

// casts groups cases so that containers are made once for all that can share them.
func casts(cases []conformance.Case) []*cast {
	var all []*cast
	by := map[string]*cast{}
	for _, c := range cases {
		var key strings.Builder
		for _, k := range c.Containers {
			fmt.Fprintf(&key, "%q %q %q %q %q\n", k.Name, k.Project, k.Service, k.Networks, k.Labels)
		}
		g := by[key.String()]
		if g == nil {
			g = &cast{containers: c.Containers}
			by[key.String()] = g
			all = append(all, g)
		}
		g.cases = append(g.cases, c)
	}
	return all
}

// services are those of all cases, each once.
func (g *cast) services(published bool) []string {
	var all []string
	for _, c := range g.cases {
		if published && len(c.Outside) == 0 {
			continue
		}
		all = append(all, c.Services...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// published is the port of the host at which the outside reaches a container's.
func (g *cast) published(container int, service string) uint16 {
	return uint16(20000 + 100*container + slices.Index(g.services(true), service))
}

// actors are the containers of a cast, as they run.
type actors struct {
	*cast
	host  *host
	spots map[string]*spot
	runs  map[string]*Container
	addrs map[string]netip.Addr
}

func addrKey(name, network string, six bool) string { return fmt.Sprint(name, " ", network, " ", six) }

// play starts the containers, all at once, and their servers.
func (h *host) play(t *testing.T, g *cast) *actors {
	t.Helper()
	e := h.e.For(t)
	a := &actors{cast: g, host: h, spots: map[string]*spot{}, runs: map[string]*Container{}, addrs: map[string]netip.Addr{}}
	made := make([]*Container, len(g.containers))
	var group errgroup.Group
	endpoints := 0
	for i, k := range g.containers {
		endpoints += len(k.Networks)
		options := []ContainerOption{Labels(k.Labels)}
		if k.Project != "" {
			options = append(options, Service(k.Project, k.Service))
		}
		for _, n := range k.Networks {
			if h.names[n] == "bridge" {
				continue // no address can be asked for
			}
			at := conformance.Addr(conformance.Subnet4(slices.IndexFunc(h.networks, func(o conformance.Network) bool { return o.Name == n })), i)
			at6 := conformance.Addr(conformance.Subnet6(slices.IndexFunc(h.networks, func(o conformance.Network) bool { return o.Name == n })), i)
			options = append(options, On(h.names[n], at.String(), at6.String()))
		}
		for _, s := range g.services(true) {
			protocol, port, _ := strings.Cut(s, "/")
			if protocol == "tcp" || protocol == "udp" {
				options = append(options, Publish(fmt.Sprintf("%d:%s/%s", g.published(i, s), port, protocol)))
			}
		}
		group.Go(func() error {
			c, err := e.TryCreate(k.Name, options...)
			if err != nil {
				return err
			}
			made[i] = c
			return c.TryStart(context.Background())
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // sooner than one after the other
		var group errgroup.Group
		for _, c := range made {
			group.Go(func() error { c.Remove(); return nil })
		}
		_ = group.Wait()
		h.book.awaitAdmitted(t, 0)
	})
	h.book.awaitAdmitted(t, endpoints)
	for i, k := range g.containers {
		s := &spot{k.Name, made[i].Inside()}
		var own []netip.Addr
		settings := made[i].Inspect().NetworkSettings
		for _, n := range k.Networks {
			there := settings.Networks[h.names[n]]
			index := slices.IndexFunc(h.networks, func(o conformance.Network) bool { return o.Name == n })
			for six, text := range map[bool]string{false: there.IPAddress, true: there.GlobalIPv6Address} {
				at := netip.MustParseAddr(text)
				own = append(own, at)
				a.addrs[addrKey(k.Name, n, six)] = at
				subnet := conformance.Subnet4(index)
				if six {
					subnet = h.six(index)
				}
				a.addrs[addrKey(conformance.HostName, n, six)] = conformance.HostAddr(subnet)
			}
		}
		openDoors(t, s, g.services(false), own...)
		a.spots[k.Name], a.runs[k.Name] = s, made[i]
	}
	openDoors(t, h.self, g.services(false), a.hostAddrs()...)
	var out []netip.Addr
	for _, text := range outsiders {
		out = append(out, netip.MustParseAddr(text))
	}
	openDoors(t, h.outside, g.services(false), out...)
	return a
}

func (a *actors) hostAddrs() []netip.Addr {
	var all []netip.Addr
	for key, at := range a.addrs {
		if strings.HasPrefix(key, conformance.HostName+" ") {
			all = append(all, at)
		}
	}
	return all
}

// knocks are the connections of a case's matrix, in each family that it is about.
func (a *actors) knocks(c conformance.Case) []*knock {
	var all []*knock
	for _, p := range c.Matrix() {
		for _, six := range []bool{false, true} {
			if six && !c.Networks[c.NetworkIndex(p.Network)].IPv6 {
				continue
			}
			if k := a.knock(c, p, six); k != nil {
				all = append(all, k)
			}
		}
	}
	return all
}

// openKnocks are those of all cases, as they must be where no policy closes them:
// each refusal of a case is the policy's doing.
func (a *actors) openKnocks() []*knock {
	shut := func(name string) bool {
		return slices.ContainsFunc(a.containers, func(c conformance.Container) bool {
			return c.Name == name && slices.ContainsFunc(slices.Collect(maps.Keys(c.Labels)), func(l string) bool { return strings.HasPrefix(l, "netguard.") })
		})
	}
	var all []*knock
	seen := map[string]bool{}
	for _, c := range a.cases {
		c.Want = []string{"+ *>* *"}
		for _, k := range a.knocks(c) {
			key := fmt.Sprint(k.what, k.to, k.source)
			ends, _, _ := strings.Cut(k.what, "@")
			from, to, _ := strings.Cut(ends, ">")
			if !seen[key] && !shut(from) && !shut(to) {
				seen[key] = true
				all = append(all, k)
			}
		}
	}
	return all
}

// knock is nil for what Docker itself does not let through.
func (a *actors) knock(c conformance.Case, p conformance.Probe, six bool) *knock {
	protocol, port, _ := strings.Cut(p.Service, "/")
	var number uint16
	if protocol != "icmp" {
		if _, err := fmt.Sscan(port, &number); err != nil {
			panic(err)
		}
	}
	k := &knock{protocol: protocol, open: p.Open, what: p.String()}
	outsider := func(name string) netip.Addr {
		for _, o := range c.Outside {
			if o.Name == name && six {
				return netip.MustParseAddr(o.IPv6)
			} else if o.Name == name {
				return netip.MustParseAddr(o.IPv4)
			}
		}
		return netip.Addr{}
	}
	k.to = netip.AddrPortFrom(a.addrs[addrKey(p.To, p.Network, six)], number)
	if at := outsider(p.To); at.IsValid() {
		k.to = netip.AddrPortFrom(at, number)
	}
	switch at := outsider(p.From); {
	case at.IsValid():
		if protocol == "icmp" {
			return nil // it cannot be published
		}
		k.from, k.source = a.host.outside, at
		to := HostIPv4
		if six {
			to = HostIPv6
		}
		k.to = netip.AddrPortFrom(to, a.published(slices.IndexFunc(c.Containers, func(o conformance.Container) bool { return o.Name == p.To }), p.Service))
	case p.From == conformance.HostName:
		k.from = a.host.self
	default:
		k.from = a.spots[p.From]
	}
	return k
}

// conform plays cases on a host.
func conform(t *testing.T, v variant, cases []conformance.Case) {
	h := newHost(t, v)
	tried := 0
	for _, g := range casts(cases) {
		t.Run(g.cases[0].Name, func(t *testing.T) {
			h.book.enact(t, nil)
			a := h.play(t, g)
			t.Run("open_without_policies", func(t *testing.T) { mustKnock(t, a.openKnocks()) })
			for _, c := range g.cases {
				t.Run(c.Name, func(t *testing.T) {
					h.book.enact(t, map[string]string{"case.yaml": c.Policies})
					all := a.knocks(c)
					tried += len(all)
					if wrong := knockAll(t, all); len(wrong) > 0 {
						t.Errorf("%s: %s\n%s\n%s", c.Name, c.Why, c.Policies, describe(all, wrong))
					}
				})
			}
			h.book.enact(t, nil)
		})
	}
	t.Logf("%d cases, %d connections", len(cases), tried)
}

func fitting(v variant) []conformance.Case {
	return slices.DeleteFunc(conformance.Cases(), func(c conformance.Case) bool { return !v.fits(c) })
}

// TestSoakConformance is the whole table, on every kind of host.
func TestSoakConformance(t *testing.T) {
	soaking(t)
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) { conform(t, v, fitting(v)) })
	}
}

// short are the cases that every run of the tests plays.
var short = []string{"no_policy", "default_deny_both", "default_deny_everyone", "replies_need_no_rule", "any_project", "one_port", "ping",
	"ports_go_with_their_peers", "whole_protocol", "cidr_except", "cidr_ipv6", "entity_host", "entity_external", "deny_wins", "networks",
	"label_narrows_policy", "label_fault"}

// TestConformance is a part of the table on every kind of host.
func TestConformance(t *testing.T) {
	for i, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			var some []conformance.Case
			for _, c := range fitting(v) {
				if slices.Contains(short, c.Name) && (i == 0 || strings.HasPrefix(fmt.Sprint(c.Containers), fmt.Sprint(conformance.Cases()[0].Containers))) {
					some = append(some, c)
				}
			}
			conform(t, v, some)
		})
	}
}
