package guard

import (
	"encoding/binary"
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

// static tells whether the entry binds the MAC to the port. NUD_PERMANENT would be wrong: the
// bridge would keep the frames for itself.
func (e fdbEntry) static(port int) bool { return e.port == port && e.state == unix.NUD_NOARP }

// pinned tells whether it stays on its port as well.
func (e fdbEntry) pinned(port int, sticky bool) bool {
	return e.static(port) && (!sticky || e.flags&ntfSticky != 0)
}

// fdb asks the bridge of a port for one MAC (Linux 5.0). An FDB is never dumped: a container
// can fill it with millions of entries. The kernel walks through all of them, even for a dump
// of one port.
func (r rtnl) fdb(port int, mac MAC) (fdbEntry, bool, error) {
	return r.fdbEntry(ndmsg(unix.AF_BRIDGE, port, 0, unix.NTF_MASTER), mac, 0)
}

// fdbOf asks a bridge for one MAC, whichever port it is on.
func (r rtnl) fdbOf(bridge int, mac MAC) (fdbEntry, bool, error) {
	return r.fdbEntry(ndmsg(unix.AF_BRIDGE, 0, 0, 0), mac, bridge)
}

func (r rtnl) fdbEntry(head []byte, mac MAC, bridge int) (fdbEntry, bool, error) {
	answers, err := r.send(unix.RTM_GETNEIGH, 0, head, func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.NDA_LLADDR, mac[:])
		if bridge != 0 {
			ae.Uint32(unix.NDA_MASTER, uint32(bridge))
		}
	})
	if gone(err) {
		return fdbEntry{}, false, nil
	}
	if err != nil {
		return fdbEntry{}, false, fmt.Errorf("get FDB entry %s: %w", mac, err)
	}
	if len(answers) == 0 || len(answers[0]) < sizeofNdMsg {
		return fdbEntry{}, false, fmt.Errorf("get FDB entry %s: no answer", mac)
	}
	data := answers[0]
	return fdbEntry{
		port:  int(int32(binary.NativeEndian.Uint32(data[4:]))),
		state: binary.NativeEndian.Uint16(data[8:]),
		flags: data[10],
	}, true, nil
}

// pin binds a MAC to a port.
func (r rtnl) pin(port int, mac MAC) error {
	err := r.write("FDB add", unix.RTM_NEWNEIGH, netlink.Create|netlink.Replace,
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
	err := r.write("FDB delete", unix.RTM_DELNEIGH, 0, ndmsg(unix.AF_BRIDGE, port, 0, unix.NTF_MASTER), func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.NDA_LLADDR, mac[:])
	})
	if err != nil && !gone(err) {
		return fmt.Errorf("delete FDB entry %s: %w", mac, err)
	}
	return nil
}
