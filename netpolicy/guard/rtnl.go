package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
)

// rtnl is a socket for bridge ports, FDB entries and neighbours.
type rtnl struct{ *asker }

func openRtnl() (rtnl, error) {
	a, err := newAsker(unix.NETLINK_ROUTE, func(c *netlink.Conn) {
		// With the kernel's own words in errors, and with filters that it does not
		// understand refused instead of ignored (Linux 4.20); older kernels know
		// neither.
		_ = c.SetOption(netlink.ExtendedAcknowledge, true)
		_ = c.SetOption(netlink.GetStrictCheck, true)
	})
	return rtnl{a}, err
}

func (r rtnl) send(typ uint16, flags netlink.HeaderFlags, head []byte, attrs func(*netlink.AttributeEncoder)) ([]netlink.Message, error) {
	ae := netlink.NewAttributeEncoder()
	if attrs != nil {
		attrs(ae)
	}
	body, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	return r.ask(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | flags},
		Data:   append(head, body...),
	})
}

// write is send for what changes something, which what names.
func (r rtnl) write(what string, typ uint16, flags netlink.HeaderFlags, head []byte, attrs func(*netlink.AttributeEncoder)) error {
	return fault.Write(what, func() error {
		_, err := r.send(typ, netlink.Acknowledge|flags, head, attrs)
		return err
	})
}

// ifinfomsg is struct ifinfomsg for one device, or for all with index 0.
func ifinfomsg(family uint8, index int) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	b[0] = family
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	return b
}

// sizeofNdMsg is the size of struct ndmsg.
const sizeofNdMsg = 12

func ndmsg(family uint8, index int, state uint16, flags uint8) []byte {
	b := make([]byte, sizeofNdMsg)
	b[0] = family
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint16(b[8:], state)
	b[10] = flags
	return b
}

// gone tells that an object, or the device that it is on, is not there (any
// more). The bridge says EINVAL of a device that is no port.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.ENXIO)
}

// dump is send for lists. One during which something came or went says so, and is asked for
// again.
func (r rtnl) dump(typ uint16, head []byte, attrs func(*netlink.AttributeEncoder)) (answers []netlink.Message, err error) {
	for range 5 {
		answers, err = r.send(typ, netlink.Dump, slices.Clone(head), attrs)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return answers, err
}

// devices lists the devices of the namespace, by ifindex.
func (r rtnl) devices() ([]int, error) {
	answers, err := r.dump(unix.RTM_GETLINK, ifinfomsg(unix.AF_UNSPEC, 0), nil)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	out := make([]int, 0, len(answers))
	for _, a := range answers {
		if len(a.Data) >= unix.SizeofIfInfomsg {
			out = append(out, int(int32(binary.NativeEndian.Uint32(a.Data[4:]))))
		}
	}
	return out, nil
}
