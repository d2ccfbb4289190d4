// Package tc writes shaper's trees to the kernel and reads them back. It sends the messages of a
// tree together. It writes filters and ingress qdiscs with go-tc, which sends one message at a
// time, and IFBs with vishvananda/netlink. It touches only what carries netguard's own handles,
// names and link group. It is not safe for concurrent use: one goroutine owns a Driver.
package tc

import (
	"encoding/binary"
	"errors"
	"fmt"

	gotc "github.com/florianl/go-tc"
	"github.com/mdlayher/netlink"
	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
	"netguard/internal/netlinkconn"
	"netguard/shaper"
)

// rootParent is the parent of a root qdisc (TC_H_ROOT).
const rootParent = 0xffffffff

var netlinkOrder = binary.NativeEndian

// Driver holds the netlink sockets of the network namespace it was opened in.
type Driver struct {
	conn  *netlinkconn.Conn
	write *gotc.Tc
	links *vish.Handle

	// The filters that spread packets over the classes, by the direction of the
	// limit, and the one that leads what a container sends to its IFB.
	spread [2]program
	upload program

	listed int // qdiscs in the last list of all
}

// Open opens the sockets. It needs CAP_NET_ADMIN for whatever is written later.
func Open() (*Driver, error) {
	d := &Driver{}
	var err error
	for _, dir := range shaper.Directions {
		if d.spread[dir], err = classifier(dir); err != nil {
			return nil, fmt.Errorf("assemble %s classifier: %w", dir, err)
		}
	}
	if d.upload, err = everything(); err != nil {
		return nil, fmt.Errorf("assemble filter: %w", err)
	}
	if d.conn, err = netlinkconn.Dial(unix.NETLINK_ROUTE, 0); err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if d.write, err = gotc.Open(nil); err != nil {
		d.Close()
		return nil, fmt.Errorf("open netlink for tc: %w", err)
	}
	_ = d.write.SetOption(netlink.ExtendedAcknowledge, true)
	if d.links, err = vish.NewHandle(unix.NETLINK_ROUTE); err != nil {
		d.Close()
		return nil, fmt.Errorf("open netlink for links: %w", err)
	}
	return d, nil
}

// Close closes the sockets; what they wrote stays.
func (d *Driver) Close() {
	if d.conn != nil {
		d.conn.Close()
	}
	if d.write != nil {
		_ = d.write.Close()
	}
	if d.links != nil {
		d.links.Close()
	}
}

// Socket is the kernel's number of the socket that the Driver reads with, and writes
// trees with. The kernel puts it in each message that it sends to its listeners about
// such a reading or writing.
func (d *Driver) Socket() uint32 { return d.conn.ID }

// gone tells that an object, or its device, is not there any more.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}

func nothing([]byte) error { return nil }

// remove sends one message that deletes something, and waits for the kernel's answer. The
// libraries have no function for these messages.
func (d *Driver) remove(typ uint16, data []byte) error {
	return fault.Write("tc delete", func() error { return d.conn.Execute(typ, 0, data, nothing) })
}
