package doctor

import (
	"fmt"
	"strings"
)

// aboutUplinks warns of Docker networks whose bridge has a port of the host's own. To close
// unknown ports there would cut the host off, so netguard leaves such a network alone.
func aboutUplinks(c *checks, f Facts) {
	for _, n := range f.Docker.Networks {
		if own := f.Links.Own[n.Bridge]; n.Managed && len(own) > 0 {
			c.warn("docker.uplinks", fmt.Sprintf("networks.uplinks: [%s] in the configuration, to have its containers guarded and this port let pass; or networks.exclude: [%s]", strings.Join(own, ", "), n.Name),
				"network %s is on bridge %s, which holds %s, no container's port: netguard leaves the network alone, or lets the port pass where the bridge was guarded before", n.Name, n.Bridge, some(own))
		}
	}
}
