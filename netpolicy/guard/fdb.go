package guard

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// NTF_STICKY (Linux 4.20) keeps an entry on its port when a frame with the same
// source arrives on another one.
const ntfSticky = 0x40

// fdbEntry is what a bridge knows of a MAC.
type fdbEntry struct {
	port  int
	state uint16
	flags uint8
}

// pinned tells whether the entry is static, bound to the port and stays there.
// NUD_PERMANENT would be wrong: that makes the bridge keep the frames.
func (e fdbEntry) pinned(port int) bool {
	return e.port == port && e.state == unix.NUD_NOARP && e.flags&ntfSticky != 0
}

// fdb asks the bridge of a port for one MAC (Linux 5.0). An FDB is never dumped: a
// container can fill it with millions of entries, which the kernel walks even
// when it is asked for those of one port.
func (r rtnl) fdb(port int, mac MAC) (fdbEntry, bool, error) {
	answers, err := r.send(unix.RTM_GETNEIGH, 0, ndmsg(unix.AF_BRIDGE, port, 0, unix.NTF_MASTER), func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.NDA_LLADDR, mac[:])
	})
	if gone(err) {
		return fdbEntry{}, false, nil
	}
	if err != nil {
		return fdbEntry{}, false, fmt.Errorf("get FDB entry %s: %w", mac, err)
	}
	for _, a := range answers {
		if len(a.Data) < sizeofNdMsg {
			return fdbEntry{}, false, errors.New("parse FDB entry: too short")
		}
		return fdbEntry{
			port:  int(int32(binary.NativeEndian.Uint32(a.Data[4:]))),
			state: binary.NativeEndian.Uint16(a.Data[8:]),
			flags: a.Data[10],
		}, true, nil
	}
	return fdbEntry{}, false, nil
}

// pin binds a MAC to a port.
func (r rtnl) pin(port int, mac MAC) error {
	_, err := r.send(unix.RTM_NEWNEIGH, netlink.Acknowledge|netlink.Create|netlink.Replace,
		ndmsg(unix.AF_BRIDGE, port, unix.NUD_NOARP, unix.NTF_MASTER|ntfSticky), func(ae *netlink.AttributeEncoder) {
			ae.Bytes(unix.NDA_LLADDR, mac[:])
		})
	if err != nil {
		return fmt.Errorf("add FDB entry %s: %w", mac, err)
	}
	return nil
}

// unpin removes a MAC from a port; one that is not there is fine.
func (r rtnl) unpin(port int, mac MAC) error {
	_, err := r.send(unix.RTM_DELNEIGH, netlink.Acknowledge, ndmsg(unix.AF_BRIDGE, port, 0, unix.NTF_MASTER), func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.NDA_LLADDR, mac[:])
	})
	if err != nil && !gone(err) {
		return fmt.Errorf("delete FDB entry %s: %w", mac, err)
	}
	return nil
}
