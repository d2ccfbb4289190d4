package desired

import (
	"fmt"
	"slices"

	"netguard/agent/config"
	"netguard/netpolicy/guard"
)

// serves reads whether the container may answer DHCP clients of its network. Both its creator
// and the operator must permit it: a DHCP server can make itself the router of its clients.
func (d *Endpoint) serves(cfg *config.Config, on []string) {
	note := func(format string, args ...any) { d.notes = append(slices.Clip(d.notes), fmt.Sprintf(format, args...)) }
	for _, c := range d.containers() {
		label, ok := c.Labels[guard.LabelDHCP]
		if !ok {
			continue
		}
		err := guard.ParseDHCP(label)
		switch {
		case err != nil:
			d.Wrong = append(d.Wrong, err.Error())
		case !c.Counts(guard.LabelDHCP):
			note("label %s of %s does not count: %s; %s", guard.LabelDHCP, c.Name, imageWhy(c), imageRemedy(c))
		case cfg.DHCPServers.Match(d.Network.Name):
			d.dhcpServer = true
		case !slices.ContainsFunc(on, cfg.DHCPServers.Match) && !cfg.Unguarded.Match(d.Network.Name):
			note("label %s=%s has no effect: the operator's configuration does not permit it on network %s (guard.dhcp_servers: [%s])", guard.LabelDHCP, label, d.Network.Name, d.Network.Name)
		}
	}
}
