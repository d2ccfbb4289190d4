package netpolicy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

type peerKind uint8

const (
	peerAny        peerKind = iota // anyone
	peerHost                       // the host, docker-proxy included
	peerExternal                   // neither a container nor the host
	peerContainers                 // containers of a selector
	peerNet                        // addresses of a CIDR
)

// peer is the other end of a connection, as a rule names it.
type peer struct {
	kind peerKind
	sel  Selector
	nets nets
}

// cidr is a prefix without its exceptions.
type cidr struct {
	prefix   netip.Prefix
	except   []netip.Prefix // sorted, each inside the prefix and smaller
	prefixes []netip.Prefix // what is left, sorted, apart from each other, none a /0
}

func newCIDR(prefix netip.Prefix, except []netip.Prefix) cidr {
	c := cidr{prefix: prefix, except: slices.Clone(except)}
	slices.SortFunc(c.except, comparePrefixes)
	c.except = slices.Compact(c.except)
	c.prefixes = subtract(prefix, c.except)
	if len(c.prefixes) == 1 && c.prefixes[0].Bits() == 0 {
		low, high := halves(c.prefixes[0])
		c.prefixes = []netip.Prefix{low, high}
	}
	return c
}

func comparePrefixes(a, b netip.Prefix) int {
	if d := a.Addr().Compare(b.Addr()); d != 0 {
		return d
	}
	return a.Bits() - b.Bits()
}

func (c cidr) ipv6() bool { return c.prefix.Addr().Is6() }

func (c cidr) contains(a netip.Addr) bool {
	return inside(len(c.prefixes), func(i int) netip.Prefix { return c.prefixes[i] }, a)
}

func (c cidr) String() string {
	const most = 3
	var words []string
	for _, e := range c.except[:min(most, len(c.except))] {
		words = append(words, e.String())
	}
	if more := len(c.except) - most; more > 0 {
		words = append(words, fmt.Sprintf("%d more", more))
	}
	if len(words) == 0 {
		return c.prefix.String()
	}
	return c.prefix.String() + " except " + strings.Join(words, ", ")
}

// subtract cuts exceptions out of a prefix. It halves the prefix until each part is inside an
// exception, or overlaps none. An exception that is n bits longer than the prefix leaves up to n
// parts.
func subtract(p netip.Prefix, except []netip.Prefix) []netip.Prefix {
	var near []netip.Prefix
	for _, e := range except {
		if !e.Overlaps(p) {
			continue
		}
		if e.Bits() <= p.Bits() {
			return nil
		}
		near = append(near, e)
	}
	if len(near) == 0 {
		return []netip.Prefix{p}
	}
	low, high := halves(p)
	return append(subtract(low, near), subtract(high, near)...)
}

// halves divides a prefix in two. The prefix must not be a single address.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	bits := p.Bits()
	low = netip.PrefixFrom(p.Addr(), bits+1)
	raw := p.Addr().AsSlice()
	raw[bits/8] |= 0x80 >> (bits % 8)
	top, _ := netip.AddrFromSlice(raw)
	return low, netip.PrefixFrom(top, bits+1)
}

// parsePrefix reads a CIDR, strictly.
func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" && !a.Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q has no length: write %s/%d for this one address", text, text, a.BitLen())
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is no CIDR: write an address, a slash and a length, such as 192.0.2.0/24 or 2001:db8::/32", clip(text))
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is IPv4 written as IPv6: write %s", clip(text), p.Addr().Unmap())
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%q has bits after its length: write %s for the network, or %s/%d for the one address",
			text, p.Masked(), p.Addr(), p.Addr().BitLen())
	}
	return p, nil
}

// The entities by name.
var entities = []struct {
	name string
	kind peerKind
}{{"host", peerHost}, {"external", peerExternal}, {"any", peerAny}}

// canonical gives a text for a peer. Peers with the same text mean the same.
func (p peer) canonical() string {
	switch p.kind {
	case peerContainers:
		return "containers " + p.sel.String()
	case peerNet:
		return "net " + p.nets.key
	}
	return p.String()
}

func (p peer) String() string {
	switch p.kind {
	case peerContainers:
		return p.sel.String()
	case peerNet:
		return p.nets.String()
	}
	for _, e := range entities {
		if e.kind == p.kind {
			return e.name
		}
	}
	return "nobody"
}
