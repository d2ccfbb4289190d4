package link

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// Device is a device of the host.
type Device struct {
	Index      int
	Name, Kind string // the kernel's word for the kind
	Master     int    // ifindex of the bridge, 0 of what is no port
	MasterName string
}

// All gives every device of the calling thread's network namespace.
func All() ([]Device, error) {
	list, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range list {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	out := make([]Device, len(list))
	for i, l := range list {
		a := l.Attrs()
		out[i] = Device{a.Index, a.Name, l.Type(), a.MasterIndex, names[a.MasterIndex]}
	}
	return out, nil
}

// Devices returns the ports of bridges that are no veths, by name: physical devices, bonds,
// VLANs, taps. Docker makes none of these, and no container can. The caller owns the result.
func (t *Table) Devices() []Device {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Device
	for _, d := range t.devices {
		if name, ok := t.bridges[d.Master]; ok {
			d.MasterName = name
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b Device) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// storeDevice notes a link that is no veth, or that it is no port any more. The caller
// holds t.mu.
func (t *Table) storeDevice(l netlink.Link) {
	a := l.Attrs()
	if a.MasterIndex == 0 {
		delete(t.devices, a.Index)
		return
	}
	t.devices[a.Index] = Device{Index: a.Index, Name: a.Name, Kind: l.Type(), Master: a.MasterIndex}
}

// Older tells whether a port is older than its bridge. The kernel numbers devices in the order
// in which they are made. Docker makes a container's veth when the bridge is there. So an older
// port is the host's own.
func (p Port) Older() bool { return p.Index < p.Master }

// dockers is how all engines from 20.10 to 29 name the host's end of a container's veth.
var dockers = regexp.MustCompile("^veth[0-9a-f]{7}$")

// Dockers tells whether a port has a name as Docker gives it. A container cannot rename its
// port. So a port with another name was made or renamed by somebody with rights on the host.
func (p Port) Dockers() bool { return dockers.MatchString(p.Name) }
