package tc

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"netguard/shaper"
)

// ours tells whether a filter is netguard's, of whatever version.
func (m message) ours() bool { return m.kind == "bpf" && m.handle>>16 == shaper.RootMajor }

// ingressFilters lists the filters at a veth's ingress, in the order in which they see packets.
func (d *Driver) ingressFilters(veth int) (out []message, err error) {
	all, err := d.dump(unix.RTM_GETTFILTER, veth, ingressParent)
	if err != nil {
		return nil, fmt.Errorf("list ingress filters of device %d: %w", veth, err)
	}
	for _, m := range all {
		if m.options != nil { // without them it is the head of a chain: a priority without its filter
			out = append(out, m)
		}
	}
	return out, nil
}

// deleteFilters deletes those filters that are netguard's, except the one that has the handle
// kept. It goes on after an error.
func (d *Driver) deleteFilters(filters []message, kept uint32) error {
	var faults []error
	for _, m := range filters {
		if !m.ours() || m.handle == kept {
			continue
		}
		if err := unless(gone, d.remove(unix.RTM_DELTFILTER, words(0, uint32(m.ifindex), m.handle, m.parent, m.info))); err != nil {
			faults = append(faults, fmt.Errorf("delete filter: %w", err))
		}
	}
	return errors.Join(faults...)
}

// release takes away what leads the packets of a veth to its IFB, before the IFB goes. Without
// the IFB, the kernel would lose each packet of the container.
func (d *Driver) release(veth int) error {
	filters, err := d.ingressFilters(veth)
	if err != nil {
		return unless(gone, err)
	}
	var have shaper.Endpoint
	for _, m := range filters {
		have.IngressQdisc, have.Ours, have.Stranger = true, have.Ours || m.ours(), have.Stranger || !m.ours()
	}
	return d.Apply(veth, "", shaper.Diff(have, shaper.Wish{}))
}
