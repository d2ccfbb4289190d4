package guard

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// bridgeDevice is a bridge as a device of the host.
type bridgeDevice struct {
	mac MAC
	// ip6 says that the host speaks IPv6 there. Where it does not, the kernel
	// takes no neighbour entries.
	ip6 bool
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
	b, err := parseBridge(answers[0].Data)
	if err != nil {
		return b, false, fmt.Errorf("parse link %d: %w", index, err)
	}
	return b, true, nil
}

func parseBridge(data []byte) (b bridgeDevice, err error) {
	if len(data) < unix.SizeofIfInfomsg {
		return b, errShort
	}
	ad, err := netlink.NewAttributeDecoder(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return b, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_ADDRESS:
			if m := ad.Bytes(); len(m) == len(b.mac) {
				b.mac = MAC(m)
			}
		case unix.IFLA_AF_SPEC:
			ad.Nested(func(families *netlink.AttributeDecoder) error {
				for families.Next() {
					if families.Type() == unix.AF_INET6 {
						families.Nested(b.inet6)
					}
				}
				return families.Err()
			})
		}
	}
	return b, ad.Err()
}

func (b *bridgeDevice) inet6(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if conf := ad.Bytes(); ad.Type() == inet6Conf && len(conf) >= 4*(disableIPv6+1) {
			b.ip6 = binary.NativeEndian.Uint32(conf[4*disableIPv6:]) == 0
		}
	}
	return ad.Err()
}
