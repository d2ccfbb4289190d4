package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	. "netguard/integration/harness"
)

// TestPublishedPorts: who comes by a port of the host is judged by its own
// address, and a container does not get round a policy that way.
func TestPublishedPorts(t *testing.T) {
	t.Parallel()
	for _, proxy := range []bool{true, false} {
		t.Run(fmt.Sprintf("userland_proxy_%t", proxy), func(t *testing.T) {
			options := []Option{WithIPv6(), WithOutside(), DaemonConfig(fmt.Sprintf(`{"userland-proxy": %t}`, proxy))}
			if !proxy {
				// Without it the answer to a neighbour goes past the translation.
				options = append(options, WithBridgeNetfilter())
			}
			e := Start(t, options...)
			e.Network("front", Subnet("198.18.40.0/24"), Subnet("fd00:40::/64"))
			e.Network("far", Subnet("198.18.41.0/24"), Subnet("fd00:41::/64"))
			services := []string{"tcp/80", "udp/53"}
			web := welcome(t, e, "web", "front", services, Service("shop", "web"), Publish("8080:80/tcp"), Publish("8053:53/udp"))
			near := welcome(t, e, "near", "front", services, Service("shop", "near"))
			friend := welcome(t, e, "friend", "far", services, Service("shop", "friend"))
			stranger := welcome(t, e, "stranger", "far", services, Service("blog", "web"))
			office, visitor, office6, visitor6 := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("198.51.100.200"),
				netip.MustParseAddr("2001:db8:51::10"), netip.MustParseAddr("2001:db8:51::200")
			for _, a := range []netip.Addr{office, visitor, office6, visitor6} {
				e.Outside.AddAddr(a.String())
			}
			outside := &spot{"outside", e.Outside.Netns}
			book := newRulebook(e, e.Agent())
			book.awaitAdmitted(t, 4)

			// by are connections to the published ports.
			by := func(open bool, s *spot, what string, source netip.Addr) []*knock {
				at := HostIPv4
				if source.Is6() {
					at = HostIPv6
				}
				all := slices.Concat(s.to(open, what, "tcp/8080", at), s.to(open, what, "udp/8053", at))
				for _, k := range all {
					k.source = source
				}
				return all
			}
			// from is a container's way round. Docker itself isolates networks where
			// there is no proxy; and where there is, what it answers by UDP comes from
			// another address than was asked.
			from := func(open bool, g *guest) []*knock {
				open = open && (proxy || g == near)
				if open && proxy {
					return slices.Concat(g.at.to(true, g.Name, "tcp/8080", HostIPv4), g.at.to(true, g.Name, "tcp/8080", HostIPv6))
				}
				return slices.Concat(by(open, g.at, g.Name, netip.Addr{}), by(open, g.at, g.Name, netip.IPv6Unspecified()))
			}
			// ask sees that a client keeps its address on the way.
			ask := func(t *testing.T, client netip.Addr) {
				t.Helper()
				mustKnock(t, by(true, outside, "client "+client.String(), client))
				for _, s := range services {
					if got := web.doors.client(s); got != client {
						t.Errorf("%s: the container sees %s, not %s", s, got, client)
					}
				}
			}
			t.Run("all_are_open_without_policies", func(t *testing.T) {
				for _, client := range []netip.Addr{office, visitor, office6, visitor6} {
					ask(t, client)
				}
				mustKnock(t, slices.Concat(from(true, near), from(true, friend), from(true, stranger)))
			})
			t.Run("a_rule_sees_the_client_and_the_containers_own_port", func(t *testing.T) {
				book.enact(t, map[string]string{"web.yaml": `{name: web, select: {project: shop, service: web},
  ingress: [{from: [{cidr: 198.51.100.0/24, except: [198.51.100.128/25]}, {cidr: "2001:db8:51::/64", except: ["2001:db8:51::200/128"]}], ports: [tcp/80, udp/53]}]}`})
				ask(t, office)
				ask(t, office6)
				mustKnock(t, slices.Concat(by(false, outside, "visitor", visitor), by(false, outside, "visitor6", visitor6)))
			})
			t.Run("the_way_round_by_the_host_is_closed_for_who_is_not_allowed", func(t *testing.T) {
				mustKnock(t, slices.Concat(from(false, near), from(false, friend), from(false, stranger),
					near.to(false, web, services...)))
			})
			t.Run("it_is_open_for_who_is", func(t *testing.T) {
				allowed := "{service: near}, {service: friend}"
				enact := func() {
					book.enact(t, map[string]string{"web.yaml": fmt.Sprintf(`{name: web, select: {project: shop, service: web},
  ingress: [{from: [%s], ports: [tcp/80, udp/53]}]}`, allowed)})
				}
				if proxy {
					// The proxy's own connection is the host's. Nothing tells it from
					// others of the host, so that without the host it stays closed.
					enact()
					watch := watching(t, e, book.a, "-o", "json")
					mustKnock(t, slices.Concat(from(false, near), from(false, friend), from(false, stranger), near.to(true, web, services...)))
					proxyIsTold(t, book, web, watch)
					allowed += ", {entity: host}"
				}
				enact()
				mustKnock(t, slices.Concat(from(true, near), from(true, friend), from(false, stranger), near.to(true, web, services...),
					by(false, outside, "office", office), by(false, outside, "office6", office6)))
			})
			t.Run("the_host_being_allowed_does_not_open_it", func(t *testing.T) {
				book.enact(t, map[string]string{"web.yaml": `{name: web, select: {project: shop, service: web}, ingress: [{from: [{entity: host}]}]}`})
				mustKnock(t, slices.Concat(from(false, near), from(false, friend), from(false, stranger),
					(&spot{"host", e.Netns}).to(true, "host>web", "tcp/80", web.addrs...),
					(&spot{"host", e.Netns}).to(true, "host>published", "tcp/8080", HostIPv4)))
			})
			t.Run("the_host_is_held_by_whichever_address_it_takes", func(t *testing.T) {
				hostByPublishedPort(t, e, book, web, proxy)
			})
			t.Run("explain_tells_what_happens", func(t *testing.T) {
				explainPublished(t, e, book, proxy, near, friend, stranger)
			})
			t.Run("a_senders_egress_counts_on_the_way_round", func(t *testing.T) {
				book.enact(t, map[string]string{"near.yaml": `{name: near, select: {project: shop, service: near}, egress: [{to: [{entity: external}]}]}`})
				mustKnock(t, slices.Concat(from(false, near), from(true, friend), from(true, stranger)))
			})
			t.Run("a_guardrail_wins", func(t *testing.T) {
				book.enact(t, map[string]string{"web.yaml": permissive + `---
{name: no-friend, select: {project: shop, service: web}, deny: [{ingress: {from: [{service: friend}, {cidr: 198.51.100.10/32}, {cidr: "2001:db8:51::10/128"}]}}]}`})
				mustKnock(t, slices.Concat(from(true, near), from(false, friend), from(true, stranger),
					by(false, outside, "office", office), by(false, outside, "office6", office6),
					by(true, outside, "visitor", visitor), by(true, outside, "visitor6", visitor6)))
			})
		})
	}
}
