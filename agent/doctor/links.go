package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"netguard/agent/config"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/shaper"
	"netguard/shaper/tc"
)

// readLinks lists the devices of this network namespace, and the foreign qdiscs on the ports of
// managed bridges.
func readLinks(ctx context.Context, engine Docker, named config.Globs) Links {
	out := Links{Own: map[string][]string{}}
	devices, err := link.All()
	if err != nil {
		out.Err = fmt.Sprintf("devices cannot be listed: %v", err)
		return out
	}
	out.Links = devices
	managed := map[string]bool{}
	for _, n := range engine.Networks {
		managed[n.Bridge] = n.Managed
	}
	foreigners := map[int]bool{} // veths that are no container's
	// If this list fails, the veths that are older than their bridges are found below.
	veths, _ := link.List(ctx)
	for _, p := range veths {
		foreigners[p.Index] = endpoint.Foreign(p, engine.view, nil)
	}
	ports := map[int]link.Device{}
	for _, d := range devices {
		if !managed[d.MasterName] {
			continue
		}
		ports[d.Index] = d
		// As the agent has it: a container's port is a veth that is younger than its bridge and
		// is not foreign (see endpoint.Foreign).
		if (d.Kind != "veth" || d.Index < d.Master || foreigners[d.Index]) && !named.Match(d.Name) {
			out.Own[d.MasterName] = append(out.Own[d.MasterName], d.Name)
		}
	}
	if len(ports) > 0 {
		if out.Foreign, err = foreign(ports); err != nil {
			out.ForeignErr = fmt.Sprintf("qdiscs cannot be listed: %v", err)
		}
	}
	return out
}

// foreign finds foreign qdiscs at the places where netguard would put its own.
func foreign(ports map[int]link.Device) ([]Foreign, error) {
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
			out = append(out, Foreign{port.Name, port.MasterName, have.Veth.Root.Kind, true})
		}
		if eg {
			out = append(out, Foreign{port.Name, port.MasterName, "ingress or clsact", false})
		}
	}
	slices.SortFunc(out, func(a, b Foreign) int { return strings.Compare(a.Veth, b.Veth) })
	return out, nil
}
