package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// settings are what the guard sets of a bridge port.
type settings struct {
	on switches
	// group has a bit for each of the addresses 01:80:c2:00:00:00 to :0f. If the bit is set,
	// the port forwards frames to this address like others. If not, these frames, such as
	// LLDP, go to the host, and no hook of the bridge sees them.
	group uint16
	// groups is how many multicast groups the port may have joined; 0 is any number.
	groups uint32
}

type switches uint8

const (
	learning switches = 1 << iota
	flood
	mcastFlood
	bcastFlood
	bpduGuard
	locked // Linux 5.16

	// allGroups has all bits that the kernel takes. It takes no second bit, flow control: the
	// bridge drops such frames.
	allGroups = 0xfffd

	// maxGroups keeps sixteen ports together below 4096 groups (hash_max). At 4096 a bridge
	// stops multicast snooping for good, and floods multicast from then on.
	// IFLA_BRPORT_MCAST_MAX_GROUPS is of Linux 6.3.
	maxGroups = 250
)

// portDefaults is what the kernel gives a new port. dockerd changes none of these
// (only hairpin and isolated).
var portDefaults = settings{on: learning | flood | mcastFlood | bcastFlood}

// switchNames are the switches' numbers in netlink (linux/if_link.h) and names, as
// bridge(8) has them.
var switchNames = []struct {
	bit  switches
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

const (
	groupName  = "group_fwd_mask="
	groupsName = "mcast_max_groups="
)

func (s settings) String() string {
	var on []string
	for _, w := range switchNames {
		if s.on&w.bit != 0 {
			on = append(on, w.name)
		}
	}
	if s.group != 0 {
		on = append(on, fmt.Sprintf("%s0x%x", groupName, s.group))
	}
	if s.groups != 0 {
		on = append(on, fmt.Sprintf("%s%d", groupsName, s.groups))
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
		return settings{}, false
	}
	var s settings
words:
	for _, word := range strings.Fields(text) {
		for _, w := range switchNames {
			if word == w.name {
				s.on |= w.bit
				continue words
			}
		}
		if number, ok := strings.CutPrefix(word, groupsName); ok {
			n, err := strconv.ParseUint(number, 10, 32)
			if err != nil {
				return settings{}, false
			}
			s.groups = uint32(n)
			continue
		}
		number, ok := strings.CutPrefix(word, groupName)
		group, err := strconv.ParseUint(number, 0, 16)
		if !ok || err != nil {
			return settings{}, false
		}
		s.group = uint16(group)
	}
	return s, true
}

// guarded is what a port of an admitted container is set to. What the bridge
// floods to it stays as it was: ARP needs broadcast, ND and mDNS need multicast.
func guarded(before settings) settings {
	s := settings{on: bpduGuard | locked | before.on&(mcastFlood|bcastFlood), group: allGroups, groups: maxGroups}
	if before.groups != 0 {
		s.groups = min(s.groups, before.groups)
	}
	return s
}

// quarantined are the settings of a port that may neither send nor receive.
var quarantined = settings{on: bpduGuard | locked, group: allGroups, groups: maxGroups}

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
		if _, p, ok, err := parsePort(a); err != nil || ok {
			return p, ok, err
		}
	}
	return bridgePort{}, false, nil
}

// ports reads the ports of all bridges.
func (r rtnl) ports() (map[int]bridgePort, error) {
	answers, err := r.dump(unix.RTM_GETLINK, ifinfomsg(unix.AF_BRIDGE, 0), nil)
	if err != nil {
		return nil, fmt.Errorf("list bridge ports: %w", err)
	}
	out := make(map[int]bridgePort, len(answers))
	for _, a := range answers {
		index, p, ok, err := parsePort(a)
		if err != nil {
			return nil, err
		}
		if ok {
			out[index] = p
		}
	}
	return out, nil
}

// parsePort reads a port from either kind of answer. A bridge's answer has the settings in
// IFLA_PROTINFO, a link's answer has them in IFLA_LINKINFO.
func parsePort(data []byte) (index int, p bridgePort, ok bool, err error) {
	if len(data) < unix.SizeofIfInfomsg {
		return 0, p, false, fmt.Errorf("parse link: %d bytes are too few", len(data))
	}
	index = int(int32(binary.NativeEndian.Uint32(data[4:])))
	slave := ""
	err = attributes(data[unix.SizeofIfInfomsg:], func(typ uint16, b []byte) error {
		switch {
		case typ == unix.IFLA_MASTER:
			p.bridge = int(uintOf(b))
		// In a link's answer, IFLA_PROTINFO has settings of IPv6.
		case typ == unix.IFLA_PROTINFO && data[0] == unix.AF_BRIDGE:
			ok = true
			return attributes(b, p.settings.decode)
		case typ == unix.IFLA_LINKINFO:
			return attributes(b, func(typ uint16, b []byte) error {
				switch {
				case typ == unix.IFLA_INFO_SLAVE_KIND:
					slave = cut(b)
				case typ == unix.IFLA_INFO_SLAVE_DATA && slave == "bridge":
					ok = true
					return attributes(b, p.settings.decode)
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return index, p, false, fmt.Errorf("parse link %d: %w", index, err)
	}
	// The bridge answers about its own device as well, which has no settings.
	return index, p, ok && p.bridge != 0, nil
}

// decode reads one attribute.
func (s *settings) decode(typ uint16, b []byte) error {
	switch typ {
	case unix.IFLA_BRPORT_GROUP_FWD_MASK:
		s.group = uint16(uintOf(b))
	case unix.IFLA_BRPORT_MCAST_MAX_GROUPS:
		s.groups = uintOf(b)
	}
	for _, w := range switchNames {
		if typ == w.attr && uintOf(b) != 0 {
			s.on |= w.bit
		}
	}
	return nil
}

// set changes all settings of a port in one message. With forget, the bridge also forgets the
// MACs that it learned on the port: before it was locked, the container could have made the
// bridge believe that another's MAC is there. The kernel silently skips settings that it does
// not know, so the caller must read the port back.
func (r rtnl) set(index int, s settings, forget bool) error {
	err := r.write("port settings", unix.RTM_SETLINK, 0, ifinfomsg(unix.AF_BRIDGE, index), func(ae *netlink.AttributeEncoder) {
		ae.Nested(unix.IFLA_PROTINFO, func(ae *netlink.AttributeEncoder) error {
			for _, w := range switchNames {
				on := uint8(0)
				if s.on&w.bit != 0 {
					on = 1
				}
				ae.Uint8(w.attr, on)
			}
			// The kernel refuses a mask with any other bit.
			ae.Uint16(unix.IFLA_BRPORT_GROUP_FWD_MASK, s.group&allGroups)
			ae.Uint32(unix.IFLA_BRPORT_MCAST_MAX_GROUPS, s.groups)
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
