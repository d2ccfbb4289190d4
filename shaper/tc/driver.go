// Package tc writes shaper's trees to the kernel and reads them back. It sends the
// messages of a tree together, with mdlayher/netlink; filters and ingress qdiscs it
// writes with go-tc, which sends one message at a time, and IFBs with
// vishvananda/netlink. It touches only what carries netguard's own handles, names and
// link group. It is not safe for concurrent use: one goroutine owns a Driver.
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
	"netguard/shaper"
)

// rootParent is the parent of a root qdisc (TC_H_ROOT).
const rootParent = 0xffffffff

var netlinkOrder = binary.NativeEndian

// Driver holds the netlink sockets of the network namespace it was opened in.
type Driver struct {
	read  *netlink.Conn
	write *gotc.Tc
	links *vish.Handle

	// The filters that spread packets over the classes, by the direction of the
	// limit, and the one that leads what a container sends to its IFB.
	spread [2]program
	upload program
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
	if d.read, err = netlink.Dial(unix.NETLINK_ROUTE, nil); err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	// With the kernel's own words in errors ("Specified qdisc kind is unknown").
	_ = d.read.SetOption(netlink.ExtendedAcknowledge, true)
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
	if d.read != nil {
		_ = d.read.Close()
	}
	if d.write != nil {
		_ = d.write.Close()
	}
	if d.links != nil {
		d.links.Close()
	}
}

// Snapshot is what the kernel held of every qdisc at one time.
type Snapshot struct {
	d      *Driver
	qdiscs qdiscs
	links  map[int]vish.Link // by ifindex
	ifbs   map[int]vish.Link // by the ifindex of the veth they serve
}

// Snapshot lists the qdiscs and the links of the namespace.
func (d *Driver) Snapshot() (*Snapshot, error) {
	q, err := d.qdiscs()
	if err != nil {
		return nil, err
	}
	list, err := d.linkList()
	if err != nil {
		return nil, err
	}
	s := &Snapshot{d: d, qdiscs: q, links: make(map[int]vish.Link, len(list)), ifbs: ifbsOf(list)}
	for _, l := range list {
		s.links[l.Attrs().Index] = l
	}
	return s, nil
}

// Touched tells whether anything of netguard's is on a veth.
func (s *Snapshot) Touched(veth int) bool {
	if _, ok := s.ifbs[veth]; ok {
		return true
	}
	for _, m := range s.qdiscs[veth] {
		if m.parent == rootParent && m.handle == shaper.RootMajor<<16 {
			return true
		}
	}
	return false
}

// IFB gives the ifindex of the device that a veth's packets are led through, 0
// where there is none.
func (s *Snapshot) IFB(veth int) int {
	if l, ok := s.ifbs[veth]; ok {
		return l.Attrs().Index
	}
	return 0
}

// Endpoint reads what the kernel holds for the endpoint behind a host veth.
func (s *Snapshot) Endpoint(veth int) (shaper.Endpoint, error) {
	var e shaper.Endpoint
	var err error
	if e.Veth, err = s.d.state(veth, s.qdiscs[veth], s.d.spread[shaper.Ingress]); err != nil {
		return e, err
	}
	ifb := 0
	if link, ok := s.ifbs[veth]; ok {
		ifb = link.Attrs().Index
		state, err := s.d.state(ifb, s.qdiscs[ifb], s.d.spread[shaper.Egress])
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
	filters, err := s.d.dump(unix.RTM_GETTFILTER, veth, ingressParent)
	if err != nil {
		return fmt.Errorf("list ingress filters of device %d: %w", veth, err)
	}
	for _, m := range filters {
		target, err := redirectOf(m)
		switch {
		case err != nil:
			return err
		case m.options == nil:
			// The head of a chain: a filter's priority without the filter.
		case m.kind != "bpf" || !ours(m.handle):
			e.Stranger = true
		default:
			e.Ours = true
			e.Redirect = e.Redirect || m.handle == s.d.upload.handle && target == ifb && ifb != 0
		}
	}
	// An empty ingress qdisc without an IFB was put there by somebody else:
	// netguard makes its IFB first.
	if e.IFB == nil && !e.Ours {
		e.Stranger = true
	}
	return nil
}

// Counters gives what passed an endpoint in both directions, from the same
// moment as the Snapshot: where it is shaped, since it is, and by the frame on
// the wire; elsewhere what the veth has counted.
func (s *Snapshot) Counters(veth int) ([2]Counters, error) {
	var out [2]Counters
	if l, ok := s.links[veth]; ok && l.Attrs().Statistics != nil {
		st := l.Attrs().Statistics
		out[shaper.Ingress] = Counters{Bytes: st.TxBytes, Packets: st.TxPackets, Drops: st.TxDropped}
		out[shaper.Egress] = Counters{Bytes: st.RxBytes, Packets: st.RxPackets, Drops: st.RxDropped}
	}
	devices := [2]int{veth, 0}
	if link, ok := s.ifbs[veth]; ok {
		devices[shaper.Egress] = link.Attrs().Index
	}
	for dir, dev := range devices {
		c, ours, err := countersOfTree(s.qdiscs[dev])
		if err != nil {
			return out, err
		}
		if ours {
			out[dir] = c
		}
	}
	return out, nil
}

// gone tells that an object, or its device, is not there any more.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}

// remove sends one message that deletes something, for which the libraries have
// no word, and waits for the kernel's answer.
func (d *Driver) remove(typ uint16, data []byte) error {
	return fault.Write("tc delete", func() error {
		_, err := d.read.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | netlink.Acknowledge},
			Data:   data,
		})
		return err
	})
}
