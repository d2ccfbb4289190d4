package harness

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The link between the engine's host and the outside. The ranges are those of
// documentation, RFC 5737 and RFC 3849.
var (
	// HostIPv4 and HostIPv6 are the engine's host's own addresses.
	HostIPv4 = netip.MustParseAddr("198.51.100.1")
	HostIPv6 = netip.MustParseAddr("2001:db8:51::1")
	// OutsideIPv4 and OutsideIPv6 are the outside host's.
	OutsideIPv4 = netip.MustParseAddr("198.51.100.2")
	OutsideIPv6 = netip.MustParseAddr("2001:db8:51::2")
)

// Uplink is the engine's host's interface towards the outside.
const Uplink = "uplink0"

// Outside is a host beyond the engine's uplink, the engine's default gateway. It
// routes everything that it does not have itself back to the engine's host, so
// that it can also try what only an attacker would.
type Outside struct {
	Netns
}

func joinOutside(e *Engine) (*Outside, error) {
	name := e.name + "-out"
	if err := createNetns(name); err != nil {
		return nil, err
	}
	out := &Outside{Netns{tb: e.tb, file: filepath.Join(netnsDir, name), mark: e.mark, env: e.env}}
	space, err := os.Open(out.file)
	if err != nil {
		return nil, fmt.Errorf("open outside namespace: %w", err)
	}
	defer space.Close()
	err = e.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = Uplink
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(space.Fd())})
		if err != nil {
			return fmt.Errorf("join outside: %w", err)
		}
		return setUp(Uplink, []netip.Addr{HostIPv4, HostIPv6}, []netip.Addr{OutsideIPv4, OutsideIPv6})
	})
	if err != nil {
		return nil, err
	}
	return out, out.Do(func() error {
		return setUp("eth0", []netip.Addr{OutsideIPv4, OutsideIPv6}, []netip.Addr{HostIPv4, HostIPv6})
	})
}

// setUp gives an interface its addresses and makes the gateways the default ones.
func setUp(name string, own, gateways []netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	for _, ip := range own {
		if err := addAddr(link, netip.PrefixFrom(ip, linkBits(ip))); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	for _, gw := range gateways {
		err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice()})
		if err != nil {
			return fmt.Errorf("route by %s: %w", gw, err)
		}
	}
	return nil
}

func linkBits(ip netip.Addr) int {
	if ip.Is4() {
		return 24
	}
	return 64
}

func addAddr(link netlink.Link, p netip.Prefix) error {
	ipNet := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	addr := &netlink.Addr{IPNet: ipNet}
	if p.Addr().Is6() {
		// No duplicate address detection: there is no other host.
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s: %w", p, err)
	}
	return nil
}

// AddAddr gives the outside host one more address, to stand for another host.
func (o *Outside) AddAddr(addr string) {
	o.tb.Helper()
	ip, err := netip.ParseAddr(addr)
	o.must(err, "read address")
	o.must(o.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return addAddr(link, netip.PrefixFrom(ip, ip.BitLen()))
	}), "add outside address")
}

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}
