package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	vish "github.com/vishvananda/netlink"

	"netguard/agent/config"
	"netguard/shaper"
	"netguard/shaper/tc"
)

// readLinks lists the devices of this network namespace, and the qdiscs of others
// on the ports of managed bridges.
func readLinks(networks []Network, named config.Globs) Links {
	out := Links{Own: map[string][]string{}}
	list, err := vish.LinkList()
	if err != nil && !errors.Is(err, vish.ErrDumpInterrupted) {
		out.Err = fmt.Sprintf("devices cannot be listed: %v", err)
		return out
	}
	names := map[int]string{}
	for _, l := range list {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	managed := map[string]bool{}
	for _, n := range networks {
		managed[n.Bridge] = n.Managed
	}
	ports := map[int]Link{}
	for _, l := range list {
		link := Link{Name: l.Attrs().Name, Kind: l.Type(), Master: names[l.Attrs().MasterIndex]}
		out.Links = append(out.Links, link)
		if managed[link.Master] {
			ports[l.Attrs().Index] = link
			// As the agent has it: a container's port is a veth that is younger
			// than its bridge.
			if (link.Kind != "veth" || l.Attrs().Index < l.Attrs().MasterIndex) && !named.Match(link.Name) {
				out.Own[link.Master] = append(out.Own[link.Master], link.Name)
			}
		}
	}
	if len(ports) > 0 {
		if out.Foreign, err = foreign(ports); err != nil {
			out.ForeignErr = fmt.Sprintf("qdiscs cannot be listed: %v", err)
		}
	}
	return out
}

// foreign finds the qdiscs of others where netguard would put its own.
func foreign(ports map[int]Link) ([]Foreign, error) {
	d, err := tc.Open()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	s, err := d.Snapshot()
	if err != nil {
		return nil, err
	}
	both := shaper.Wish{Ingress: &shaper.Tree{}, Egress: &shaper.Tree{}}
	var out []Foreign
	for index, port := range ports {
		have, err := s.Endpoint(index)
		if err != nil {
			continue // it went meanwhile
		}
		in, eg := shaper.Conflicts(have, both)
		if in {
			out = append(out, Foreign{port.Name, port.Master, have.Veth.Root.Kind, true})
		}
		if eg {
			out = append(out, Foreign{port.Name, port.Master, "ingress or clsact", false})
		}
	}
	slices.SortFunc(out, func(a, b Foreign) int { return strings.Compare(a.Veth, b.Veth) })
	return out, nil
}
