package desired

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/agent/endpoint"
	"netguard/agent/link"
	"netguard/netpolicy/guard"
)

// A bridge may hold ports that are no container's: the host's own uplink, a machine's
// tap. A port counts as the host's own if it is no veth, or a veth that is older than
// the bridge. Neither can be a container's, whatever a container does. A younger veth
// with a name that Docker gives to none, and of no container that Docker lists, is no
// container's either (endpoint.Foreign).
//
// A bridge that holds such a port when netguard first sees its network is not taken:
// to close unknown ports there would cut the host off. The operator's word
// (networks.uplinks) has it taken, with these ports let pass. A bridge that was taken
// stays so, also under the next agent: what its containers are held by is not given up
// for a port that somebody adds. What is no veth is let pass there as well; a veth that is
// added is an unknown port.

// taking tells which bridges are netguard's. It is part of the loop's goroutine.
type taking struct {
	// earlier are those that an earlier agent took, read at the first look.
	earlier map[int]bool
	read    bool
	taken   map[int]bool // by ifindex
}

// ownPorts are the ports of a bridge that are the host's own: all, and those that the
// operator did not name.
type ownPorts struct{ all, unnamed []string }

// HostPorts finds the host's own ports, by bridge.
func HostPorts(v link.View, named config.Globs) map[string]ownPorts {
	out := map[string]ownPorts{}
	add := func(bridge, port string) {
		o := out[bridge]
		if o.all = append(o.all, port); !named.Match(port) {
			o.unnamed = append(o.unnamed, port)
		}
		out[bridge] = o
	}
	for _, d := range v.Devices {
		add(d.MasterName, d.Name)
	}
	for _, p := range v.Ports {
		if p.Older() || named.Match(p.Name) {
			add(p.MasterName, p.Name)
		}
	}
	return out
}

// foreign gives the veths of a bridge that are no container's and count as the host's own
// while the bridge is not taken.
func (s Site) foreign(bridge string, v docker.View, sandboxes map[string]endpoint.Sandbox) []string {
	var out []string
	for _, p := range s.Ports {
		if p.MasterName == bridge && !s.isOwn(p) && endpoint.Foreign(p, v, sandboxes) {
			out = append(out, p.Name)
		}
	}
	return out
}

// left says why bridges are not taken, by name.
func (t *taking) left(v docker.View, op endpoint.Operator, here Site, sandboxes map[string]endpoint.Sandbox, before func() (guard.Earlier, error)) (map[string]string, error) {
	if !t.read {
		was, err := before()
		if err != nil {
			return nil, err
		}
		t.earlier, t.read = was.Bridges, true
	}
	left, still := map[string]string{}, map[int]bool{}
	for _, n := range v.Networks {
		index, ok := here.Bridges[n.Bridge]
		if !ok || !op.Manages(n) {
			continue
		}
		if t.taken[index] || t.earlier[index] {
			still[index] = true
			continue
		}
		own := slices.Concat(here.Own[n.Bridge].unnamed, here.foreign(n.Bridge, v, sandboxes))
		if len(own) == 0 {
			still[index] = true
			continue
		}
		left[n.Bridge] = fmt.Sprintf("its bridge %s holds %s, which is no container's port: netguard leaves the network alone, so that nobody is cut off; to have its containers guarded, name the port in the configuration (networks.uplinks: [%s]), to be told no more, exclude the network (networks.exclude: [%s])",
			n.Bridge, strings.Join(own, ", "), strings.Join(own, ", "), n.Name)
	}
	t.taken = still
	return left, nil
}

// isOwn tells whether a veth on a bridge is the host's own.
func (s Site) isOwn(p *link.Port) bool { return slices.Contains(s.Own[p.MasterName].all, p.Name) }

// Others are the veths on bridges that are not the host's own.
func (s Site) Others() []*link.Port {
	return slices.DeleteFunc(slices.Clone(s.Ports), s.isOwn)
}

// trusted gives the ports of managed bridges that are no veths: nobody guards them.
func (s Site) trusted() []*guard.Port {
	var out []*guard.Port
	for _, d := range s.Devices {
		if bridge, ok := s.Managed[d.MasterName]; ok {
			out = append(out, &guard.Port{Index: d.Index, Name: d.Name, Bridge: bridge.Index, BridgeName: d.MasterName, Admitted: true})
		}
	}
	return out
}

// Patience is after what time a port that nobody knows is worth a word: one of a
// container that starts is unknown for a moment.
const Patience = 5 * time.Second

// Findings name what of the bridges' ports an operator should know.
func (s Site) Findings(left map[string]string, unknown []*link.Port) []string {
	var out []string
	for _, why := range left {
		out = append(out, "a network is not guarded: "+why)
	}
	for bridge, o := range s.Own {
		if _, ok := s.Managed[bridge]; ok && len(o.unnamed) > 0 {
			out = append(out, fmt.Sprintf("bridge %s holds %s, which is no container's port: what it sends passes; if that is meant, name it in the configuration (networks.uplinks: [%s]), else take it off the bridge", bridge, strings.Join(o.unnamed, ", "), strings.Join(o.unnamed, ", ")))
		}
	}
	slices.Sort(out)
	if n := len(unknown); n > 0 {
		var names []string
		for _, u := range unknown[:min(n, 5)] {
			names = append(names, u.Name+" on "+u.MasterName)
		}
		what := "they can neither send nor receive"
		switch {
		case s.Op.AdmissionOpen:
			what = "they pass, since admission is open"
		case s.watches:
			what = "what they send and receive passes and is counted; an agent that enforces refuses it"
		}
		out = append(out, fmt.Sprintf("%d ports of docker's bridges are no container's that docker lists (%s): %s; if one is the host's own, name it in the configuration (networks.uplinks), else find out who made it (ip -d link show)", n, strings.Join(names, ", "), what))
	}
	return out
}
