package endpoint

import (
	"slices"

	"netguard/agent/docker"
	"netguard/agent/link"
)

// Foreign tells whether a veth on the bridge of a Docker network is surely no container's. Such
// a port has a name that Docker never gives. No container on the bridge has its MAC or its
// namespace. An example is one end of a veth pair that leads to another bridge, to a virtual
// machine's namespace or to the host itself. Its age does not matter.
func Foreign(p *link.Port, v docker.View, sandboxes map[string]Sandbox) bool {
	if p.Dockers() {
		return false
	}
	for id, n := range v.Networks {
		if n.Bridge != p.MasterName {
			continue
		}
		for _, a := range v.Networks[id].Endpoints {
			if a.MAC != nil && slices.Equal(a.MAC, p.PeerMAC) {
				return false
			}
			if ns, asked := sandboxes[a.ID]; asked && p.NSID >= 0 && ns.NSID == p.NSID {
				return false
			}
		}
	}
	return true
}
