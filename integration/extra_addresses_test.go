package integration

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// TestExtraAddresses: what a label names as its container's own changes nothing for
// others, and nothing beyond the container's own port.
func TestExtraAddresses(t *testing.T) {
	t.Parallel()
	e := Start(t, WithIPv6(), WithOutside())
	e.Network("front", Subnet("198.18.60.0/24"), Subnet("fd00:60::/64"))
	e.Network("back", Subnet("198.18.61.0/24"), Subnet("fd00:61::/64"))
	services := []string{"tcp/443", "udp/53"}
	office := []netip.Addr{netip.MustParseAddr("198.51.100.66"), netip.MustParseAddr("2001:db8:51::66")}
	for _, a := range office {
		e.Outside.AddAddr(a.String())
	}
	outside, host := &spot{"outside", e.Outside.Netns}, &spot{"host", e.Outside.Netns}
	host.Netns = e.Netns
	hostAddrs := []netip.Addr{HostIPv4, HostIPv6}
	// Nothing but netguard shall tell forged addresses.
	e.Output("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf."+Uplink+".rp_filter=0")
	openDoors(t, outside, services, office...)
	openDoors(t, host, services, hostAddrs...)
	shop := func(service string) ContainerOption { return Service("shop", service) }
	web, db := welcome(t, e, "web", "front", services, shop("web")), welcome(t, e, "db", "front", services, shop("db"), Publish("9443:443/tcp"))
	free, far := welcome(t, e, "free", "front", services, shop("free"), Publish("8443:443/tcp"), Publish("8053:53/udp")), welcome(t, e, "far", "back", services, shop("far"))
	book := newRulebook(e, e.Agent())
	book.awaitAdmitted(t, 4)
	book.enact(t, map[string]string{
		"web.yaml": `{name: web, select: {project: shop, service: web}, deny: [{egress: {to: [{entity: external}]}}]}`,
		"far.yaml": `{name: far, select: {project: shop, service: far}, egress: [{to: [{service: evil}, {service: vip}]}]}`,
		"db.yaml":  `{name: db, select: {project: shop, service: db}, ingress: [{from: [{service: evil}, {service: vip}]}]}`,
	})
	findings := func(c *Container, words ...string) func(control.Status) bool {
		return func(s control.Status) bool {
			ep, _ := Endpoint(s, c, "front")
			said := strings.Join(ep.Findings, "\n")
			return Whole(ep) && s.InSync && (len(words) > 0 || said == "") &&
				!slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(said, w) })
		}
	}
	// by has connections come from an address of the sender's.
	by := func(source netip.Addr, all []*knock) []*knock {
		for _, k := range all {
			k.source = source
		}
		return all
	}
	// world is what is so for everybody, whatever a label of somebody's says.
	world := func(t *testing.T) []*knock {
		t.Helper()
		var all []*knock
		for i, a := range office {
			for _, s := range services {
				all = slices.Concat(all,
					host.to(true, "the host to the office", s, a),
					by(a, outside.to(true, "the office to the host", s, hostAddrs[i])),
					free.at.to(true, "who is open to the office", s, a),
					web.at.to(false, "who must not leave to the office", s, a),
					far.at.to(false, "who may reach the one that names the office", s, a))
			}
		}
		return slices.Concat(all,
			by(office[0], outside.to(false, "the office to who lets in the one that names it", "tcp/9443", HostIPv4)),
			by(office[0], outside.to(true, "the office to who is open", "tcp/8443", HostIPv4)))
	}
	mustKnock(t, world(t))
	named := office[0].String() + "," + office[1].String()

	t.Run("outside_the_network_do_not_count", func(t *testing.T) {
		for name, more := range map[string][]ContainerOption{"closed": {Label("netguard.egress", "[]"), Label("netguard.ingress", "[]")}, "open": nil} {
			t.Run(name, func(t *testing.T) {
				evil := e.For(t).Run("evil", append(more, On("front"), shop("evil"), Label(allowLabel, named))...)
				book.await(t, "status names them", findings(evil, office[0].String()+" is left out", office[1].String()+" is left out", "guard.allow"))
				mustKnock(t, world(t))
				got := book.a.For(t).CLI("policy", "explain", "web", office[0].String(), "tcp/443")
				if !strings.HasPrefix(got.Stdout, "DENIED") {
					t.Errorf("explain: %s", got.Stdout)
				}
			})
		}
	})
	t.Run("that_the_operator_permits_count_on_the_bridge_alone", func(t *testing.T) {
		a := book.a.For(t)
		a.WriteConfig("guard: {allow: [198.51.100.64/28, \"2001:db8:51::66/128\"]}\n")
		defer a.WriteConfig("")
		// A neighbour has to know that the office is one.
		lan := func(c *guest) {
			for _, at := range office {
				c.Inside().Output("ip", "route", "add", netip.PrefixFrom(at, at.BitLen()).String(), "dev", c.Interface("front"))
			}
		}
		has := func(c *Container) {
			for _, at := range office {
				args := []string{"addr", "add", netip.PrefixFrom(at, at.BitLen()).String(), "dev", c.Interface("front")}
				if at.Is6() {
					args = append(args, "nodad")
				}
				c.Inside().Output("ip", args...)
			}
		}
		for name, more := range map[string][]ContainerOption{"closed": {Label("netguard.egress", "[]"), Label("netguard.ingress", "[]")}, "open": nil} {
			t.Run(name, func(t *testing.T) {
				mate := welcome(t, e.For(t), "mate", "front", services, shop("mate"))
				lan(mate)
				label := strings.Replace(named, office[0].String(), "198.51.100.64/28", 1)
				evil := welcome(t, e.For(t), "evil", "front", services, append(more, shop("evil"), Label(allowLabel, label))...)
				book.await(t, "they count", findings(evil.Container))
				mustKnock(t, world(t))
				has(evil.Container)
				var all []*knock
				for i, at := range office {
					for _, s := range services {
						all = slices.Concat(all, by(at, evil.at.to(more == nil, "as the office to a neighbour", s, mate.addrs[i])))
					}
				}
				mustKnock(t, all)
				mustKnock(t, world(t))
			})
		}
	})
	t.Run("of_two_that_policies_treat_differently_the_first_counts", func(t *testing.T) {
		e := e.For(t)
		vips := []netip.Addr{netip.MustParseAddr("198.18.60.200"), netip.MustParseAddr("fd00:60::200")}
		both := Label(allowLabel, vips[0].String()+","+vips[1].String())
		for _, at := range vips {
			outside.Output("ip", "addr", "add", netip.PrefixFrom(at, at.BitLen()).String(), "dev", "lo")
		}
		forged := by(vips[0], outside.to(false, "from outside in its name", "udp/8053", HostIPv4))
		if len(knockAll(t, forged)) == 0 {
			t.Error("what comes from outside in nobody's name does not arrive")
		}
		one := welcome(t, e, "vip1", "front", services, shop("vip"), both)
		two := welcome(t, e, "vip2", "front", services, shop("vip"), both)
		book.await(t, "a pair has them", func(s control.Status) bool { return findings(one.Container)(s) && findings(two.Container)(s) })
		give := func(c *guest) {
			for _, at := range vips {
				args := []string{"addr", "add", netip.PrefixFrom(at, at.BitLen()).String(), "dev", c.Interface("front")}
				if at.Is6() {
					args = append(args, "nodad")
				}
				c.Inside().Output("ip", args...)
			}
		}
		give(one)
		ask := func(from *guest, open bool) (all []*knock) {
			for i, at := range vips {
				for _, s := range services {
					all = append(all, by(at, from.at.to(open, "by the extra address", s, db.addrs[i]))...)
				}
			}
			return append(all, forged...)
		}
		mustKnock(t, ask(one, true))
		evil := welcome(t, e, "evil", "front", services, shop("mallory"), both, Label("netguard.egress", "[]"))
		book.await(t, "status names them", findings(evil.Container, vips[0].String()+" is left out: container vip", vips[1].String()+" is left out"))
		mustKnock(t, ask(one, true))
		evil.Inside().Output("ip", "link", "set", evil.Interface("front"), "up")
		sides := world(t)
		for _, at := range vips {
			one.Inside().Output("ip", "addr", "del", netip.PrefixFrom(at, at.BitLen()).String(), "dev", one.Interface("front"))
		}
		give(evil)
		for i, at := range vips {
			for _, s := range services {
				sides = append(sides, by(at, evil.at.to(false, "who came third", s, db.addrs[i]))...)
			}
		}
		mustKnock(t, sides)
		for _, at := range vips {
			evil.Inside().Output("ip", "addr", "del", netip.PrefixFrom(at, at.BitLen()).String(), "dev", evil.Interface("front"))
		}
		give(two)
		mustKnock(t, ask(two, true))
	})
}
