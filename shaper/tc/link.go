package tc

import (
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// skipStats has a link's answer come without its counters (RTEXT_FILTER_SKIP_STATS).
const skipStats = 1 << 3

// link is what counts of a network device.
type link struct {
	index, queueLen int
	name, kind      string
	group           uint32
	// What a veth sent is what its container received.
	sent, received Counters
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
	err = d.conn.execute(unix.RTM_GETLINK, 0, append(request, attrs...), func(data []byte) error {
		l, err = linkOf(data)
		return err
	})
	return l, err
}

// eachLink lists the links of a kind, or all with their counters where kind is empty. A
// list during which links came or went may have holes; after some tries it is used all
// the same.
func (d *Driver) eachLink(kind string, each func(link)) error {
	attrs, err := attributesOf(func(ae *netlink.AttributeEncoder) {
		if kind == "" {
			return
		}
		ae.Uint32(unix.IFLA_EXT_MASK, skipStats)
		ae.Nested(unix.IFLA_LINKINFO, func(ae *netlink.AttributeEncoder) error {
			ae.String(unix.IFLA_INFO_KIND, kind)
			return nil
		})
	})
	if err != nil {
		return err
	}
	var links []link
	for range 5 {
		links = links[:0]
		err = d.conn.execute(unix.RTM_GETLINK, netlink.Dump, append(linkRequest(0), attrs...), func(data []byte) error {
			l, err := linkOf(data)
			links = append(links, l)
			return err
		})
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		if !d.conn.holes {
			break
		}
	}
	for _, l := range links {
		if kind == "" || l.kind == kind { // an old kernel lists them all
			each(l)
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
		case unix.IFLA_STATS64: // struct rtnl_link_stats64
			word := func(i int) uint64 {
				if len(b) < 8*i+8 {
					return 0
				}
				return netlinkOrder.Uint64(b[8*i:])
			}
			l.received = Counters{Packets: word(0), Bytes: word(2), Drops: word(6)}
			l.sent = Counters{Packets: word(1), Bytes: word(3), Drops: word(7)}
		}
		return nil
	})
	return l, err
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }
