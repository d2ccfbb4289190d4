package tc

import (
	"errors"
	"fmt"

	gotc "github.com/florianl/go-tc"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
	"netguard/shaper"
)

const (
	ingressParent = 0xffff0000 // ffff:, where ingress filters hang
	ingressSlot   = 0xfffffff1 // TC_H_INGRESS
	allProtocols  = 0x0300     // ETH_P_ALL in network order
	priority      = 1
)

// ErrOccupied says that somebody else's qdisc stands where one was to be added.
var ErrOccupied = errors.New("another qdisc is in place")

// Apply carries out the steps for the endpoint behind a host veth, in order. It
// stops at the first failure; what was done before stays, and a fresh Diff
// continues from there.
func (d *Driver) Apply(veth int, vethName string, steps []shaper.Step) error {
	for len(steps) > 0 {
		s := steps[0]
		if n := run(steps); n > 0 {
			dev, err := d.device(veth, s.Device)
			if err == nil {
				err = d.sendTree(dev, steps[:n])
			}
			if err != nil && !errors.As(err, new(shaper.StepError)) {
				err = shaper.StepError{Step: s, Err: err}
			}
			if err != nil {
				return err
			}
			steps = steps[n:]
			continue
		}
		if err := d.step(veth, vethName, s); err != nil {
			return shaper.StepError{Step: s, Err: err}
		}
		steps = steps[1:]
	}
	return nil
}

func (d *Driver) step(veth int, vethName string, s shaper.Step) error {
	switch s.Op {
	case shaper.AddIFB:
		return d.addIFB(veth)
	case shaper.DeleteIFB:
		return d.deleteIFB(veth)
	case shaper.AddIngress:
		return d.addIngress(veth)
	case shaper.DeleteIngress:
		return d.deleteIngress(veth)
	case shaper.AddRedirect:
		return d.addRedirect(veth, vethName)
	case shaper.DeleteRedirect:
		filters, err := d.ingressFilters(veth)
		if err != nil {
			return err
		}
		return d.deleteFilters(filters, 0)
	}
	dev, err := d.device(veth, s.Device)
	if err != nil {
		return err
	}
	switch s.Op {
	case shaper.DeleteRoot:
		return d.deleteRoot(dev)
	case shaper.ReplaceQueue:
		if err := d.deleteQdisc(dev, uint32(s.Queue.Handle())<<16, rootHandle|uint32(s.Queue.Class)); err != nil {
			return err
		}
		s.Op = shaper.AddQueue
		return d.sendTree(dev, []shaper.Step{s})
	case shaper.DeleteClass:
		return d.delete(unix.RTM_DELTCLASS, dev, rootHandle|uint32(s.Class.Minor), 0)
	case shaper.AddClassifier:
		msg := gotc.Msg{Family: unix.AF_UNSPEC, Ifindex: uint32(dev), Parent: rootHandle}
		return d.addFilter(msg, d.spread[direction(s.Device)], nil)
	}
	return fmt.Errorf("unknown operation %d", s.Op)
}

// device gives the device of an endpoint that a step is about.
func (d *Driver) device(veth int, which shaper.Device) (int, error) {
	if which == shaper.Veth {
		return veth, nil
	}
	l, err := d.ifb(veth)
	return l.index, err
}

// direction tells which limit a device has.
func direction(dev shaper.Device) shaper.Direction {
	if dev == shaper.IFB {
		return shaper.Egress
	}
	return shaper.Ingress
}

func (d *Driver) addQdisc(o *gotc.Object) error {
	return fault.Write("tc qdisc", func() error { return d.write.Qdisc().Add(o) })
}

// addRedirect leads everything that arrives from the container to its IFB. Before that, it gives
// the IFB its alias, which the kernel does not take when it makes the device. It also gives the
// veth back the queue length that it had before its ingress qdisc. The redirect comes last, so
// that no IFB in use lacks these.
func (d *Driver) addRedirect(veth int, vethName string) error {
	l, err := d.ifb(veth)
	if err != nil {
		return err
	}
	alias := "netguard: what " + vethName + " sends"
	if err := fault.Write("ifb alias", func() error { return d.links.LinkSetAlias(l.handle(), alias) }); err != nil {
		return fmt.Errorf("name %s: %w", l.name, err)
	}
	if l.queueLen == queueLenNone {
		if err := d.noQueue(veth); err != nil {
			return err
		}
	}
	msg := gotc.Msg{Family: unix.AF_UNSPEC, Ifindex: uint32(veth), Parent: ingressParent}
	return d.addFilter(msg, d.upload, &gotc.Action{
		Kind: "mirred",
		Mirred: &gotc.Mirred{Parms: &gotc.MirredParam{
			Action:  gotc.ActStolen,
			Eaction: 1, // TCA_EGRESS_REDIR
			IfIndex: uint32(l.index),
		}},
	})
}

