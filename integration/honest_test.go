package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/sys/unix"

	"netguard/agent/control"
	. "netguard/integration/harness"
)

// honestLab is a network with a client, a server, two that share an address, and a router
// with a narrow link behind it.
type honestLab struct {
	e                      *Engine
	n                      *Network
	client, server, router *actor
	pair                   [2]*actor
	behind                 Netns
	ranges                 []netip.Addr // of behind
	gateways               []netip.Addr
}

const (
	narrow    = 1300 // the link behind the router
	narrower  = 1400 // the uplink
	sharedIP4 = "198.18.85.200"
	sharedIP6 = "fd00:85::200"
)

// TestHonestPrograms: what people run in containers does with netguard what it does
// without, with and without policies, and is no violation.
func TestHonestPrograms(t *testing.T) {
	t.Parallel()
	l := newHonestLab(t)
	checks := append(l.reach(), l.programs(t)...)
	multicast := l.multicast(t)
	stillHonest(t, append(checks, multicast...))
	if t.Failed() {
		t.Fatal("that is without netguard")
	}
	a := l.e.Agent(Config(fmt.Sprintf("guard: {allow: [203.0.113.0/24, \"fd00:8500::/64\", %s/32, \"%s/128\"]}\n", sharedIP4, sharedIP6)))
	a.AwaitStatus("all are admitted", AllAdmitted)
	t.Run("with_netguard", func(t *testing.T) {
		stillHonest(t, append(checks, multicast...))
		l.blameless(t, a)
	})
	a.WritePolicy("all.yaml", "{name: all, select: {}, ingress: [{from: [{entity: any}]}], egress: [{to: [{entity: any}]}]}\n")
	a.AwaitStatus("the policy is in force", func(s control.Status) bool {
		e, ok := Endpoint(s, l.client.Container, "net")
		return ok && len(e.Policy.Ingress) > 0
	})
	t.Run("with_policies_that_allow_it", func(t *testing.T) {
		stillHonest(t, checks)
		l.blameless(t, a)
	})
	for _, c := range []*actor{l.client, l.server} {
		offloads(t, c.Inside(), c.Interface("net"), false)
	}
	t.Run("without_offloads", func(t *testing.T) {
		stillHonest(t, l.reach())
		l.blameless(t, a)
	})
}

func (l *honestLab) blameless(t *testing.T, a *Agent) {
	t.Helper()
	all := []*actor{l.client, l.server, l.router, l.pair[0], l.pair[1]}
	for i, v := range violations(t, a, all...) {
		if v != (control.Violations{}) {
			t.Errorf("%s was honest, but: %+v", all[i].Name, v)
		}
	}
}

func newHonestLab(t *testing.T) *honestLab {
	t.Helper()
	e := Start(t, WithIPv6(), WithOutside())
	l := &honestLab{e: e, n: e.Network("net", Subnet("198.18.85.0/24"), Subnet("fd00:85::/64"))}
	run := func(name string, options ...ContainerOption) *actor {
		return enter(t, e.Run(name, append(options, On("net"))...), "net")
	}
	l.client, l.server = run("client"), run("server", Publish("28080:80"), Publish("29000:9000/udp"))
	for i := range l.pair {
		l.pair[i] = run("pair"+strconv.Itoa(i), Label("netguard.guard.allow", sharedIP4+","+sharedIP6))
	}
	l.router = run("router", Label("netguard.guard.allow", "203.0.113.0/24,fd00:8500::/64"))
	alone := e.Run("behind", Tuned(func(_ *container.Config, h *container.HostConfig) { h.NetworkMode = "none" }))
	l.behind, l.ranges = alone.Inside(), []netip.Addr{netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("fd00:8500::2")}
	g := gateway(t, e, l.n, l.client.Container)
	l.gateways = []netip.Addr{g.IPv4, g.IPv6}

	ip := func(n Netns, line string) { n.Output("ip", strings.Fields(line)...) }
	for _, n := range []Netns{l.router.Inside(), l.behind} {
		sysctl(t, n, "ipv6/conf/all/disable_ipv6", "0")
		sysctl(t, n, "ipv6/conf/default/disable_ipv6", "0")
	}
	sysctl(t, l.router.Inside(), "ipv4/ip_forward", "1")
	sysctl(t, l.router.Inside(), "ipv6/conf/all/forwarding", "1")
	ip(l.router.Inside(), fmt.Sprintf("link add narrow0 mtu %d type veth peer name eth0 mtu %d netns %d", narrow, narrow, alone.PID()))
	for _, end := range []struct {
		n    Netns
		name string
		last int
	}{{l.router.Inside(), "narrow0", 1}, {l.behind, "eth0", 2}} {
		ip(end.n, fmt.Sprintf("address add 203.0.113.%d/24 dev %s", end.last, end.name))
		ip(end.n, fmt.Sprintf("address add fd00:8500::%d/64 dev %s nodad", end.last, end.name))
		ip(end.n, "link set "+end.name+" up")
	}
	ip(l.behind, "route add default via 203.0.113.1")
	ip(l.behind, "-6 route add default via fd00:8500::1")
	for _, n := range []Netns{e.Netns, l.client.Inside(), l.server.Inside()} {
		ip(n, "route add 203.0.113.0/24 via "+l.router.IPv4.String())
		ip(n, "-6 route add fd00:8500::/64 via "+l.router.IPv6.String())
	}
	ip(e.Netns, fmt.Sprintf("link set %s mtu %d", Uplink, narrower))
	ip(e.Outside.Netns, fmt.Sprintf("link set eth0 mtu %d", narrower))

	// A DHCP server on the host, as there is on a bridge of virtual machines.
	conf := filepath.Join(e.Dir(), "udhcpd.conf")
	text := fmt.Sprintf("start 198.18.85.100\nend 198.18.85.120\ninterface %s\nlease_file %s.leases\npidfile %s.pid\n", l.n.Bridge, conf, conf)
	if err := errors.Join(os.WriteFile(conf, []byte(text), 0o644), os.WriteFile(conf+".leases", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	e.Spawn("busybox", "udhcpd", "-f", "-a", "10", conf)
	for _, n := range []Netns{l.server.Inside(), l.behind, e.Outside.Netns} {
		mirrors(t, n)
	}
	return l
}

func sysctl(t *testing.T, n Netns, name, value string) {
	t.Helper()
	if err := n.Do(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) }); err != nil {
		t.Fatal(err)
	}
}

// works runs a program until it succeeds and says what it should: at first a neighbour may
// still be looked for, and error messages have a rate.
func works(n Netns, says []string, program string, args ...string) error {
	var r Result
	for until := deadline(); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		r = n.Try(program, args...)
		said := r.OK()
		for _, s := range says {
			said = said && strings.Contains(r.Stdout, s)
		}
		if said {
			return nil
		}
	}
	return fmt.Errorf("%s", r)
}

// programs are the programs of everybody.
func (l *honestLab) programs(t *testing.T) []check {
	var all []check
	add := func(name string, try func() error) {
		all = append(all, check{name, func(*testing.T) error { return try() }})
	}
	client, iface := l.client.Inside(), l.client.Interface("net")
	ping := func(n Netns, to netip.Addr, bytes int) {
		name := "ping"
		if to.Is6() {
			name = "ping6"
		}
		add(fmt.Sprintf("%s_%s_with_%d_bytes", name, to, bytes), func() error {
			return works(n, nil, "busybox", name, "-c", "1", "-W", "1", "-s", strconv.Itoa(bytes), to.String())
		})
	}
	for _, to := range append([]netip.Addr{l.server.IPv4, l.server.IPv6, OutsideIPv4, OutsideIPv6}, l.gateways...) {
		ping(client, to, 56)
		ping(client, to, 65000)
	}
	for i, to := range l.ranges {
		ping(client, to, 20000)
		ping(l.e.Netns, to, 20000)
		via, back, route := l.router.IPv4, l.client.IPv4, []string{"busybox", "traceroute"}
		if i == 1 {
			via, back, route = l.router.IPv6, l.client.IPv6, []string{"busybox", "traceroute6"}
		}
		first, second := "\n 1  "+via.String(), "\n 2  "+to.String()
		options := [][]string{nil}
		if i == 0 {
			options = append(options, []string{"-I"})
		}
		for _, o := range options {
			args := append(append(route[1:], o...), "-n", "-q", "1", "-w", "2", "-m", "3", to.String())
			for _, from := range []Netns{client, l.e.Netns} {
				add(fmt.Sprint(args), func() error { return works(from, []string{first, second}, route[0], args...) })
			}
		}
		args := append(route[1:], "-n", "-q", "1", "-w", "2", "-m", "3", back.String())
		add(fmt.Sprint(args), func() error { return works(l.behind, []string{"\n 2  " + back.String()}, route[0], args...) })
	}
	add("traceroute_to_the_outside", func() error {
		return works(client, []string{"\n 1  " + l.gateways[0].String(), "\n 2  " + OutsideIPv4.String()}, "busybox", "traceroute", "-n", "-q", "1", "-w", "2", "-m", "3", OutsideIPv4.String())
	})
	add("arping", func() error {
		return works(client, nil, "busybox", "arping", "-c", "1", "-w", "2", "-I", iface, l.server.IPv4.String())
	})
	add("arping_finds_a_duplicate", func() error {
		if r := client.Try("busybox", "arping", "-D", "-c", "2", "-w", "2", "-I", iface, l.server.IPv4.String()); r.OK() {
			return fmt.Errorf("the server's address is said to be free: %s", r)
		}
		return nil
	})
	add("udhcpc", func() error {
		return works(client, nil, "busybox", "udhcpc", "-f", "-n", "-q", "-t", "3", "-T", "1", "-i", iface, "-s", "/bin/true")
	})
	for i := range 2 {
		add("a_shared_address_moves_to_"+l.pair[i].Name, func() error { return l.move(t, l.pair[1-i], l.pair[i]) })
	}
	add("254_neighbours_at_once", func() error { return l.sweep() })
	return all
}

// move has the shared address go from one of the pair to the other, who announces it.
func (l *honestLab) move(t *testing.T, from, to *actor) error {
	t.Helper()
	link := to.Interface("net")
	from.Inside().Try("ip", "address", "del", sharedIP4+"/24", "dev", from.Interface("net"))
	to.Inside().Output("ip", "address", "add", sharedIP4+"/24", "dev", link)
	to.Inside().Spawn("busybox", "arping", "-U", "-c", "1", "-w", "1", "-I", link, sharedIP4)
	if err := works(l.client.Inside(), nil, "busybox", "ping", "-c", "1", "-W", "1", sharedIP4); err != nil {
		return err
	}
	if to == l.pair[0] { // once: the detection of duplicates takes a second
		to.Inside().Try("ip", "address", "del", sharedIP6+"/64", "dev", link)
		to.Inside().Output("ip", "address", "add", sharedIP6+"/64", "dev", link)
		if err := works(l.client.Inside(), nil, "busybox", "ping6", "-c", "1", "-W", "1", sharedIP6); err != nil {
			return err
		}
	}
	return works(l.client.Inside(), []string{to.Container.MAC("net")}, "ip", "neigh", "show", "to", sharedIP4)
}

// sweep opens connections to a whole network, as a monitor does, and one to who is there.
func (l *honestLab) sweep() error {
	err := l.client.Inside().Do(func() error {
		for i := 1; i < 255; i++ {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(fd) }()
			to := l.client.IPv4.As4()
			to[3] = byte(i)
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: to}); err != nil && !errors.Is(err, unix.EINPROGRESS) {
				return fmt.Errorf("connect to %v: %w", to, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return l.client.echo(l.server.Addr("net", 80))
}

// multicast joins groups with each version of IGMP and of MLD.
func (l *honestLab) multicast(t *testing.T) []check {
	t.Helper()
	iface := l.server.Interface("net")
	var all []check
	for _, v := range []struct{ setting, version, group string }{
		{"ipv4/conf/%s/force_igmp_version", "1", "239.85.0.1"}, {"ipv4/conf/%s/force_igmp_version", "2", "239.85.0.2"},
		{"ipv4/conf/%s/force_igmp_version", "3", "239.85.0.3"}, {"ipv4/conf/%s/force_igmp_version", "0", "239.255.255.250"},
		{"ipv6/conf/%s/force_mld_version", "1", "ff05::85:1"}, {"ipv6/conf/%s/force_mld_version", "2", "ff05::85:2"},
		{"ipv6/conf/%s/force_mld_version", "0", "ff02::fb"},
	} {
		all = append(all, check{"multicast_to_" + v.group, func(t *testing.T) error {
			sysctl(t, l.server.Inside(), fmt.Sprintf(v.setting, iface), v.version)
			return newMulticast(t, l.client, l.server, v.group).try(t)
		}})
	}
	return all
}
