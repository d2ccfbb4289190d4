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

// A bridge may hold ports that are no container's: the host's own uplink, or the tap of a
// virtual machine. A port counts as the host's own if it is no veth, or if it is a veth that is
// older than the bridge. No container can have such a port, whatever it does. A younger veth is
// no container's either if Docker gives no such name, and if it fits no container that Docker
// lists (endpoint.Foreign).
//
// If a bridge holds such a port when netguard first sees its network, netguard does not take
// the bridge: to close unknown ports there would cut the host off. If the operator names these
// ports (networks.uplinks), netguard takes the bridge and lets them pass.
//
// A bridge that was taken stays taken, also under the next agent: a port that somebody adds must
// not end the protection of its containers. An added port that is no veth passes. An added veth
// is an unknown port.

// taking tells which bridges netguard manages. It is part of the loop's goroutine.
type taking struct {
	// earlier are the bridges that an earlier agent took, by ifindex. They are read once.
	earlier map[int]bool
	read    bool
	taken   map[int]bool // by ifindex
}

// ownPorts are the host's own ports of a bridge: all of them, and those that the operator did
// not name.
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

// foreign gives the young veths of a bridge that are no container's. They count as the host's
// own only while the bridge is not taken.
func (s Site) foreign(bridge string, v docker.View, sandboxes map[string]endpoint.Sandbox) []string {
	var out []string
	for _, p := range s.Ports {
		if p.MasterName == bridge && !s.isOwn(p) && endpoint.Foreign(p, v, sandboxes) {
			out = append(out, p.Name)
		}
	}
	return out
}

// left says, by bridge name, why netguard does not take a bridge.
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

// trusted gives the ports of managed bridges that are no veths. They are not guarded.
func (s Site) trusted() []*guard.Port {
	var out []*guard.Port
	for _, d := range s.Devices {
		if bridge, ok := s.Managed[d.MasterName]; ok {
			out = append(out, &guard.Port{Index: d.Index, Name: d.Name, Bridge: bridge.Index, BridgeName: d.MasterName, Admitted: true})
		}
	}
	return out
}

// Patience is how long a port may be unknown before netguard reports it: the port of a container
// that starts is unknown for a moment.
const Patience = 5 * time.Second

// Findings are what an operator should know about ports of bridges.
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