// addFilter adds a filter and then removes those of other versions of netguard:
// the kernel asks the newest first, so that there is no moment without one.
func (d *Driver) addFilter(msg gotc.Msg, p program, action *gotc.Action) error {
	ops := uint16(len(p.code) / 8)
	msg.Handle, msg.Info = p.handle, priority<<16|allProtocols
	err := fault.Write("tc filter", func() error {
		return d.write.Filter().Replace(&gotc.Object{Msg: msg, Attribute: gotc.Attribute{Kind: "bpf",
			BPF: &gotc.Bpf{Ops: &p.code, OpsLen: &ops, Action: action}}})
	})
	if err != nil {
		return err
	}
	filters, err := d.dump(unix.RTM_GETTFILTER, int(msg.Ifindex), msg.Parent)
	if err != nil {
		return fmt.Errorf("list filters: %w", err)
	}
	return d.deleteFilters(filters, p.handle)
}

func occupied(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return ErrOccupied
	}
	return err
}

// unless drops an error that says that there is nothing left to do.
func unless(fine func(error) bool, err error) error {
	if err != nil && fine(err) {
		return nil
	}
	return err
}

// wasNoQueue records that a device had a queue length of zero: the kernel gives a length to a
// device that gets a qdisc, and does not take it back. The record is the length of HTB's queue
// for unclassified packets, which netguard's trees do not use.
const wasNoQueue uint32 = 0x4e47

// deleteRoot first gives the device back the queue length that it had, while the root qdisc
// still records it. Then it deletes netguard's root qdisc.
func (d *Driver) deleteRoot(dev int) error {
	on, err := d.qdiscsAt(dev, rootParent)
	if err != nil {
		return err
	}
	none := false
	for _, m := range on {
		if m.parent == rootParent && m.handle == rootHandle {
			err := attributes(m.options, func(typ uint16, b []byte) error {
				none = none || typ == htbDirectQlen && u32(b, 0) == wasNoQueue
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	if none {
		if err := d.noQueue(dev); err != nil {
			return err
		}
	}
	return d.deleteQdisc(dev, rootHandle, rootParent)
}

// noQueue sets a device's queue length to zero.
func (d *Driver) noQueue(dev int) error {
	l, err := d.link(dev, "")
	if err == nil && l.queueLen != 0 {
		err = fault.Write("queue length", func() error { return d.links.LinkSetTxQLen(l.handle(), 0) })
	}
	if err == nil || gone(err) {
		return nil
	}
	return fmt.Errorf("set queue length: %w", err)
}

// addIngress adds the ingress qdisc. The device keeps the queue length that it had:
// nothing is queued here, and nothing here could record it.
func (d *Driver) addIngress(dev int) error {
	l, linkErr := d.link(dev, "")
	err := d.addQdisc(&gotc.Object{Msg: gotc.Msg{Family: unix.AF_UNSPEC, Ifindex: uint32(dev),
		Handle: ingressParent, Parent: ingressSlot}, Attribute: gotc.Attribute{Kind: "ingress"}})
	if err != nil || linkErr != nil || l.queueLen != 0 {
		return occupied(err)
	}
	return d.noQueue(dev)
}

// deleteIngress first gives the device back the queue length that it had, while the IFB still
// records it. An agent may have been killed after it added the qdisc and before it did that.
func (d *Driver) deleteIngress(veth int) error {
	if l, err := d.ifb(veth); err == nil && l.queueLen == queueLenNone {
		if err := d.noQueue(veth); err != nil {
			return err
		}
	}
	return d.deleteQdisc(veth, ingressParent, ingressSlot)
}

// deleteQdisc deletes a qdisc by its handle alone, whatever its kind; one that
// is not there is fine. (go-tc insists on a kind's parameters here.)
func (d *Driver) deleteQdisc(dev int, handle, parent uint32) error {
	return d.delete(unix.RTM_DELQDISC, dev, handle, parent)
}

func (d *Driver) delete(typ uint16, dev int, handle, parent uint32) error {
	return unless(gone, d.remove(typ, words(0, uint32(dev), handle, parent, 0)))
}
