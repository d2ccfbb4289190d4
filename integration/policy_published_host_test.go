package integration

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	. "netguard/integration/harness"
)

// gateways are the host's addresses on the networks front and far.
var gateways = []netip.Addr{netip.MustParseAddr("198.18.40.1"), netip.MustParseAddr("198.18.41.1"), netip.MustParseAddr("fd00:40::1"), netip.MustParseAddr("fd00:41::1")}

// hostWays are connections by which the host reaches a guest: to the guest's own
// addresses, and to its published ports, by every address of the host.
func hostWays(open bool, from *spot, web *guest, proxy bool) []*knock {
	own := append([]netip.Addr{HostIPv4, HostIPv6}, gateways...)
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	if proxy { // the kernel leads nothing from there
		loopback = append(loopback, netip.IPv6Loopback())
	}
	what := from.name + ">web"
	all := slices.Concat(from.to(open, what, "tcp/80", web.addrs...), from.to(open, what, "udp/53", web.addrs...),
		from.to(open, what+" published", "tcp/8080", slices.Concat(own, loopback)...))
	for _, a := range own {
		if open && a.Is6() {
			continue // without ip6tables the proxy may answer by another address
		}
		all = append(all, from.to(open, what+" published", "udp/8053", a)...)
	}
	return all
}

// talk is a connection of the host that is open.
type talk struct {
	what string
	conn net.Conn
}

func startTalk(t *testing.T, e *Engine, network, to string) *talk {
	t.Helper()
	k := &talk{what: fmt.Sprintf("%s to %s", network, to)}
	err := e.Do(func() (err error) { k.conn, err = net.DialTimeout(network, to, 5*time.Second); return err })
	if err != nil {
		t.Fatalf("%s: %v", k.what, err)
	}
	t.Cleanup(func() { k.conn.Close() })
	if err := k.say(5 * time.Second); err != nil {
		t.Fatalf("%s: %v", k.what, err)
	}
	return k
}

// say sends a word and waits for it to come back.
func (k *talk) say(within time.Duration) error {
	word := fmt.Appendf(nil, "%016x", words.Add(1))
	if err := k.conn.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := k.conn.Write(word); err != nil {
		return err
	}
	_, err := io.ReadFull(k.conn, word)
	return err
}

// ends waits until a connection says nothing any more.
func (k *talk) ends(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); k.say(500*time.Millisecond) == nil; {
		if time.Now().After(deadline) {
			t.Errorf("%s goes on", k.what)
			return
		}
	}
}

// hostByPublishedPort is part of TestPublishedPorts: a policy holds against the host by
// whichever of its addresses it takes.
func hostByPublishedPort(t *testing.T, e *Engine, book *rulebook, web *guest, proxy bool) {
	host := &spot{"host", e.Netns}
	inside := &spot{"a container on the host's network", e.Run("guest", OnHostNetwork()).Inside()}
	ways := func(open bool) []*knock {
		return slices.Concat(hostWays(open, host, web, proxy), hostWays(open, inside, web, proxy))
	}
	self := func() []*knock {
		return slices.Concat(host.to(true, "host>host", "tcp/7000", HostIPv4, HostIPv6, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()),
			inside.to(true, "container of the host>host", "udp/7000", HostIPv4, HostIPv6))
	}
	openDoors(t, host, []string{"tcp/7000", "udp/7000"}, HostIPv4, HostIPv6)
	book.enact(t, map[string]string{})
	mustKnock(t, slices.Concat(ways(true), self()))
	talks := []*talk{startTalk(t, e, "tcp", netip.AddrPortFrom(HostIPv4, 8080).String()), startTalk(t, e, "tcp", netip.AddrPortFrom(HostIPv6, 8080).String()),
		startTalk(t, e, "udp", netip.AddrPortFrom(HostIPv4, 8053).String()), startTalk(t, e, "tcp", "127.0.0.1:8080")}
	kept := startTalk(t, e, "tcp", netip.AddrPortFrom(HostIPv4, 7000).String())
	book.enact(t, map[string]string{"web.yaml": `{name: web, select: {project: shop, service: web}, ingress: [{from: [{entity: external}]}]}`})
	var ending sync.WaitGroup
	for _, k := range talks {
		ending.Go(func() { k.ends(t) })
	}
	ending.Wait()
	if err := kept.say(5 * time.Second); err != nil {
		t.Errorf("the host's connection to itself ends: %v", err)
	}
	mustKnock(t, slices.Concat(ways(false), self()))
	book.enact(t, map[string]string{"web.yaml": `{name: web, select: {project: shop, service: web}, ingress: [{from: [{entity: host}]}]}`})
	mustKnock(t, slices.Concat(ways(true), self()))
	book.enact(t, map[string]string{"web.yaml": `{name: web, select: {project: shop, service: web}, deny: [{ingress: {from: [{entity: host}]}}]}`})
	mustKnock(t, slices.Concat(ways(false), self()))
}
