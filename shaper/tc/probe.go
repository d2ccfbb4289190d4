package tc

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"netguard/shaper"
)

// Features are what this kernel can do for the shaper.
type Features struct {
	Leaf shaper.Leaf
	// Missing names the better queues that the kernel has not.
	Missing []string
}

// Probe finds the best leaf that the kernel has. It builds a tree on a device made for that, and
// deletes the device before it returns. Only trying tells: qdiscs are modules, and the kernel
// loads them when they are asked for.
func (d *Driver) Probe() (Features, error) {
	const veth = 0 // ngifb0 serves no veth: ifindexes start with one
	if err := d.deleteIFB(veth); err != nil {
		return Features{}, fmt.Errorf("probe: %w", err)
	}
	if err := d.addIFB(veth); err != nil {
		if errors.Is(err, unix.EPERM) {
			return Features{}, fmt.Errorf("probe: %w: netguard needs CAP_NET_ADMIN, run it as root", err)
		}
		return Features{}, fmt.Errorf("probe: %w: is the kernel module ifb there? (modprobe ifb)", err)
	}
	defer func() { _ = d.deleteIFB(veth) }()
	var f Features
	var why []string
	for _, leaf := range []shaper.Leaf{shaper.FQCodel, shaper.SFQ, shaper.Hashed} {
		err := d.try(veth, leaf)
		if err == nil {
			f.Leaf = leaf
			return f, nil
		}
		f.Missing = append(f.Missing, string(leaf))
		why = append(why, fmt.Sprintf("%s: %v", leaf, err))
	}
	return f, fmt.Errorf("probe: the kernel has no queue to shape with (%s): load sch_htb and one of sch_fq_codel, sch_sfq, or sch_tbf with cls_bpf",
		strings.Join(why, "; "))
}

// try builds a tree and the redirect that leads to it.
func (d *Driver) try(veth int, leaf shaper.Leaf) error {
	tree, err := shaper.Build(shaper.Limit{Rate: shaper.Mbit}, shaper.Egress, 1500, leaf)
	if err != nil {
		return err
	}
	steps := shaper.Diff(shaper.Endpoint{IFB: &shaper.State{}, IngressQdisc: true, Redirect: true}, shaper.Wish{Egress: &tree})
	err = d.Apply(veth, "", steps)
	l, lerr := d.ifb(veth)
	if lerr != nil {
		return lerr
	}
	return errors.Join(err, d.deleteQdisc(l.index, shaper.RootMajor<<16, rootParent))
}
