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
	a, err := newAsker(unix.NETLINK_ROUTE, true)
	return rtnl{a}, err
}

func (r rtnl) send(typ uint16, flags netlink.HeaderFlags, head []byte, attrs func(*netlink.AttributeEncoder)) ([][]byte, error) {
	answers, _, err := r.request(typ, flags, head, attrs)
	return answers, err
}

func (r rtnl) request(typ uint16, flags netlink.HeaderFlags, head []byte, attrs func(*netlink.AttributeEncoder)) (answers [][]byte, whole bool, err error) {
	ae := netlink.NewAttributeEncoder()
	if attrs != nil {
		attrs(ae)
	}
	body, err := ae.Encode()
	if err != nil {
		return nil, false, err
	}
	return r.ask(typ, flags, append(head, body...))
}

// write sends a message that changes something. what names this kind of write for package fault.
func (r rtnl) write(what string, typ uint16, flags netlink.HeaderFlags, head []byte, attrs func(*netlink.AttributeEncoder)) error {
	return fault.Write(what, func() error {
		_, err := r.send(typ, flags, head, attrs)
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

// gone tells whether an error says that an object, or the device that it is on, does not
// exist. About a device that is no port, the bridge says EINVAL.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.ENXIO)
}

// dump asks for a list.
func (r rtnl) dump(typ uint16, head []byte, attrs func(*netlink.AttributeEncoder)) ([][]byte, error) {
	return r.list(func() ([][]byte, bool, error) { return r.request(typ, netlink.Dump, slices.Clone(head), attrs) })
}

// list gives the list that ask gives. If something came or went while the kernel made the list,
// it asks again, a few times. Then it gives the list that there is, and notes that this may have
// holes.
func (a *asker) list(ask func() (answers [][]byte, whole bool, err error)) (answers [][]byte, err error) {
	whole := false
	for range 5 {
		answers, whole, err = ask()
		if err == nil && whole || err != nil && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	a.holes = a.holes || err == nil && !whole
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
		if len(a) >= unix.SizeofIfInfomsg {
			out = append(out, int(int32(binary.NativeEndian.Uint32(a[4:]))))
		}
	}
	return out, nil
}
