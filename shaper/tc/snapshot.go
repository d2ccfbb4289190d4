package tc

import (
	"fmt"

	"golang.org/x/sys/unix"

	"netguard/shaper"
)

// Snapshot is what the kernel held at one time: all qdiscs, or those of one port.
type Snapshot struct {
	d       *Driver
	qdiscs  qdiscs
	classes map[int][]message // by ifindex; of other devices they are read when needed
	ifbs    map[int]link      // by the ifindex of the veth they serve
	traffic map[int]traffic   // of all links, by ifindex; nil until it is needed
}

// Snapshot lists the qdiscs and the IFBs of the namespace.
func (d *Driver) Snapshot() (*Snapshot, error) {
	s := &Snapshot{d: d, ifbs: map[int]link{}}
	var err error
	if s.qdiscs, err = d.qdiscs(); err != nil {
		return nil, err
	}
	err = d.eachLink("ifb", func(l link) {
		if veth, ok := l.serves(); ok {
			s.ifbs[veth] = l
		}
	})
	return s, err
}

// Port gives a Snapshot that has only one port. The kernel sends its answers to this Driver and
// also to all listeners of the host.
func (d *Driver) Port(veth int) (*Snapshot, error) {
	s := &Snapshot{d: d, qdiscs: qdiscs{}, classes: map[int][]message{}, ifbs: map[int]link{}}
	devices := []int{veth}
	l, err := d.link(0, IFBName(veth))
	if err != nil && !gone(err) {
		return nil, fmt.Errorf("find %s: %w", IFBName(veth), err)
	}
	if _, ok := l.serves(); ok {
		s.ifbs[veth] = l
		devices = append(devices, l.index)
	}
	for _, dev := range devices {
		on, err := d.qdiscsAt(dev, rootParent, ingressSlot)
		if err != nil {
			return nil, fmt.Errorf("read qdiscs of device %d: %w", dev, err)
		}
		if s.qdiscs[dev] = on; !own(on) {
			continue
		}
		classes, err := d.dump(unix.RTM_GETTCLASS, dev, 0)
		if err != nil {
			return nil, fmt.Errorf("list classes of device %d: %w", dev, err)
		}
		s.classes[dev] = classes
		var parents []uint32
		for _, c := range classes {
			if c.handle>>16 == shaper.RootMajor {
				parents = append(parents, c.handle)
			}
		}
		leaves, err := d.qdiscsAt(dev, parents...)
		if err != nil {
			return nil, fmt.Errorf("read queues of device %d: %w", dev, err)
		}
		s.qdiscs[dev] = append(on, leaves...)
	}
	return s, nil
}

// own tells whether netguard's tree is among the qdiscs of a device.
func own(on []message) bool {
	for _, m := range on {
		if m.parent == rootParent && m.handle == rootHandle {
			return true
		}
	}
	return false
}

// Touched tells whether anything of netguard's is on a veth.
func (s *Snapshot) Touched(veth int) bool {
	if _, ok := s.ifbs[veth]; ok {
		return true
	}
	return own(s.qdiscs[veth])
}

// IFB gives the ifindex of the device that a veth's packets are led through, 0
// where there is none.
func (s *Snapshot) IFB(veth int) int {
	return s.ifbs[veth].index
}

// Endpoint reads what the kernel holds for the endpoint behind a host veth.
func (s *Snapshot) Endpoint(veth int) (shaper.Endpoint, error) {
	var e shaper.Endpoint
	var err error
	if e.Veth, err = s.state(veth, shaper.Ingress); err != nil {
		return e, err
	}
	ifb := s.IFB(veth)
	if ifb != 0 {
		state, err := s.state(ifb, shaper.Egress)
		if err != nil {
			return e, err
		}
		e.IFB = &state
	}
	for _, m := range s.qdiscs[veth] {
		if m.kind == "clsact" {
			e.IngressQdisc, e.Stranger = true, true
		}
		if m.kind == "ingress" {
			e.IngressQdisc = true
			if err := s.ingress(veth, ifb, &e); err != nil {
				return e, err
			}
		}
	}
	return e, nil
}

// ingress reads whose the filters at a veth's ingress are.
func (s *Snapshot) ingress(veth, ifb int, e *shaper.Endpoint) error {
	filters, err := s.d.ingressFilters(veth)
	if err != nil {
		return err
	}
	for _, m := range filters {
		target, err := redirectOf(m)
		switch {
		case err != nil:
			return err
		case !m.ours():
			e.Stranger = true
			e.Before = e.Before || !e.Ours
		default:
			e.Ours = true
			e.Redirect = e.Redirect || m.handle == s.d.upload.handle && target == ifb && ifb != 0
		}
	}
	e.Before = e.Before && e.Ours
	// An empty ingress qdisc without an IFB was put there by somebody else:
	// netguard makes its IFB first.
	if e.IFB == nil && !e.Ours {
		e.Stranger = true
	}
	return nil
}

// Counters gives what passed an endpoint in both directions. For a direction with a limit, it
// counts frames on the wire, since the tree was made. Otherwise it gives what the veth counted.
func (s *Snapshot) Counters(veth int) ([2]Counters, error) {
	var out [2]Counters
	for dir, dev := range [2]int{shaper.Ingress: veth, shaper.Egress: s.IFB(veth)} {
		c, ours, err := countersOfTree(s.qdiscs[dev])
		switch {
		case err != nil:
			return out, err
		case ours:
			out[dir] = c
			continue
		case s.traffic == nil && s.d != nil:
			if s.traffic, err = s.d.traffic(); err != nil {
				return out, err
			}
		}
		out[dir] = s.traffic[veth].of(shaper.Direction(dir))
	}
	return out, nil
}

// Holds tells whether a port is as wanted, as far as the list of qdiscs shows it. Classes
// and filters are not in that list, but the queues of classes are.
func (s *Snapshot) Holds(veth int, want shaper.Wish) bool {
	var e shaper.Endpoint
	var err error
	if e.Veth, err = s.outline(veth, want.Ingress); err != nil {
		return false
	}
	if ifb := s.IFB(veth); ifb != 0 {
		state, err := s.outline(ifb, want.Egress)
		if err != nil {
			return false
		}
		e.IFB = &state
	}
	for _, m := range s.qdiscs[veth] {
		e.Stranger = e.Stranger || m.kind == "clsact" || m.kind == "ingress" && e.IFB == nil
		e.IngressQdisc = e.IngressQdisc || m.kind == "clsact" || m.kind == "ingress"
	}
	e.Ours = want.Egress != nil && !e.Stranger
	e.Redirect = e.Ours
	in, out := shaper.Conflicts(e, want)
	return !in && !out && len(shaper.Diff(e, want)) == 0
}

func (s *Snapshot) outline(ifindex int, want *shaper.Tree) (shaper.State, error) {
	e, err := s.tree(ifindex)
	if want != nil && e.Own() {
		e.Classes, e.Classify = want.Classes, want.Classify
	}
	return e, err
}

// tree reads the root qdisc of a device and the queues below it.
func (s *Snapshot) tree(ifindex int) (shaper.State, error) {
	var e shaper.State
	for _, m := range s.qdiscs[ifindex] {
		if m.parent == rootParent {
			e.Root = shaper.Root{Kind: m.kind, Major: uint16(m.handle >> 16)}
			if m.kind == "htb" {
				err := attributes(m.options, func(typ uint16, b []byte) error {
					if typ == htbInit {
						e.Root.Default = uint16(u32(b, 8))
					}
					return nil
				})
				if err != nil {
					return e, err
				}
			}
		}
		if m.parent>>16 == shaper.RootMajor {
			q, err := queueOf(m)
			if err != nil {
				return e, err
			}
			c, err := countersOf(m)
			if err != nil {
				return e, err
			}
			q.Backlog = uint32(c.Backlog)
			e.Queues = append(e.Queues, q)
		}
	}
	if !e.Own() {
		e.Queues = nil
	}
	return e, nil
}

// state reads netguard's tree at the root of a device. dir is the direction that the device
// limits.
func (s *Snapshot) state(ifindex int, dir shaper.Direction) (shaper.State, error) {
	e, err := s.tree(ifindex)
	if err != nil || !e.Own() {
		return e, err
	}
	classes, ok := s.classes[ifindex]
	if !ok {
		classes, err = s.d.dump(unix.RTM_GETTCLASS, ifindex, 0)
	}
	if err != nil {
		return e, fmt.Errorf("list classes of device %d: %w", ifindex, err)
	}
	for _, m := range classes {
		if m.kind != "htb" || m.handle>>16 != shaper.RootMajor {
			continue
		}
		c, err := classOf(m)
		if err != nil {
			return e, err
		}
		e.Classes = append(e.Classes, c)
	}
	filters, err := s.d.dump(unix.RTM_GETTFILTER, ifindex, shaper.RootMajor<<16)
	if err != nil {
		return e, fmt.Errorf("list filters of device %d: %w", ifindex, err)
	}
	for _, m := range filters {
		e.Classify = e.Classify || m.kind == "bpf" && m.handle == s.d.spread[dir].handle
	}
	return e, nil
}
