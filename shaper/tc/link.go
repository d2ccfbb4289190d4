package tc

import (
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netguard/shaper"
)

// skipStats asks the kernel to leave the counters out of a link's answer
// (RTEXT_FILTER_SKIP_STATS).
const skipStats = 1 << 3

// sizeofStatsMsg is the size of struct if_stats_msg.
const sizeofStatsMsg = 12

// link is what counts of a network device.
type link struct {
	index, queueLen int
	name, kind      string
	group           uint32
}

// handle is a link as vishvananda/netlink wants it for changes.
func (l link) handle() vish.Link {
	return &vish.Device{LinkAttrs: vish.LinkAttrs{Index: l.index, Name: l.name}}
}

// link asks for a link by its ifindex, or by its name where that is 0. The error is
// ENODEV where there is none.
func (d *Driver) link(index int, name string) (l link, err error) {
	request := linkRequest(index)
	attrs, err := attributesOf(func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.IFLA_EXT_MASK, skipStats)
		if name != "" {
			ae.String(unix.IFLA_IFNAME, name)
		}
	})
	if err != nil {
		return l, err
	}
	err = d.conn.Execute(unix.RTM_GETLINK, 0, append(request, attrs...), func(data []byte) error {
		l, err = linkOf(data)
		return err
	})
	return l, err
}

// eachLink lists the links of a kind. A list during which links came or went may have
// holes; after some tries it is used all the same.
func (d *Driver) eachLink(kind string, each func(link)) error {
	attrs, err := attributesOf(func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.IFLA_EXT_MASK, skipStats)
		ae.Nested(unix.IFLA_LINKINFO, func(ae *netlink.AttributeEncoder) error {
			ae.String(unix.IFLA_INFO_KIND, kind)
			return nil
		})
	})
	if err != nil {
		return err
	}
	links := map[int]link{}
	err = d.list(unix.RTM_GETLINK, append(linkRequest(0), attrs...), func(data []byte) error {
		l, err := linkOf(data)
		links[l.index] = l
		return err
	})
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if l.kind == kind { // an old kernel lists them all
			each(l)
		}
	}
	return nil
}

// list asks for all objects of a type. If something came or went meanwhile, the list may have
// holes. Then it asks again, a few times.
func (d *Driver) list(typ uint16, request []byte, object func(data []byte) error) error {
	for range 5 {
		if err := d.conn.Execute(typ, netlink.Dump, request, object); err != nil {
			return err
		}
		if !d.conn.Holes {
			break
		}
	}
	return nil
}

func linkRequest(index int) []byte { return words(unix.AF_UNSPEC, uint32(index), 0, 0) }

func linkOf(data []byte) (l link, err error) {
	if len(data) < unix.SizeofIfInfomsg {
		return l, fmt.Errorf("parse link: %d bytes are too few", len(data))
	}
	l.index = int(u32(data, 4))
	err = attributes(data[unix.SizeofIfInfomsg:], func(typ uint16, b []byte) error {
		switch typ {
		case unix.IFLA_IFNAME:
			l.name = text(b)
		case unix.IFLA_TXQLEN:
			l.queueLen = int(u32(b, 0))
		case unix.IFLA_GROUP:
			l.group = u32(b, 0)
		case unix.IFLA_LINKINFO:
			return attributes(b, func(typ uint16, b []byte) error {
				if typ == unix.IFLA_INFO_KIND {
					l.kind = text(b)
				}
				return nil
			})
		}
		return nil
	})
	return l, err
}

// traffic is what a link counted. What a veth sent is what its container received.
type traffic struct{ sent, received Counters }

// of gives a direction as the container behind a veth sees it.
func (t traffic) of(dir shaper.Direction) Counters {
	if dir == shaper.Ingress {
		return t.sent
	}
	return t.received
}

// traffic lists what all links counted (RTM_GETSTATS, which leaves out all else of a link).
func (d *Driver) traffic() (map[int]traffic, error) {
	const only = 1 << (unix.IFLA_STATS_LINK_64 - 1)
	out := map[int]traffic{}
	err := d.list(unix.RTM_GETSTATS, words(unix.AF_UNSPEC, 0, only), func(data []byte) error {
		if len(data) < sizeofStatsMsg {
			return fmt.Errorf("parse counters of a link: %d bytes are too few", len(data))
		}
		return attributes(data[sizeofStatsMsg:], func(typ uint16, b []byte) error {
			if typ != unix.IFLA_STATS_LINK_64 || len(b) < 8*8 { // struct rtnl_link_stats64
				return nil
			}
			word := func(i int) uint64 { return netlinkOrder.Uint64(b[8*i:]) }
			out[int(u32(data, 4))] = traffic{
				received: Counters{Packets: word(0), Bytes: word(2), Drops: word(6)},
				sent:     Counters{Packets: word(1), Bytes: word(3), Drops: word(7)},
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list counters of links: %w", err)
	}
	return out, nil
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }
