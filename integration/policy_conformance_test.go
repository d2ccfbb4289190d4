package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

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
	for _, name := range short {
		if !slices.ContainsFunc(conformance.Cases(), func(c conformance.Case) bool { return c.Name == name }) {
			t.Errorf("no case is called %s", name)
		}
	}
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
