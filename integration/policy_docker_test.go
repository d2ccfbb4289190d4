package integration

import (
	"slices"
	"testing"

	. "netguard/integration/harness"
)

// permissive allows everything that a policy can allow.
const permissive = "{name: open, select: {}, ingress: [{}], egress: [{}]}\n"

// TestPoliciesOnlySubtract: what Docker refuses stays refused, whatever policies
// allow.
func TestPoliciesOnlySubtract(t *testing.T) {
	t.Parallel()
	// dockerd switches br_netfilter on where a network has icc=false.
	e := Start(t, WithIPv6(), WithOutside(), WithBridgeNetfilter())
	e.Network("quiet", NoICC(), Subnet("198.18.30.0/24"), Subnet("fd00:30::/64"))
	e.Network("inner", Internal(), Subnet("198.18.31.0/24"))
	e.Network("one", Subnet("198.18.32.0/24"), Subnet("fd00:32::/64"))
	e.Network("two", Subnet("198.18.33.0/24"), Subnet("fd00:33::/64"))
	services := []string{"tcp/80", "udp/53"}
	guests := map[string]*guest{}
	for _, at := range []string{"quiet", "inner", "one", "two"} {
		for _, n := range []string{"1", "2"} {
			guests[at+n] = welcome(t, e, at+n, at, services)
		}
	}
	outside, self := &spot{"outside", e.Outside.Netns}, &spot{"host", e.Netns}
	openDoors(t, outside, services, OutsideIPv4, OutsideIPv6)
	all := slices.Concat(
		guests["quiet1"].to(false, guests["quiet2"], services...),
		self.to(true, "host>quiet1", "tcp/80", guests["quiet1"].addrs...),
		guests["quiet1"].at.to(true, "quiet1>outside", "tcp/80", OutsideIPv4, OutsideIPv6),
		guests["inner1"].to(true, guests["inner2"], services...),
		guests["inner1"].at.to(false, "inner1>outside", "tcp/80", OutsideIPv4),
		outside.to(false, "outside>inner1", "tcp/80", guests["inner1"].addrs...),
		guests["one1"].to(true, guests["one2"], services...),
		guests["one1"].at.to(true, "one1>outside", "tcp/80", OutsideIPv4, OutsideIPv6),
		outside.to(false, "outside>one1", "tcp/80", guests["one1"].addrs...),
	)
	for _, from := range []string{"quiet1", "inner1", "one1", "two1"} {
		for _, to := range []string{"quiet1", "inner1", "one1", "two1"} {
			if from != to {
				all = append(all, guests[from].to(false, guests[to], services...)...)
			}
		}
	}
	t.Run("what_Docker_refuses", func(t *testing.T) { mustKnock(t, all) })
	book := newRulebook(e, e.Agent())
	book.awaitAdmitted(t, len(guests))
	t.Run("it_refuses_without_policies", func(t *testing.T) { mustKnock(t, all) })
	book.enact(t, map[string]string{"open.yaml": permissive})
	t.Run("it_refuses_whatever_policies_allow", func(t *testing.T) { mustKnock(t, all) })
}
