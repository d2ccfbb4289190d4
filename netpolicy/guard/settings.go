package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// settings are the switches of a bridge port that the guard sets.
type settings uint8

const (
	learning settings = 1 << iota
	flood
	mcastFlood
	bcastFlood
	bpduGuard
	locked // Linux 5.16

	// portDefaults is what the kernel gives a new port. dockerd changes none of
	// these (only hairpin and isolated).
	portDefaults = learning | flood | mcastFlood | bcastFlood
)

// switches are the settings' numbers in netlink (linux/if_link.h) and names, as
// bridge(8) has them.
var switches = []struct {
	bit  settings
	attr uint16
	name string
}{
	{learning, unix.IFLA_BRPORT_LEARNING, "learning"},
	{flood, unix.IFLA_BRPORT_UNICAST_FLOOD, "flood"},
	{mcastFlood, unix.IFLA_BRPORT_MCAST_FLOOD, "mcast_flood"},
	{bcastFlood, unix.IFLA_BRPORT_BCAST_FLOOD, "bcast_flood"},
	{bpduGuard, unix.IFLA_BRPORT_GUARD, "guard"},
	{locked, unix.IFLA_BRPORT_LOCKED, "locked"},
}

func (s settings) String() string {
	var on []string
	for _, w := range switches {
		if s&w.bit != 0 {
			on = append(on, w.name)
		}
	}
	return strings.Join(on, " ")
}

const record = "before: "

// recorded is the comment in which the settings from before are kept.
func (s settings) recorded() string { return record + s.String() }

// parseRecord reads such a comment. Anything else is not ours.
func parseRecord(comment string) (settings, bool) {
	text, ok := strings.CutPrefix(comment, record)
	if !ok {
		return 0, false
	}
	var s settings
words:
	for _, word := range strings.Fields(text) {
		for _, w := range switches {
			if word == w.name {
				s |= w.bit
				continue words
			}
		}
		return 0, false
	}
	return s, true
}

// guarded is what a port of an admitted container is set to. What the bridge
// floods to it stays as it was: ARP needs broadcast, ND and mDNS need multicast.
func guarded(before settings) settings {
	return bpduGuard | locked | before&(mcastFlood|bcastFlood)
}

// jailed is what a port is set to that nothing may reach.
const jailed = bpduGuard | locked

// bridgePort is a port as the kernel has it.
type bridgePort struct {
	bridge   int // ifindex
	settings settings
}

// port reads one port; false when there is no such device or it is in no bridge.
func (r rtnl) port(index int) (bridgePort, bool, error) {
	answers, err := r.send(unix.RTM_GETLINK, 0, ifinfomsg(unix.AF_UNSPEC, index), nil)
	if errors.Is(err, unix.ENODEV) {
		return bridgePort{}, false, nil
	}
	if err != nil {
		return bridgePort{}, false, fmt.Errorf("get link %d: %w", index, err)
	}
	for _, a := range answers {
		if _, p, ok, err := parsePort(a.Data); err != nil || ok {
			return p, ok, err
		}
	}
	return bridgePort{}, false, nil
}

// ports reads the ports of all bridges.
func (r rtnl) ports() (map[int]bridgePort, error) {
	var answers []netlink.Message
	var err error
	// A dump during which links came or went says so, and is asked for again.
	for range 5 {
		answers, err = r.send(unix.RTM_GETLINK, netlink.Dump, ifinfomsg(unix.AF_BRIDGE, 0), nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list bridge ports: %w", err)
	}
	out := make(map[int]bridgePort, len(answers))
	for _, a := range answers {
		index, p, ok, err := parsePort(a.Data)
		if err != nil {
			return nil, err
		}
		if ok {
			out[index] = p
		}
	}
	return out, nil
}

// parsePort reads a port from either kind of answer: the bridge's own puts the
// settings in IFLA_PROTINFO, that of a link in IFLA_LINKINFO.
func parsePort(data []byte) (index int, p bridgePort, ok bool, err error) {
	if len(data) < unix.SizeofIfInfomsg {
		return 0, p, false, fmt.Errorf("parse link: %d bytes are too few", len(data))
	}
	index = int(int32(binary.NativeEndian.Uint32(data[4:])))
	ad, err := netlink.NewAttributeDecoder(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return index, p, false, fmt.Errorf("parse link %d: %w", index, err)
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_MASTER:
			p.bridge = int(ad.Uint32())
		case unix.IFLA_PROTINFO:
			// A link's own answer has the IPv6 settings here, by family.
			if data[0] == unix.AF_BRIDGE {
				ad.Nested(p.settings.decode)
				ok = true
			}
		case unix.IFLA_LINKINFO:
			ad.Nested(func(info *netlink.AttributeDecoder) error {
				bridge := false
				for info.Next() {
					switch info.Type() {
					case unix.IFLA_INFO_SLAVE_KIND:
						bridge = info.String() == "bridge"
					case unix.IFLA_INFO_SLAVE_DATA:
						if bridge {
							info.Nested(p.settings.decode)
							ok = true
						}
					}
				}
				return info.Err()
			})
		}
	}
	if err := ad.Err(); err != nil {
		return index, p, false, fmt.Errorf("parse link %d: %w", index, err)
	}
	// The bridge answers about its own device as well, which has no settings.
	return index, p, ok && p.bridge != 0, nil
}

func (s *settings) decode(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		for _, w := range switches {
			if ad.Type() == w.attr && ad.Uint8() != 0 {
				*s |= w.bit
			}
		}
	}
	return ad.Err()
}

// set switches a port over in one message. Where the port is locked by it, what
// the bridge has learned on it so far is forgotten: until then the container
// could have made the bridge believe that another's MAC is here. Switches of
// which the kernel knows nothing it passes over in silence: read back.
func (r rtnl) set(index int, s settings, forget bool) error {
	_, err := r.send(unix.RTM_SETLINK, netlink.Acknowledge, ifinfomsg(unix.AF_BRIDGE, index), func(ae *netlink.AttributeEncoder) {
		ae.Nested(unix.IFLA_PROTINFO, func(ae *netlink.AttributeEncoder) error {
			for _, w := range switches {
				on := uint8(0)
				if s&w.bit != 0 {
					on = 1
				}
				ae.Uint8(w.attr, on)
			}
			if forget {
				ae.Bytes(unix.IFLA_BRPORT_FLUSH, nil)
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("set port to %q: %w", s, err)
	}
	return nil
}
