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
