package desired

import (
	"fmt"

	"netguard/agent/config"
	"netguard/agent/docker"
	"netguard/netpolicy"
)

// swarmPolicy closes the ports of Swarm's own traffic. Overlays without encryption take VXLAN
// from anybody who sends it to a node. Managers and the nodes' gossip listen to anybody too.
const swarmPolicy = `
name: swarm-ports
description: on a node of a Swarm, containers send nothing to Swarm's own ports
select: {}
deny:
  - egress:
      to: [{entity: host}, {entity: external}]
      ports: [udp/%d, tcp/2377, tcp/7946, udp/7946]
`

// swarmPort gives the UDP port of Swarm's VXLAN if containers must not reach it, otherwise 0.
func swarmPort(v docker.View, cfg *config.Config) uint16 {
	switch {
	case cfg.SwarmPortsOpen || !v.InSwarm():
		return 0
	case v.DataPort == 0:
		return 4789 // Swarm's default: the real port was not read yet
	}
	return v.DataPort
}

// builtIn gives netguard's own policies for a host in a Swarm; none for port 0.
func builtIn(port uint16) []netpolicy.Policy {
	if port == 0 {
		return nil
	}
	c := netpolicy.Load([]netpolicy.Source{{Name: "built in", Data: fmt.Appendf(nil, swarmPolicy, port)}})
	return c.Policies()
}
