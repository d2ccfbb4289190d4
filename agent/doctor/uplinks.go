package doctor

import (
	"fmt"
	"strings"
)

// aboutUplinks is about Docker networks on bridges that hold the host's own ports: to
// close unknown ports there would cut the host off, so that netguard leaves them alone.
func aboutUplinks(c *checks, f Facts) {
	for _, n := range f.Docker.Networks {
		if own := f.Links.Own[n.Bridge]; n.Managed && len(own) > 0 {
			c.warn("docker.uplinks", fmt.Sprintf("networks.uplinks: [%s] in the configuration, to have its containers guarded and this port let pass; or networks.exclude: [%s]", strings.Join(own, ", "), n.Name),
				"network %s is on bridge %s, which holds %s, no container's port: netguard leaves the network alone, or lets the port pass where the bridge was guarded before", n.Name, n.Bridge, some(own))
		}
	}
}
