package desired

import (
	"fmt"

	"netguard/agent/config"
	"netguard/agent/docker"
)

// kind handles endpoints that are no containers, and tells whether limits apply. Swarm's
// routing mesh carries the traffic of all services of the host, so no limit applies to it.
func (d *Endpoint) kind(cfg *config.Config) (limits bool) {
	switch d.Attachment.Kind {
	case docker.KindSwarmIngress:
		return false
	case docker.KindUnknown:
		if !cfg.AdmitUnknown {
			d.Wrong = append(d.Wrong, fmt.Sprintf("docker lists %.40q on the network, which is neither a container nor a build nor swarm's ingress, so that nobody knows what it may do: find out what it is (docker network inspect %.40q); if it shall pass, admit_unknown: true in the configuration", d.Container.Name, d.Network.Name))
		}
	}
	return true
}

// underPolicies tells whether policies can select an endpoint. They cannot select the routing
// mesh: it hands its traffic to containers on networks of its own.
func (d *Endpoint) underPolicies() bool {
	return d.Unmanaged == "" && d.Attachment.Kind != docker.KindSwarmIngress
}
