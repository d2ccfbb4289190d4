package integration

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	. "netguard/integration/harness"
)

// TestShippedPolicies plays each file of policies/ on a shop with the names that
// stand in it.
func TestShippedPolicies(t *testing.T) {
	t.Parallel()
	// Without docker-proxy a client from outside keeps its address in both families.
	e := Start(t, WithIPv6(), WithOutside(), WithBridgeNetfilter(), DaemonConfig(`{"userland-proxy": false}`))
	n := e.Network("net", Subnet("198.18.65.0/24"), Subnet("fd00:65::/64"))
	services := []string{"tcp/22", "tcp/51678", "tcp/51679", "tcp/80", "tcp/443", "tcp/5432", "tcp/8080", "tcp/9999", "udp/53", "tcp/2377", "tcp/7946", "udp/7946", "udp/4789", "sctp/3868"}
	run := func(name, project string, options ...ContainerOption) *guest {
		return welcome(t, e, name, "net", services, append(options, Service(project, name))...)
	}
	web := run("web", "shop", Publish("20080:80"), Publish("20443:443"), Publish("29999:9999"))
	api, db, worker := run("api", "shop"), run("db", "shop"), run("worker", "shop")
	admin := run("admin", "shop", Publish("28080:8080"))
	other := run("other", "blog", Publish("21080:80"))
	self, outside := &spot{"host", e.Netns}, &spot{"outside", e.Outside.Netns}
	gateways := []netip.Addr{netip.MustParseAddr(db.Inspect().NetworkSettings.Networks[n.Name].Gateway), netip.MustParseAddr("fd00:65::1")}
	hosts := append([]netip.Addr{HostIPv4, HostIPv6}, gateways...)
	// Amazon's agents are on the host: one has its own address, one gets what it answers by
	// a translation.
	pods := []netip.Addr{netip.MustParseAddr("169.254.170.23"), netip.MustParseAddr("fd00:ec2::23")}
	for _, a := range pods {
		e.Output("ip", "address", "add", netip.PrefixFrom(a, a.BitLen()).String(), "dev", "lo")
	}
	openDoors(t, self, services, append(slices.Clone(hosts), pods...)...)
	world := []netip.Addr{OutsideIPv4, OutsideIPv6}
	listed := []netip.Addr{netip.MustParseAddr("198.51.100.77"), netip.MustParseAddr("2001:db8:2::7")}
	unlisted := []netip.Addr{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8:3::7")}
	office := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8:1::7")}
	visitor := []netip.Addr{netip.MustParseAddr("192.0.2.200"), netip.MustParseAddr("2001:db8:3::7")}
	e.Output("iptables", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "-d", "169.254.170.2", "--dport", "80",
		"-j", "DNAT", "--to-destination", netip.AddrPortFrom(HostIPv4, 51679).String())
	var metadata []netip.Addr
	for _, text := range []string{"169.254.169.254", "169.254.169.252", "169.254.169.250", "169.254.170.2", "169.254.0.23", "169.254.10.10", "169.254.42.42",
		"192.0.0.192", "100.100.100.200", "100.96.0.96", "100.80.80.80", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe",
		"fd00:100::100:200", "fd00:42::42", "fd00:a9fe:a9fe::1"} {
		metadata = append(metadata, netip.MustParseAddr(text))
	}
	names := []netip.Addr{netip.MustParseAddr("169.254.169.253"), netip.MustParseAddr("fd00:ec2::253")} // servers for names stay
	wire := []netip.Addr{netip.MustParseAddr("168.63.129.16")}                                          // its DNS stays
	others := slices.DeleteFunc(slices.Clone(metadata), func(a netip.Addr) bool { return a == wire[0] })
	there := slices.Concat(world, listed, unlisted, office, visitor[:1], metadata, names)
	for _, a := range there[2:] {
		e.Outside.AddAddr(a.String())
	}
	openDoors(t, outside, services, there...)
	book := newRulebook(e, e.Agent())
	book.awaitAdmitted(t, 6)

	// out are connections of a container to places outside or on the host.
	out := func(open bool, g *guest, to []netip.Addr, services ...string) []*knock {
		var all []*knock
		for _, s := range services {
			all = append(all, g.at.to(open, g.Name+">", s, to...)...)
		}
		return all
	}
	// in are connections of clients to a published port.
	in := func(open bool, port string, clients ...netip.Addr) []*knock {
		var all []*knock
		for _, c := range clients {
			at := HostIPv4
			if c.Is6() {
				at = HostIPv6
			}
			for _, k := range outside.to(open, "client "+c.String(), port, at) {
				k.source = c
				all = append(all, k)
			}
		}
		return all
	}
	played := map[string][]*knock{
		"default-deny.yaml": slices.Concat(web.to(true, db, "tcp/5432", "icmp/echo-request"), other.to(false, db, "tcp/5432", "udp/53", "icmp/echo-request"),
			web.to(false, other, "tcp/80"), web.to(true, other, "udp/53"), out(false, web, world, "tcp/443", "icmp/echo-request", "sctp/3868"), out(true, web, world, "udp/53"),
			out(true, web, gateways, "udp/53"), out(false, web, hosts, "tcp/22"), in(false, "tcp/20080", world...), self.to(false, "host>web", "tcp/80", web.addrs...),
			in(true, "tcp/21080", world...), out(true, other, world, "tcp/443")),
		"web-api-database.yaml": slices.Concat(in(true, "tcp/20080", world...), in(true, "tcp/20443", world...), in(false, "tcp/29999", world...),
			web.to(true, api, "tcp/8080"), web.to(false, api, "tcp/5432"), web.to(false, db, "tcp/5432"), api.to(true, db, "tcp/5432"), api.to(false, db, "tcp/22"),
			db.to(false, api, "tcp/8080"), other.to(false, web, "tcp/80"), other.to(false, api, "tcp/8080"), worker.to(false, api, "tcp/8080"),
			out(false, db, world, "tcp/443", "udp/53"), out(true, api, world, "udp/53"), out(false, api, world, "tcp/443"), self.to(false, "host>web", "tcp/80", web.addrs...)),
		"internal-only.yaml": slices.Concat(in(false, "tcp/20080", world...), out(false, web, world, "tcp/443", "udp/53", "icmp/echo-request", "sctp/3868"), web.to(true, db, "tcp/5432"),
			other.to(true, db, "tcp/5432"), out(true, web, gateways, "tcp/22"), self.to(true, "host>web", "tcp/80", web.addrs...), out(true, other, world, "tcp/443")),
		"egress-allowlist.yaml": slices.Concat(out(true, worker, listed, "tcp/443"), out(false, worker, listed, "tcp/80", "icmp/echo-request", "sctp/3868"), out(false, worker, hosts, "tcp/22", "icmp/echo-request"), out(false, worker, unlisted, "tcp/443"),
			out(true, worker, unlisted, "udp/53"), worker.to(true, db, "tcp/5432"), worker.to(false, other, "tcp/80"), other.to(true, worker, "tcp/80"), out(true, web, unlisted, "tcp/443")),
		"published-from-cidr.yaml": slices.Concat(in(true, "tcp/28080", office...), in(false, "tcp/28080", visitor...), in(false, "tcp/28080", world...),
			web.to(true, admin, "tcp/8080", "tcp/22"), other.to(false, admin, "tcp/8080"), in(true, "tcp/20080", world...)),
		"no-cloud-metadata.yaml": slices.Concat(out(false, web, metadata, "tcp/80"), out(false, other, others, "tcp/80", "udp/53", "icmp/echo-request", "sctp/3868"),
			out(true, other, wire, "udp/53"), out(false, other, wire, "tcp/80", "icmp/echo-request", "sctp/3868"), out(false, web, pods, "tcp/80", "udp/53", "icmp/echo-request"),
			out(false, web, hosts, "tcp/51678", "tcp/51679"), out(true, web, names, "udp/53", "tcp/80"), out(true, web, hosts, "tcp/22", "icmp/echo-request"),
			out(true, web, world, "tcp/80", "tcp/51679"), web.to(true, db, "tcp/5432"), self.to(true, "host>metadata", "tcp/80", others...)),
		"no-container-to-swarm.yaml": slices.Concat(out(false, web, hosts, "tcp/2377", "tcp/7946", "udp/7946", "udp/4789"), out(false, other, world, "tcp/2377", "tcp/7946", "udp/7946", "udp/4789"),
			web.to(true, db, "udp/4789"), out(true, web, world, "tcp/80", "udp/53"), self.to(true, "host>web", "udp/4789", web.addrs...)),
		"no-container-to-host.yaml": slices.Concat(out(false, web, hosts, "tcp/22", "tcp/9999"), out(false, other, hosts, "tcp/80"), out(true, web, gateways, "udp/53"),
			out(false, web, hosts, "icmp/echo-request", "sctp/3868"), out(false, other, pods, "tcp/80"), out(true, web, world, "icmp/echo-request", "sctp/3868"), self.to(true, "host>web", "tcp/80", web.addrs...), out(true, web, world, "tcp/80"), web.to(true, db, "tcp/22")),
	}
	files, err := filepath.Glob("../policies/*.yaml")
	if err != nil || len(files) != len(played) {
		t.Fatalf("%d files, %d of them are played, %v", len(files), len(played), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			book.enact(t, nil)
			all := played[name]
			want := map[*knock]bool{}
			for _, k := range all {
				want[k], k.open = k.open, true
			}
			mustKnock(t, all) // each refusal is the policy's
			book.enact(t, map[string]string{name: string(text)})
			for _, k := range all {
				k.open = want[k]
			}
			mustKnock(t, all)
		})
	}
}
