package tc

import (
	"errors"
	"fmt"

	gotc "github.com/florianl/go-tc"
	vish "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netguard/internal/fault"
	"netguard/shaper"
)

const (
	ingressParent = 0xffff0000 // ffff:, where ingress filters hang
	ingressSlot   = 0xfffffff1 // TC_H_INGRESS
	allProtocols  = 0x0300     // ETH_P_ALL in network order
	priority      = 1
	// linkEthernet tells the kernel that lengths are whole frames, so that no
	// rate table need be sent (TC_LINKLAYER_ETHERNET).
	linkEthernet = 1
)

// ErrOccupied says that somebody else's qdisc stands where one was to be added.
var ErrOccupied = errors.New("another qdisc is in place")

// Apply carries out the steps for the endpoint behind a host veth, in order. It
// stops at the first failure; what was done before stays, and a fresh Diff
// continues from there.
func (d *Driver) Apply(veth int, vethName string, steps []shaper.Step) error {
	for _, s := range steps {
		if err := d.step(veth, vethName, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
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
		return d.deleteQdisc(veth, ingressParent, ingressSlot)
	case shaper.AddRedirect:
		return d.addRedirect(veth, vethName)
	}
	dev := veth
	if s.Device == shaper.IFB {
		link, err := d.ifb(veth)
		if err != nil {
			return err
		}
		dev = link.Attrs().Index
	}
	return d.treeStep(dev, s)
}

func (d *Driver) treeStep(dev int, s shaper.Step) error {
	msg := gotc.Msg{Family: unix.AF_UNSPEC, Ifindex: uint32(dev)}
	const root = uint32(shaper.RootMajor) << 16
	switch s.Op {
	case shaper.AddRoot:
		htb := &gotc.Htb{Init: &gotc.HtbGlob{Version: 3, Rate2Quantum: 10, Defcls: uint32(s.Default)}}
		if link, err := d.links.LinkByIndex(dev); err == nil && link.Attrs().TxQLen == 0 {
			htb.DirectQlen = ptr(wasNoQueue)
		}
		msg.Handle, msg.Parent = root, rootParent
		return occupied(d.addQdisc(&gotc.Object{Msg: msg, Attribute: gotc.Attribute{Kind: "htb", Htb: htb}}))
	case shaper.DeleteRoot:
		return d.deleteRoot(dev)
	case shaper.AddClass, shaper.ChangeClass:
		// Without NLM_F_EXCL: a class that is there is changed in place.
		return fault.Write("tc class", func() error { return d.write.Class().Replace(class(msg, s.Class)) })
	case shaper.AddQueue:
		return d.addQueue(msg, s.Queue)
	case shaper.ChangeQueue:
		return d.changeQueue(msg, s.Queue)
	case shaper.ReplaceQueue:
		if err := d.deleteQdisc(dev, uint32(s.Queue.Handle())<<16, root|uint32(s.Queue.Class)); err != nil {
			return err
		}
		return d.addQueue(msg, s.Queue)
	case shaper.AddClassifier:
		msg.Parent = root
		return d.addFilter(msg, d.spread[direction(s.Device)], nil)
	}
	return fmt.Errorf("unknown operation %d", s.Op)
}

// direction tells which limit a device has.
func direction(dev shaper.Device) shaper.Direction {
	if dev == shaper.IFB {
		return shaper.Egress
	}
	return shaper.Ingress
}

func class(msg gotc.Msg, c shaper.Class) *gotc.Object {
	const root = uint32(shaper.RootMajor) << 16
	msg.Handle, msg.Parent = root|uint32(c.Minor), root|uint32(c.Parent)
	if c.Parent == 0 {
		msg.Parent = root
	}
	htb := &gotc.Htb{Parms: &gotc.HtbOpt{
		Rate: rateSpec(c.Rate), Ceil: rateSpec(c.Ceil),
		Buffer: c.Burst, Cbuffer: c.Cburst, Quantum: c.Quantum, Prio: c.Prio,
	}}
	if c.Rate >= 1<<32 {
		htb.Rate64 = &c.Rate
	}
	if c.Ceil >= 1<<32 {
		htb.Ceil64 = &c.Ceil
	}
	return &gotc.Object{Msg: msg, Attribute: gotc.Attribute{Kind: "htb", Htb: htb}}
}

func rateSpec(bytes uint64) gotc.RateSpec {
	return gotc.RateSpec{Linklayer: linkEthernet, Rate: uint32(min(bytes, 1<<32-1))}
}

func (d *Driver) addQdisc(o *gotc.Object) error {
	return fault.Write("tc qdisc", func() error { return d.write.Qdisc().Add(o) })
}

func (d *Driver) addQueue(msg gotc.Msg, q shaper.Queue) error {
	if q.Kind == "tbf" {
		return fault.Write("tc queue", func() error { return d.links.QdiscAdd(tbf(msg.Ifindex, q)) })
	}
	return d.addQdisc(queue(msg, q))
}

func (d *Driver) changeQueue(msg gotc.Msg, q shaper.Queue) error {
	return fault.Write("tc queue", func() error {
		if q.Kind == "tbf" {
			return d.links.QdiscChange(tbf(msg.Ifindex, q))
		}
		return d.write.Qdisc().Change(queue(msg, q))
	})
}

func tbf(dev uint32, q shaper.Queue) *vish.Tbf {
	return &vish.Tbf{
		QdiscAttrs: vish.QdiscAttrs{LinkIndex: int(dev), Handle: uint32(q.Handle()) << 16,
			Parent: uint32(shaper.RootMajor)<<16 | uint32(q.Class)},
		Rate: q.Rate, Limit: q.Limit, Buffer: q.Buffer,
	}
}

func queue(msg gotc.Msg, q shaper.Queue) *gotc.Object {
	msg.Handle, msg.Parent = uint32(q.Handle())<<16, uint32(shaper.RootMajor)<<16|uint32(q.Class)
	attr := gotc.Attribute{Kind: q.Kind}
	switch q.Kind {
	case "bfifo":
		attr.Bfifo = &gotc.FifoOpt{Limit: q.Limit}
	case "fq_codel":
		attr.FqCodel = &gotc.FqCodel{Target: &q.Target, Interval: &q.Interval, Limit: &q.Limit,
			Quantum: &q.Quantum, MemoryLimit: &q.Memory}
	case "sfq":
		attr.Sfq = &gotc.Sfq{V0: gotc.SfqQopt{Quantum: q.Quantum, PerturbPeriod: 10, Limit: q.Limit}}
	}
	return &gotc.Object{Msg: msg, Attribute: attr}
}

// addRedirect leads everything that arrives from the container to its IFB. Before
// that, the IFB gets its alias, which the kernel does not take with the rest, and
// the veth the queue length from before its ingress qdisc: this step comes last, so
// that nothing that is in use is without.
func (d *Driver) addRedirect(veth int, vethName string) error {
	link, err := d.ifb(veth)
	if err != nil {
		return err
	}
	alias := "netguard: what " + vethName + " sends"
	if err := fault.Write("ifb alias", func() error { return d.links.LinkSetAlias(link, alias) }); err != nil {
		return fmt.Errorf("name %s: %w", link.Attrs().Name, err)
	}
	if link.Attrs().TxQLen == queueLenNone {
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
			IfIndex: uint32(link.Attrs().Index),
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
	for _, m := range filters {
		if m.kind != "bpf" || !ours(m.handle) || m.handle == p.handle {
			continue
		}
		old := make([]byte, sizeofTcMsg)
		netlinkOrder.PutUint32(old[4:], msg.Ifindex)
		netlinkOrder.PutUint32(old[8:], m.handle)
		netlinkOrder.PutUint32(old[12:], msg.Parent)
		netlinkOrder.PutUint32(old[16:], m.info)
		if err := unless(gone, d.remove(unix.RTM_DELTFILTER, old)); err != nil {
			return fmt.Errorf("delete an older version's filter: %w", err)
		}
	}
	return nil
}

func ptr(v uint32) *uint32 { return &v }

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

// wasNoQueue is the length of an HTB's queue for unclassified packets (which
// netguard's trees do not use) that records a device whose own queue length was
// zero: the kernel gives one to a device that gets a qdisc, and keeps it.
const wasNoQueue uint32 = 0x4e47

// deleteRoot deletes netguard's root qdisc, and gives the device back the queue
// length that it had. That comes first, while the qdisc still records it.
func (d *Driver) deleteRoot(dev int) error {
	all, err := d.qdiscs()
	if err != nil {
		return err
	}
	const root = uint32(shaper.RootMajor) << 16
	none := false
	for _, m := range all[dev] {
		if m.parent == rootParent && m.handle == root {
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
	return d.deleteQdisc(dev, root, rootParent)
}

// noQueue sets a device's queue length to zero.
func (d *Driver) noQueue(dev int) error {
	link, err := d.links.LinkByIndex(dev)
	if err == nil && link.Attrs().TxQLen != 0 {
		err = fault.Write("queue length", func() error { return d.links.LinkSetTxQLen(link, 0) })
	}
	if err == nil || gone(err) || errors.As(err, &vish.LinkNotFoundError{}) {
		return nil
	}
	return fmt.Errorf("set queue length: %w", err)
}

// addIngress adds the ingress qdisc. The device keeps the queue length that it had:
// nothing is queued here, and nothing here could record it.
func (d *Driver) addIngress(dev int) error {
	link, linkErr := d.links.LinkByIndex(dev)
	err := d.addQdisc(&gotc.Object{Msg: gotc.Msg{Family: unix.AF_UNSPEC, Ifindex: uint32(dev),
		Handle: ingressParent, Parent: ingressSlot}, Attribute: gotc.Attribute{Kind: "ingress"}})
	if err != nil || linkErr != nil || link.Attrs().TxQLen != 0 {
		return occupied(err)
	}
	return d.noQueue(dev)
}

// deleteQdisc deletes a qdisc by its handle alone, whatever its kind; one that
// is not there is fine. (go-tc insists on a kind's parameters here.)
func (d *Driver) deleteQdisc(dev int, handle, parent uint32) error {
	msg := make([]byte, sizeofTcMsg)
	netlinkOrder.PutUint32(msg[4:], uint32(dev))
	netlinkOrder.PutUint32(msg[8:], handle)
	netlinkOrder.PutUint32(msg[12:], parent)
	return unless(gone, d.remove(unix.RTM_DELQDISC, msg))
}
