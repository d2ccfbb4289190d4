package tc

import (
	"errors"
	"fmt"

	"netguard/internal/fault"
	"netguard/shaper"
)

// fewPorts is the greatest number of ports that are read one by one. On a host with some hundred
// ports, a list of the qdiscs of all devices takes as long as a few dozen ports.
const fewPorts = 64

// Port is what the kernel holds for one port.
type Port struct {
	shaper.Endpoint
	IFBIndex int   // the ifindex of the IFB, 0 where there is none
	Err      error // why it cannot be read
}

// Read reads what the kernel holds for ports.
func (d *Driver) Read(veths []int) (map[int]Port, error) {
	out := make(map[int]Port, len(veths))
	var all *Snapshot
	if len(veths) > fewPorts {
		var err error
		if all, err = d.Snapshot(); err != nil {
			return nil, err
		}
	}
	for _, veth := range veths {
		var p Port
		s := all
		if s == nil {
			s, p.Err = d.Port(veth)
		}
		if p.Err == nil {
			p.IFBIndex = s.IFB(veth)
			p.Endpoint, p.Err = s.Endpoint(veth)
		}
		out[veth] = p
	}
	return out, nil
}

// Drop deletes the IFBs of veths, all of them at once. An IFB stays if something still leads to
// it that cannot be taken away.
func (d *Driver) Drop(veths []int) error {
	n := 0
	var faults []error
	for _, veth := range veths {
		l, err := d.link(0, IFBName(veth))
		if _, ok := l.serves(); err == nil && ok {
			if err := d.release(veth); err != nil {
				faults = append(faults, fmt.Errorf("lead nothing to %s any more: %w", l.name, err))
				continue
			}
			n++
			err = fault.Write("ifb group", func() error { return d.links.LinkSetGroup(l.handle(), doomed) })
		}
		if err != nil && !gone(err) {
			return fmt.Errorf("mark %s for deletion: %w", IFBName(veth), err)
		}
	}
	if n > 0 {
		if err := d.deleteGroup(); err != nil {
			faults = append(faults, fmt.Errorf("delete IFBs: %w", err))
		}
	}
	return errors.Join(faults...)
}
