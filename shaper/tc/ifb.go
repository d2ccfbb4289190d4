package tc

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
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
	// queueLenNone is the queue length of an IFB whose veth had a queue length of zero: it
	// records that. The kernel gives a length to a device that gets a qdisc, even one for
	// ingress, and does not take it back.
	queueLenNone = 33
	// ifbMTU is too small for IPv6. So the kernel makes no IPv6 state for the device (some
	// 20 kB) and sends nothing by it. Packets that are led through an IFB may be longer.
	ifbMTU = 1279
)

// IFBName is the name of the IFB of a veth.
func IFBName(veth int) string { return ifbPrefix + strconv.Itoa(veth) }

// serves gives the veth that a link of netguard's serves.
func (l link) serves() (veth int, ok bool) {
	digits, named := strings.CutPrefix(l.name, ifbPrefix)
	if !named || l.kind != "ifb" || l.group != group && l.group != doomed {
		return 0, false
	}
	veth, err := strconv.Atoi(digits)
	return veth, err == nil
}

// ifb gives the device that a veth's packets are led through; ENODEV where there is none.
func (d *Driver) ifb(veth int) (link, error) {
	name := IFBName(veth)
	l, err := d.link(0, name)
	if err != nil {
		return link{}, fmt.Errorf("find %s: %w", name, err)
	}
	if of, ok := l.serves(); !ok || of != veth {
		return link{}, fmt.Errorf("%s is not netguard's: remove or rename that device", name)
	}
	return l, nil
}

func (d *Driver) addIFB(veth int) error {
	attrs := vish.NewLinkAttrs()
	attrs.Name, attrs.Group, attrs.TxQLen, attrs.MTU = IFBName(veth), group, queueLen, ifbMTU
	if l, err := d.link(veth, ""); err == nil && l.queueLen == 0 {
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
		return unless(gone, err)
	}
	return unless(gone, fault.Write("ifb delete", func() error { return d.links.LinkDel(l.handle()) }))
}

// Sweep deletes the IFBs whose veth is not to be kept, all of them at once, and tells how many
// they were. Their qdiscs go with them. An IFB stays if something still leads to it that cannot
// be taken away.
func (d *Driver) Sweep(keep func(veth int) bool) (int, error) {
	var ifbs []link
	if err := d.eachLink("ifb", func(l link) { ifbs = append(ifbs, l) }); err != nil {
		return 0, err
	}
	n := 0
	var faults []error
	for _, l := range ifbs {
		veth, ok := l.serves()
		if !ok {
			continue
		}
		kept := keep(veth)
		if !kept {
			if err := d.release(veth); err != nil {
				faults = append(faults, fmt.Errorf("lead nothing to %s any more: %w", l.name, err))
				kept = true
			}
		}
		if kept {
			// A killed agent may have marked this IFB. It would go when the
			// group is deleted the next time.
			if l.group == doomed {
				err := fault.Write("ifb group", func() error { return d.links.LinkSetGroup(l.handle(), group) })
				if err != nil && !gone(err) {
					return n, fmt.Errorf("keep %s: %w", l.name, err)
				}
			}
			continue
		}
		err := fault.Write("ifb group", func() error { return d.links.LinkSetGroup(l.handle(), doomed) })
		if err != nil && !gone(err) {
			return n, fmt.Errorf("mark %s for deletion: %w", l.name, err)
		}
		n++
	}
	if n > 0 {
		if err := d.deleteGroup(); err != nil {
			return 0, errors.Join(append(faults, fmt.Errorf("delete IFBs: %w", err))...)
		}
	}
	return n, errors.Join(faults...)
}

// deleteGroup deletes every link of the group of the doomed.
func (d *Driver) deleteGroup() error {
	attr, err := attributesOf(func(ae *netlink.AttributeEncoder) { ae.Uint32(unix.IFLA_GROUP, doomed) })
	if err != nil {
		return err
	}
	return unless(gone, d.remove(unix.RTM_DELLINK, append(make([]byte, unix.SizeofIfInfomsg), attr...)))
}
