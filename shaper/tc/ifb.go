package tc

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
)

const (
	// ifbPrefix and the ifindex of the host veth make the name of an IFB, so
	// that it is found again and an orphan is known as one.
	ifbPrefix = "ngifb"
	// group marks netguard's IFBs ("NG") and tells them from anybody's that has
	// a similar name; doomed is where IFBs go to be deleted together. The
	// kernel deletes a thousand of one group in the time of a few single ones.
	group  = 0x4e47
	doomed = 0x4e48
	// queueLen is the kernel's own for an IFB; zero would lose every packet.
	queueLen = 32
	// queueLenNone is that of an IFB whose veth had no queue of its own: the kernel
	// gives one to a device that gets a qdisc, be it for ingress, and keeps it.
	queueLenNone = 33
	// ifbMTU is too small for IPv6, so that the kernel gives the device none of its
	// state (some 20 kB) and sends nothing by it. What is led through an IFB is not
	// held to it.
	ifbMTU = 1279
)

func ifbName(veth int) string { return ifbPrefix + strconv.Itoa(veth) }

// ifbs lists netguard's IFBs by the ifindex of the veth that they serve.
func (d *Driver) ifbs() (map[int]vish.Link, error) {
	links, err := d.linkList()
	if err != nil {
		return nil, err
	}
	return ifbsOf(links), nil
}

func ifbsOf(links []vish.Link) map[int]vish.Link {
	out := map[int]vish.Link{}
	for _, l := range links {
		if veth, ok := serves(l); ok {
			out[veth] = l
		}
	}
	return out
}

// linkList lists the links. A list during which links came or went may have
// holes; after some tries it is used all the same.
func (d *Driver) linkList() (links []vish.Link, err error) {
	for range 5 {
		links, err = d.links.LinkList()
		if !errors.Is(err, vish.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil && !errors.Is(err, vish.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return links, nil
}

func serves(l vish.Link) (veth int, ok bool) {
	digits, named := strings.CutPrefix(l.Attrs().Name, ifbPrefix)
	g := l.Attrs().Group
	if !named || l.Type() != "ifb" || g != group && g != doomed {
		return 0, false
	}
	veth, err := strconv.Atoi(digits)
	return veth, err == nil
}

func (d *Driver) ifb(veth int) (vish.Link, error) {
	l, err := d.links.LinkByName(ifbName(veth))
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", ifbName(veth), err)
	}
	if _, ok := serves(l); !ok {
		return nil, fmt.Errorf("%s is not netguard's: remove or rename that device", ifbName(veth))
	}
	return l, nil
}

func (d *Driver) addIFB(veth int) error {
	attrs := vish.NewLinkAttrs()
	attrs.Name, attrs.Group, attrs.TxQLen, attrs.MTU = ifbName(veth), group, queueLen, ifbMTU
	if link, err := d.links.LinkByIndex(veth); err == nil && link.Attrs().TxQLen == 0 {
		attrs.TxQLen = queueLenNone
	}
	attrs.Flags |= 1 // net.FlagUp: made and set up in one message
	if err := fault.Write("ifb add", func() error { return d.links.LinkAdd(&vish.Ifb{LinkAttrs: attrs}) }); err != nil {
		return fmt.Errorf("add %s: %w", attrs.Name, err)
	}
	return nil
}

func (d *Driver) deleteIFB(veth int) error {
	l, err := d.ifb(veth)
	if err != nil {
		if errors.As(err, &vish.LinkNotFoundError{}) {
			return nil
		}
		return err
	}
	return unless(gone, fault.Write("ifb delete", func() error { return d.links.LinkDel(l) }))
}

// Sweep deletes the IFBs whose veth is not to be kept, all of them at once, and
// tells how many they were. Their qdiscs go with them.
func (d *Driver) Sweep(keep func(veth int) bool) (int, error) {
	ifbs, err := d.ifbs()
	if err != nil {
		return 0, err
	}
	n := 0
	for veth, l := range ifbs {
		if keep(veth) {
			// One that an agent marked before it was killed would go with
			// the next that is.
			if l.Attrs().Group == doomed {
				err := fault.Write("ifb group", func() error { return d.links.LinkSetGroup(l, group) })
				if err != nil && !gone(err) {
					return n, fmt.Errorf("keep %s: %w", l.Attrs().Name, err)
				}
			}
			continue
		}
		err := fault.Write("ifb group", func() error { return d.links.LinkSetGroup(l, doomed) })
		if err != nil && !gone(err) {
			return n, fmt.Errorf("mark %s for deletion: %w", l.Attrs().Name, err)
		}
		n++
	}
	if n == 0 {
		return 0, nil
	}
	if err := d.deleteGroup(); err != nil {
		return 0, fmt.Errorf("delete IFBs: %w", err)
	}
	return n, nil
}

// deleteGroup deletes every link of the group of the doomed.
func (d *Driver) deleteGroup() error {
	msg := make([]byte, unix.SizeofIfInfomsg)
	attr := make([]byte, 8)
	netlinkOrder.PutUint16(attr[0:], 8)
	netlinkOrder.PutUint16(attr[2:], unix.IFLA_GROUP)
	netlinkOrder.PutUint32(attr[4:], doomed)
	return unless(gone, d.remove(unix.RTM_DELLINK, append(msg, attr...)))
}
