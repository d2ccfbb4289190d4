package desired

import (
	"fmt"

	"netguard/agent/config"
	"netguard/agent/docker"
)

// kind has what is no container treated as what it is. The routing mesh carries what is
// for all services of the host: no limit for one container is meant for it.
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

// underPolicies tells whether policies are about an endpoint. They are not about the
// routing mesh: what it takes in, it hands to containers on networks of its own.
func (d *Endpoint) underPolicies() bool {
	return d.Unmanaged == "" && d.Attachment.Kind != docker.KindSwarmIngress
}
