package link

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestRouteTo(t *testing.T) {
	h := newHost(t)
	br, up := h.bridge("br-x"), h.bridge("uplink")
	for dev, addrs := range map[*netlink.Bridge][]string{br: {"198.18.0.1/24", "fd00::1/64"}, up: {"198.51.100.1/24"}} {
		must(t, netlink.LinkSetUp(dev))
		for _, text := range addrs {
			a, err := netlink.ParseAddr(text)
			must(t, err)
			a.Flags = 2 // IFA_F_NODAD
			must(t, netlink.AddrAdd(dev, a))
		}
	}
	route := func(dst string, r netlink.Route) {
		_, r.Dst, _ = net.ParseCIDR(dst)
		must(t, netlink.RouteAdd(&r))
	}
	route("0.0.0.0/0", netlink.Route{Gw: net.ParseIP("198.51.100.2"), LinkIndex: up.Index})
	route("198.18.0.64/28", netlink.Route{LinkIndex: up.Index})
	route("198.18.9.0/24", netlink.Route{Type: 7}) // unreachable
	for text, want := range map[string]Route{
		"198.18.0.1":        {Bits: 32, Own: true, Links: []int{br.Index}, Device: "br-x"},
		"198.18.0.255":      {Bits: 32, Broadcast: true, Links: []int{br.Index}, Device: "br-x"},
		"198.18.0.9":        {Bits: 24, Links: []int{br.Index}, Device: "br-x"},
		"198.18.0.65":       {Bits: 28, Links: []int{up.Index}, Device: "uplink"},
		"198.18.9.1":        {},
		"203.0.113.1":       {Links: []int{up.Index}, Device: "uplink"},
		"fd00::9":           {Bits: 64, Links: []int{br.Index}, Device: "br-x"},
		"2001:db8::1":       {},
		"::ffff:198.18.0.9": {Bits: 24, Links: []int{br.Index}, Device: "br-x"},
	} {
		got, err := h.table.RouteTo(netip.MustParseAddr(text))
		if err != nil || got.Bits != want.Bits || got.Own != want.Own || got.Broadcast != want.Broadcast || !slices.Equal(got.Links, want.Links) || got.Device != want.Device {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
}
