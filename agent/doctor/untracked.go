package doctor

import (
	"slices"

	"netguard/netpolicy/iptables"
)

// aboutUntracked is about rules that keep packets out of the table of connections.
func aboutUntracked(c *checks, f Facts) {
	all := slices.Clone(f.Firewall.Untracked)
	for _, p := range f.Firewall.Programs {
		for i, tables := range p.Tables {
			for _, rule := range iptables.Untracking(tables["raw"], nil) {
				all = append(all, []string{"iptables", "ip6tables"}[i]+" -t raw "+rule)
			}
		}
	}
	if len(all) > 0 {
		c.warn("conflict.notrack", "take the addresses of containers out of these rules, or allow the answers in policies as connections of their own",
			"rules take packets out of the table of connections (%s): where policies close a container, answers of what they allow are refused, since nothing tells that they are answers", some(all))
	}
}
