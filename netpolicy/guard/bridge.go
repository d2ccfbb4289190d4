package guard

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// bridgeDevice is a bridge as a device of the host.
type bridgeDevice struct {
	mac MAC
	// ip6 says that the host speaks IPv6 there. Where it does not, the kernel
	// takes no neighbour entries.
	ip6 bool
	// learned is how many MACs it learns, where limits says that the kernel has a limit.
	learned uint32
	limits  bool
	index   int
}

// Attributes of linux/if_link.h, and the place of disable_ipv6 in linux/ipv6.h.
const (
	inet6Conf   = 2  // IFLA_INET6_CONF
	disableIPv6 = 26 // DEVCONF_DISABLE_IPV6
)

// bridge reads a bridge; false when it is gone.
func (r rtnl) bridge(index int) (bridgeDevice, bool, error) {
	answers, err := r.send(unix.RTM_GETLINK, 0, ifinfomsg(unix.AF_UNSPEC, index), nil)
	if gone(err) {
		return bridgeDevice{}, false, nil
	}
	if err != nil {
		return bridgeDevice{}, false, fmt.Errorf("get link %d: %w", index, err)
	}
	if len(answers) == 0 {
		return bridgeDevice{}, false, nil
	}
	b, err := parseBridge(answers[0])
	if err != nil {
		return b, false, fmt.Errorf("parse link %d: %w", index, err)
	}
	return b, true, nil
}

func parseBridge(data []byte) (b bridgeDevice, err error) {
	if len(data) < unix.SizeofIfInfomsg {
		return b, errShort
	}
	b.index = int(int32(binary.NativeEndian.Uint32(data[4:])))
	kind := ""
	return b, attributes(data[unix.SizeofIfInfomsg:], func(typ uint16, value []byte) error {
		switch {
		case typ == unix.IFLA_ADDRESS && len(value) == len(b.mac):
			b.mac = MAC(value)
		case typ == unix.IFLA_LINKINFO:
			return attributes(value, func(typ uint16, value []byte) error {
				switch {
				case typ == unix.IFLA_INFO_KIND:
					kind = cut(value)
				case typ == unix.IFLA_INFO_DATA && kind == "bridge":
					return attributes(value, b.learns)
				}
				return nil
			})
		case typ == unix.IFLA_AF_SPEC:
			return attributes(value, func(typ uint16, value []byte) error {
				if typ != unix.AF_INET6 {
					return nil
				}
				return attributes(value, b.inet6)
			})
		}
		return nil
	})
}

func (b *bridgeDevice) inet6(typ uint16, conf []byte) error {
	if typ == inet6Conf && len(conf) >= 4*(disableIPv6+1) {
		b.ip6 = binary.NativeEndian.Uint32(conf[4*disableIPv6:]) == 0
	}
	return nil
}

// learns reads the limit on learned MACs.
func (b *bridgeDevice) learns(typ uint16, value []byte) error {
	if typ == unix.IFLA_BR_FDB_MAX_LEARNED {
		b.learned, b.limits = uintOf(value), true
	}
	return nil
}

// addresses lists the addresses of one device. A kernel that does not filter (before Linux
// 4.20) gives those of all devices.
func (r rtnl) addresses(device int) ([]netip.Addr, error) {
	head := make([]byte, unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(head[4:], uint32(device))
	answers, err := r.dump(unix.RTM_GETADDR, head, nil)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range answers {
		index, addr, err := parseAddress(a)
		if err != nil {
			return nil, fmt.Errorf("parse address: %w", err)
		}
		if index == device && addr.IsValid() {
			out = append(out, addr)
		}
	}
	return out, nil
}

func parseAddress(data []byte) (index int, addr netip.Addr, err error) {
	if len(data) < unix.SizeofIfAddrmsg {
		return 0, addr, errShort
	}
	index = int(int32(binary.NativeEndian.Uint32(data[4:])))
	err = attributes(data[unix.SizeofIfAddrmsg:], func(typ uint16, b []byte) error {
		// Where there are both, IFA_ADDRESS is the other end of a point-to-point link.
		if typ == unix.IFA_ADDRESS && !addr.IsValid() || typ == unix.IFA_LOCAL {
			addr, _ = netip.AddrFromSlice(b)
		}
		return nil
	})
	return index, addr, err
}

// observeBridges reads the MACs and addresses of bridges that are new or that the look names;
// with look.Unheard, of all. It tells whether all of them are as they were. If some is true, only
// changed ports can be on a new bridge.
func (d *Driver) observeBridges(w Wish, changed map[int]*Port, some bool, look Look) (bool, error) {
	used := map[int]bool{}
	for _, b := range w.Bridges {
		used[b.Index] = true
	}
	ports := maps.Values(changed)
	if some && !look.Full {
		for index := range d.kernel.bridges {
			used[index] = true
		}
	} else {
		ports = slices.Values(w.Ports)
	}
	for p := range ports {
		if p != nil {
			used[p.Bridge] = true
		}
	}
	macs, gateways, no6 := maps.Clone(d.kernel.bridges), maps.Clone(d.kernel.gateways), maps.Clone(d.kernel.no6)
	maps.DeleteFunc(d.kernel.bridges, func(index int, _ MAC) bool {
		_, named := look.Links[index]
		return named || look.Unheard || !used[index]
	})
	maps.DeleteFunc(d.kernel.gateways, func(index int, _ []netip.Addr) bool {
		_, known := d.kernel.bridges[index]
		return !known
	})
	for index := range used {
		if _, ok := d.kernel.bridges[index]; ok || index == 0 {
			continue
		}
		b, ok, err := d.links.bridge(index)
		if err != nil {
			return false, err
		}
		delete(d.kernel.no6, index)
		delete(d.kernel.learned, index)
		if ok {
			if b.limits {
				d.kernel.learned[index] = b.learned
			}
			addresses, err := d.links.addresses(index)
			if err != nil {
				return false, err
			}
			d.kernel.bridges[index], d.kernel.gateways[index] = b.mac, addresses
			if !b.ip6 {
				d.kernel.no6[index] = true
			}
		}
	}
	return maps.Equal(macs, d.kernel.bridges) && maps.EqualFunc(gateways, d.kernel.gateways, slices.Equal) && maps.Equal(no6, d.kernel.no6), nil
}
